package purpose

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/template"

	"github.com/shared-altsd/shared-altsd/internal/testdoc"
)

// The number is the one of its UUID, and no certificate that holds it stops Go from reading.
func TestOID(t *testing.T) {
	oid := OID()
	if oid.String() != Dotted {
		t.Fatal(oid)
	}
	uuid := strings.ReplaceAll("b0b3a3a1-2abc-4738-8e68-d2ca9d8375d7", "-", "")
	arcs := []int{1, 2, 840, 113556, 1, 8000, 2554}
	for _, digits := range []int{4, 4, 4, 4, 4, 6, 6} {
		var n int
		if _, err := fmt.Sscanf(uuid[:digits], "%x", &n); err != nil {
			t.Fatal(err)
		}
		arcs, uuid = append(arcs, n), uuid[digits:]
	}
	if !oid.Equal(arcs) {
		t.Errorf("%v is not that of its UUID, %v", oid, arcs)
	}
	for _, arc := range oid {
		if arc >= 1<<24 {
			t.Errorf("%d is large", arc)
		}
	}
}

func TestParse(t *testing.T) {
	for _, good := range []string{Dotted, "1.3.6.1.4.1.32473.1.1", "0.0.0", "2.999.2147483647", "2.39.0"} {
		if oid, err := Parse(good); err != nil || oid.String() != good {
			t.Errorf("%s: %v %v", good, oid, err)
		}
	}
	large := "2.25.315976183138430103131297138862842107863"
	if _, err := Parse(large); err == nil || !strings.Contains(err.Error(), "2^31") {
		t.Errorf("%s: %v", large, err)
	}
	for _, bad := range []string{"", "1", "1.2", "serverAuth", Name, "1.2.3.", ".1.2.3", "1..2", "1.2.-3", "1.2.+3", "1.2. 3", "1.2.03", "3.1.1",
		"1.40.1", "1.2.2147483648", "1.2.x", strings.Repeat("1.", 40) + "1", "1.2." + strings.Repeat("0", 300)} {
		if oid, err := Parse(bad); err == nil {
			t.Errorf("%q: %v", bad, oid)
		}
	}
}

func TestNamed(t *testing.T) {
	for word, want := range map[string]string{"Shared-ALTSD": Dotted, "serverAuth": "1.3.6.1.5.5.7.3.1", "CLIENTAUTH": "1.3.6.1.5.5.7.3.2",
		"shared-altsd ": "", "": "", Dotted: ""} {
		if got := Named(word); got != want {
			t.Errorf("%q is %q", word, got)
		}
	}
	if got := String(OID()); got != Name+" ("+Dotted+")" {
		t.Error(got)
	}
	if got := String([]int{1, 3, 6, 1}); got != "1.3.6.1" {
		t.Error(got)
	}
}

// Why it is no number under 2.25, which nobody has to ask for either: Go reads no certificate with one.
func TestLargeNumbersAreNotRead(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(oid string) error {
		var large x509.OID
		if err := large.UnmarshalText([]byte(oid)); err != nil {
			t.Fatal(err)
		}
		content, err := large.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		usages, err := asn1.Marshal([]asn1.RawValue{{Tag: asn1.TagOID, Bytes: content}})
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Value: usages}}}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		_, err = x509.ParseCertificate(der)
		return err
	}
	if err := issue(Dotted); err != nil {
		t.Error(err)
	}
	if err := issue("2.25.234876867197548472593298135977268835799"); err == nil {
		t.Error("Go reads it: is there a simpler number?")
	}
}

// What CAs are told, and the page about it, have this number and no other.
func TestFiles(t *testing.T) {
	read := func(path string) string {
		b, err := os.ReadFile(filepath.Join(testdoc.Root(t), path))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if got := testdoc.Blocks(t, "docs/certificates.md", t.Name()); strings.TrimSpace(got[0]) != Dotted {
		t.Errorf("certificates.md has %q", got)
	}
	const usual = "1.3.6.1.5.5.7.3.1" // serverAuth
	for path, want := range map[string]string{
		"openssl.ext": "\nextendedKeyUsage = serverAuth," + Dotted + "\n",
		"easy-rsa":    "\nextendedKeyUsage = serverAuth," + Dotted + "\n",
		"freeipa.cfg": "params.exKeyUsageOIDs=" + usual + "," + Dotted + "\n",
	} {
		if !strings.Contains(read("deploy/certificates/"+path), want) {
			t.Errorf("%s has no %q", path, want)
		}
	}

	// step-ca's template, filled in as step-ca does it.
	parsed, err := template.New("").Funcs(template.FuncMap{"toJson": func(v any) (string, error) {
		b, err := json.Marshal(v)
		return string(b), err
	}}).Parse(read("deploy/certificates/step-ca.tpl"))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := parsed.Execute(&b, map[string]any{"Subject": `a"b`, "SANs": []string{"a.example.com"}}); err != nil {
		t.Fatal(err)
	}
	var filled struct {
		Subject                                   string
		KeyUsage, ExtKeyUsage, UnknownExtKeyUsage []string
	}
	if err := json.Unmarshal([]byte(b.String()), &filled); err != nil {
		t.Fatalf("%v: %s", err, b.String())
	}
	if !slices.Equal(filled.UnknownExtKeyUsage, []string{Dotted}) || !slices.Equal(filled.ExtKeyUsage, []string{"serverAuth", "clientAuth"}) ||
		!slices.Equal(filled.KeyUsage, []string{"digitalSignature"}) || filled.Subject != `a"b` {
		t.Errorf("the template gives %+v", filled)
	}

	// Each policy of FreeIPA's profile is whole, and each is in the list.
	profile := map[string]string{}
	for line := range strings.Lines(read("deploy/certificates/freeipa.cfg")) {
		key, value, found := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if _, twice := profile[key]; !found || twice {
			t.Errorf("freeipa.cfg: %q", line)
		}
		profile[key] = value
	}
	listed := strings.Split(profile["policyset.machine.list"], ",")
	for _, n := range listed {
		for _, part := range []string{"constraint", "default"} {
			if at := "policyset.machine." + n + "." + part; profile[at+".class_id"] == "" || profile[at+".name"] == "" {
				t.Errorf("freeipa.cfg lacks %s", at)
			}
		}
	}
	for key := range profile {
		rest, found := strings.CutPrefix(key, "policyset.machine.")
		if n, _, numbered := strings.Cut(rest, "."); found && numbered && !slices.Contains(listed, n) {
			t.Errorf("freeipa.cfg: %s is not in the list", key)
		}
	}
}
