package tpm

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/shared-altsd/shared-altsd/internal/signer"
	"github.com/shared-altsd/shared-altsd/internal/signer/device"
	"github.com/shared-altsd/shared-altsd/internal/testdevice"
)

var _ signer.Key = (*device.Key)(nil)

const provider = "openssl genpkey -provider tpm2 -provider default -out key.pem "

// open opens a key of the TPM, which is closed by the test, since the TPM serves one at a time.
func open(t *testing.T, p *testdevice.TPM, c Config) *device.Key {
	t.Helper()
	k, err := tryOpen(t, p, c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func tryOpen(t *testing.T, p *testdevice.TPM, c Config) (*device.Key, error) {
	t.Helper()
	c.Device = p.Socket
	if c.Secret == nil {
		c.Secret = device.NewSecret("")
	}
	return Open(t.Context(), c)
}

// sign has the key sign a statement.
func sign(k signer.Key) error { return testdevice.Sign(context.Background(), k) }

// TestRule63TPMKeys: keys as administrators make them, by either tool, sign as the protocol has it.
func TestRule63TPMKeys(t *testing.T) {
	for _, test := range []struct{ name, script, handle, passphrase string }{
		{name: "openssl, P-256", script: provider + "-algorithm EC -pkeyopt group:P-256"},
		{name: "openssl, P-384", script: provider + "-algorithm EC -pkeyopt group:P-384"},
		{name: "openssl, RSA", script: provider + "-algorithm RSA -pkeyopt bits:2048"},
		{name: "openssl, a passphrase", script: provider + "-algorithm EC -pkeyopt group:P-256 -pkeyopt user-auth:secret", passphrase: "secret"},
		{name: "openssl, RSA, a passphrase", script: provider + "-algorithm RSA -pkeyopt bits:2048 -pkeyopt user-auth:secret", passphrase: "secret"},
		{name: "openssl, a long passphrase", script: provider + "-algorithm EC -pkeyopt group:P-256 -pkeyopt user-auth:" + strings.Repeat("long", 10), passphrase: strings.Repeat("long", 10)},
		{name: "openssl, a persistent parent", script: "tpm2_createprimary -Q -C o -g sha256 -G ecc256 -c parent.ctx\n" +
			"tpm2_evictcontrol -Q -C o -c parent.ctx 0x81000001\n" + provider + "-algorithm EC -pkeyopt group:P-256 -pkeyopt parent:0x81000001"},
		{name: "tpm2-tools, in PEM", script: "tpm2_createprimary -Q -C o -c parent.ctx\ntpm2_evictcontrol -Q -C o -c parent.ctx 0x81000001\n" +
			"tpm2_create -Q -C 0x81000001 -G ecc256:ecdsa-sha256 -u key.pub -r key.priv\n" +
			"tpm2_encodeobject -Q -C 0x81000001 -u key.pub -r key.priv -o key.pem"},
		{name: "tpm2-tools, at a handle", handle: "0x81000100", script: keep("ecc256", "")},
		{name: "tpm2-tools, P-384, at a handle", handle: "0x81000100", script: keep("ecc384:ecdsa-sha384", "")},
		{name: "tpm2-tools, RSA, at a handle", handle: "0x81000100", script: keep("rsa2048", "")},
		{name: "tpm2-tools, a passphrase, at a handle", handle: "0x81000100", script: keep("ecc256", "-p secret"), passphrase: "secret"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := testdevice.StartTPM(t)
			p.Shell(test.script)
			var c Config
			if test.handle != "" {
				h, err := ParseHandle(test.handle)
				if err != nil {
					t.Fatal(err)
				}
				c.Handle = h
			} else {
				c.File = p.Read("key.pem")
				if !IsKeyFile(c.File) {
					t.Error("it is not known by its header")
				}
			}
			if test.passphrase != "" {
				if k, err := tryOpen(t, p, c); err == nil {
					if err := sign(k); err == nil || !strings.Contains(err.Error(), "has a passphrase") {
						t.Errorf("without the passphrase it says %v", err)
					}
					k.Close()
				} else if !strings.Contains(err.Error(), "has a passphrase") {
					t.Errorf("without the passphrase it says %v", err)
				}
				c.Secret = device.NewSecret(p.Write("pin", test.passphrase+"\n"))
			}
			k := open(t, p, c)
			for range 3 {
				if err := sign(k); err != nil {
					t.Fatal(err)
				}
			}
			if err := k.Close(); err != nil {
				t.Fatal(err)
			}
			if left := p.Run("tpm2_getcap", "handles-transient"); left != "" {
				t.Errorf("it leaves in the TPM %s", left)
			}
			if left := p.Run("tpm2_getcap", "handles-loaded-session"); left != "" {
				t.Errorf("it leaves sessions in the TPM %s", left)
			}
		})
	}
}

// keep makes a key under a parent of the owner's, and keeps it at 0x81000100.
func keep(kind, more string) string {
	return "tpm2_createprimary -Q -C o -g sha256 -G ecc256 -c parent.ctx\n" +
		"tpm2_create -Q -C parent.ctx -G " + kind + " -u key.pub -r key.priv -c key.ctx " + more + "\n" +
		"tpm2_evictcontrol -Q -C o -c key.ctx 0x81000100"
}

// TestRefusedKeys: what cannot sign as peers demand it is refused when it is opened.
func TestRefusedKeys(t *testing.T) {
	const parent = "tpm2_createprimary -Q -C o -g sha256 -G ecc256 -c parent.ctx\n"
	const store = "\ntpm2_evictcontrol -Q -C o -c key.ctx 0x81000100"
	for _, test := range []struct{ name, script, want string }{
		{"no key", "true", "no key at the handle 0x81000100"},
		{"another scheme of RSA", parent + "tpm2_create -Q -C parent.ctx -G rsa2048:rsassa-sha256:null -u u -r r -c key.ctx -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign'" + store, "another scheme than RSAPSS"},
		{"another hash", parent + "tpm2_create -Q -C parent.ctx -G ecc256:ecdsa-sha384 -u u -r r -c key.ctx" + store, "another scheme than ECDSA"},
		{"decrypt alone", parent + "tpm2_create -Q -C parent.ctx -G rsa2048 -u u -r r -c key.ctx -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|decrypt'" + store, "not one for signatures"},
		{"restricted", parent + "tpm2_create -Q -C parent.ctx -G ecc256:ecdsa-sha256:null -u u -r r -c key.ctx -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign'" + store, "restricted"},
		{"P-521", parent + "tpm2_create -Q -C parent.ctx -G ecc521 -u u -r r -c key.ctx" + store, "curve other than"},
		{"a parent", "tpm2_createprimary -Q -C o -G ecc256 -c key.ctx" + store, "not one for signatures"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := testdevice.StartTPM(t)
			p.Shell(test.script)
			k, err := tryOpen(t, p, Config{Handle: 0x81000100})
			if err == nil {
				k.Close()
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
	t.Run("another TPM's", func(t *testing.T) {
		p, other := testdevice.StartTPM(t), testdevice.StartTPM(t)
		other.Shell(provider + "-algorithm EC -pkeyopt group:P-256")
		if _, err := tryOpen(t, p, Config{File: other.Read("key.pem")}); err == nil || !strings.Contains(err.Error(), "made by another TPM") {
			t.Error(err)
		}
	})
}

// TestRule63TPMLost: a TPM that is reset, or away for a while, costs no restart; another one has another key.
func TestRule63TPMLost(t *testing.T) {
	p := testdevice.StartTPM(t)
	p.Shell(provider + "-algorithm EC -pkeyopt group:P-256")
	k := open(t, p, Config{File: p.Read("key.pem")})
	defer k.Close()
	if err := sign(k); err != nil {
		t.Fatal(err)
	}
	p.Kill()
	if err := sign(k); err == nil || !strings.Contains(err.Error(), "there is no TPM at") {
		t.Errorf("with the TPM away it says %v", err)
	}
	p.Start()
	if err := sign(k); err != nil {
		t.Errorf("after a reset: %v", err)
	}
}

// TestRule63Passphrase: a wrong passphrase is tried once, and not again before the file changes, so that it does not lock the TPM.
func TestRule63Passphrase(t *testing.T) {
	p := testdevice.StartTPM(t)
	p.Shell("tpm2_dictionarylockout -Q --setup-parameters --max-tries=3 --recovery-time=3600 --lockout-recovery-time=3600\n" +
		provider + "-algorithm EC -pkeyopt group:P-256 -pkeyopt user-auth:secret")
	tries := func() string {
		t.Helper()
		return p.Shell("tpm2_getcap properties-variable | grep TPM2_PT_LOCKOUT_COUNTER:")
	}
	c := Config{File: p.Read("key.pem"), Secret: device.NewSecret(p.Write("pin", "wrong"))}
	k := open(t, p, c)
	for i, want := range []string{"has refused what", "has refused what", "has refused what"} {
		if err := sign(k); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "wrong\n") {
			t.Errorf("signature %d: %v, want %q", i, err, want)
		}
	}
	k.Close()
	if got := tries(); !strings.Contains(got, "0x1") {
		t.Errorf("after a wrong passphrase the TPM has counted %s", got)
	}
	p.Write("pin", "secret")
	k = open(t, p, c)
	if err := sign(k); err != nil {
		t.Error(err)
	}
	k.Close()

	// A key of which nothing says that it has a passphrase.
	p.Shell("tpm2_createprimary -Q -C o -g sha256 -G ecc256 -c parent.ctx\n" +
		"tpm2_create -Q -C parent.ctx -G ecc256 -p secret -u key.pub -r key.priv -c key.ctx\n" +
		"tpm2_evictcontrol -Q -C o -c key.ctx 0x81000100\ntpm2_dictionarylockout -Q --clear-lockout")
	k = open(t, p, Config{Handle: 0x81000100})
	for range 4 {
		if err := sign(k); err == nil || !strings.Contains(err.Error(), "has a passphrase") {
			t.Errorf("without a passphrase: %v", err)
		}
	}
	k.Close()
	if got := tries(); !strings.Contains(got, "0x1") {
		t.Errorf("without a passphrase the TPM has counted %s", got)
	}
	// Two wrong ones by somebody else lock it.
	p.Write("pin", "wrong")
	for range 2 {
		k := open(t, p, Config{Handle: 0x81000100, Secret: device.NewSecret(p.Path("pin"))})
		sign(k)
		k.Close()
	}
	p.Write("pin", "secret")
	k = open(t, p, Config{Handle: 0x81000100, Secret: device.NewSecret(p.Path("pin"))})
	if err := sign(k); err == nil || !strings.Contains(err.Error(), "clear-lockout") {
		t.Errorf("a TPM that is locked says %v", err)
	}
	k.Close()
	p.Shell("tpm2_dictionarylockout -Q --clear-lockout")
	k = open(t, p, Config{Handle: 0x81000100, Secret: device.NewSecret(p.Path("pin"))})
	if err := sign(k); err != nil {
		t.Error(err)
	}
	k.Close()
}

func TestHandles(t *testing.T) {
	for _, test := range []struct {
		text string
		want uint32
	}{
		{"0x81000100", 0x81000100}, {"0X81FFFFFF", 0x81ffffff}, {"81000100", 0}, {"0x80000001", 0}, {"0x40000001", 0}, {"0x181000100", 0}, {"0x", 0}, {"", 0},
	} {
		if got, err := ParseHandle(test.text); got != test.want || (err == nil) != (test.want != 0) {
			t.Errorf("%q: %#x, %v", test.text, got, err)
		}
	}
}

// wrappedExample is of openssl's provider tpm2, on P-256.
const wrappedExample = `-----BEGIN TSS2 PRIVATE KEY-----
MIHwBgZngQUKAQOgAwEBAQIEQAAAAQRYAFYAIwALAAYAcgAAABAAEAADABAAIDAf
BUUH43fE2vNaKz7NmXDk/UgUsw72+qlLz015P//jACDeYa/yHWPSRDTyrgQua2Z1
vE19BT8zAQMXrSwyMggq1wSBgAB+ACC05EDZto5RmhLJkTpZV5Vd2y2X1YF5UXNK
t8in8lWznAAQ5ZI43fLSXUvNJ8NOOBMJGehpu3GLgKV5lgenY6NWFbV6QEsGHtj0
0pMykPgiaGWZyHzJcTBzRo7vX0U3Q+UXYv/I4OhR3v7e7iMRCpMJ3xP9geHmtwXw
ECdy
-----END TSS2 PRIVATE KEY-----
`

func TestKeyFiles(t *testing.T) {
	block, _ := pem.Decode([]byte(wrappedExample))
	encoded := func(change func(der []byte) []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: change(append([]byte{}, block.Bytes...))}))
	}
	at := func(i int, b byte) func([]byte) []byte {
		return func(der []byte) []byte { der[i] = b; return der }
	}
	for _, test := range []struct{ name, file, want string }{
		{"as it is", wrappedExample, ""},
		{"behind a certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" + wrappedExample, ""},
		{"true as DER has it", encoded(at(15, 0xff)), ""},
		{"nothing", "", "no \"TSS2 PRIVATE KEY\""},
		{"twice", wrappedExample + wrappedExample, "several keys"},
		{"an old one", "-----BEGIN TSS2 KEY BLOB-----\nAAAA\n-----END TSS2 KEY BLOB-----\n", "before 2018"},
		{"importable", encoded(at(10, 4)), "of the type 2.23.133.10.1.4"},
		{"a policy", encoded(at(11, 0xa1)), "bound to a policy"},
		{"something else", encoded(at(11, 0xa9)), "tag 9"},
		{"the null hierarchy", encoded(at(21, 7)), "its parent is 0x40000007"},
		{"no parent's handle", encoded(at(18, 0x20)), "its parent is 0x20000001"},
		{"a wrong length inside", encoded(at(25, 0x55)), "public part does not parse"},
		{"cut", encoded(func(der []byte) []byte { return der[:len(der)-1] }), "not one SEQUENCE"},
		{"something behind", encoded(func(der []byte) []byte { return append(der, 0) }), "not one SEQUENCE"},
		{"too long", strings.Repeat("x", MaxFile+1), "more than"},
	} {
		w, err := parseFile([]byte(test.file))
		switch {
		case test.want == "" && (err != nil || !w.emptyAuth):
			t.Errorf("%s: %v", test.name, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
}

func FuzzKeyFile(f *testing.F) {
	block, _ := pem.Decode([]byte(wrappedExample))
	f.Add(block.Bytes)
	f.Fuzz(func(t *testing.T, der []byte) {
		w, err := parseKey(der)
		if err != nil {
			return
		}
		k := new(key)
		if err := k.take(w.public, tpm2.TPM2BName{}); err != nil {
			return
		}
		if _, err := x509.MarshalPKIXPublicKey(k.key); err != nil {
			t.Errorf("a key that was taken is none: %v", err)
		}
	})
}
