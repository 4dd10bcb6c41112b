package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// What is printed is the record of the certificate's key, or of the certificate, under the machine's name, and nothing that
// a zone or nsupdate would not take.
func TestTLSA(t *testing.T) {
	dir := testprog.Dir(t)
	ca := testca.MustCA(t, testca.Options{})
	write := func(name string, mode os.FileMode, parts ...[]byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, bytes.Join(parts, nil), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	certPEM := func(i *testca.Issued) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.Cert.Raw})
	}
	one := testca.MustIssue(t, ca, testca.Leaf{Hosts: []string{"One.test"}})
	renewed := testca.MustIssue(t, ca, testca.Leaf{Hosts: []string{"one.test"}, Key: one.Key})
	next := testca.MustIssue(t, ca, testca.Leaf{Hosts: []string{"one.test"}, KeyType: testca.Ed25519})
	other := testca.MustIssue(t, ca, testca.Leaf{Hosts: []string{"other.test"}})
	several := testca.MustIssue(t, ca, testca.Leaf{Hosts: []string{"b.test", "a.test"}})
	old := testca.MustIssue(t, ca, testca.Leaf{Subject: pkix.Name{CommonName: "old.test"}, SelfSigned: true, IsCA: true, NoKeyUsage: true})
	onePEM := write("one.pem", 0o600, one.PEM())
	oneCert := write("one.crt", 0o644, certPEM(one))
	twoCerts := write("two.crt", 0o644, certPEM(other), certPEM(one))
	keyPEM := one.PEM()[:bytes.Index(one.PEM(), []byte("-----BEGIN CERT"))]
	key := write("one.key", 0o600, keyPEM)
	spki, err := x509.MarshalPKIXPublicKey(next.Key.Public())
	if err != nil {
		t.Fatal(err)
	}
	public := write("next.pub", 0o644, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}))
	spkiHash := func(i *testca.Issued) string { return fmt.Sprintf("%x", sha256.Sum256(i.Cert.RawSubjectPublicKeyInfo)) }
	certHash := func(i *testca.Issued) string { return fmt.Sprintf("%x", sha256.Sum256(i.Cert.Raw)) }
	record := "_shared-alts.one.test. 3600 IN TLSA 3 1 1 " + spkiHash(one) + "\n"
	both := record + "_shared-alts.one.test. 3600 IN TLSA 3 1 1 " + spkiHash(next) + "\n"
	update := "update add _shared-alts.one.test. 300 TLSA 3 1 1 " + spkiHash(one) + "\n"
	for _, tc := range []struct {
		what, args string
		out        string // without comments; "" for a refusal
		says       string // in comments or the error
	}{
		{"certificate and key", "--credentials " + onePEM, record, "what this machine has (" + onePEM},
		{"a certificate alone", "--credentials " + oneCert, record, ""},
		{"a chain in any order, whose key a signer has", "--key signer:/run/nowhere --credentials " + write("chain.crt", 0o644, ca.PEM(), certPEM(one)), record, ""},
		{"the first of several", "--credentials " + twoCerts, strings.ReplaceAll(strings.ReplaceAll(record, "one", "other"),
			spkiHash(one), spkiHash(other)), ""},
		{"that of the key", "--credentials " + twoCerts + " --key " + key, record, ""},
		{"a key alone", "--credentials " + key + " --machine-name one.test", record, ""},
		{"a key without a name", "--credentials " + key, "", "name the machine (--machine-name)"},
		{"several names", "--credentials " + write("several.crt", 0o644, certPEM(several)), "", "choose one (--machine-name)"},
		{"one of them", "--machine-name A.test --credentials " + write("several.crt", 0o644, certPEM(several)),
			"_shared-alts.a.test. 3600 IN TLSA 3 1 1 " + spkiHash(several) + "\n", ""},
		{"none of them", "--machine-name c.test --credentials " + write("several.crt", 0o644, certPEM(several)), "", "c.test"},
		{"the ancestor's", "--selector 0 --credentials " + write("old.pem", 0o600, old.PEM()),
			"_shared-alts.old.test. 3600 IN TLSA 3 0 1 " + certHash(old) + "\n", "before it is renewed"},
		{"by SHA-512, for five minutes", "--matching 2 --ttl 5m --credentials " + oneCert,
			fmt.Sprintf("_shared-alts.one.test. 300 IN TLSA 3 1 2 %x\n", sha512.Sum512(one.Cert.RawSubjectPublicKeyInfo)), ""},
		{"in full", "--matching 0 --selector 0 --credentials " + oneCert,
			fmt.Sprintf("_shared-alts.one.test. 3600 IN TLSA 3 0 0 %x\n", one.Cert.Raw), ""},
		{"nsupdate", "--format nsupdate --ttl 5m --credentials " + oneCert, update + "send\n", ""},
		{"nsupdate in the place of all", "--format nsupdate --ttl 5m --replace --credentials " + oneCert,
			"update delete _shared-alts.one.test. TLSA\n" + update + "send\n", ""},
		{"a zone in the place of all", "--replace --credentials " + oneCert, "", "--format nsupdate"},
		{"the next key", "--credentials " + oneCert + " --next " + write("next.pem", 0o600, next.PEM()), both,
			"wait for 1h0m0s and 10 s"},
		{"the next key alone", "--credentials " + oneCert + " --next " + public, both, "the old record may go"},
		{"the next certificate, of a key that has none", "--selector 0 --credentials " + oneCert + " --next " + public, "", "--selector 1"},
		{"the same key renewed", "--credentials " + oneCert + " --next " + write("renewed.crt", 0o644, certPEM(renewed)), record,
			"nothing in DNS has to change"},
		{"the same key renewed, by certificate", "--selector 0 --credentials " + oneCert + " --next " +
			write("renewed.crt", 0o644, certPEM(renewed)), "_shared-alts.one.test. 3600 IN TLSA 3 0 1 " + certHash(one) +
			"\n_shared-alts.one.test. 3600 IN TLSA 3 0 1 " + certHash(renewed) + "\n", "may go"},
		{"another machine's next", "--credentials " + oneCert + " --next " + write("other.crt", 0o644, certPEM(other)), "", "one.test"},
		{"a key that all may read", "--credentials " + write("open.pem", 0o644, one.PEM()), "", "chmod 0600"},
		{"a request", "--credentials " + write("x.csr", 0o644, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte{1}})),
			"", "CERTIFICATE REQUEST"},
		{"nothing", "--credentials " + write("empty", 0o644, nil), "", "the file is empty"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			os.Chmod(filepath.Join(dir, "open.pem"), 0o644) // whatever the umask
			code, stdout, stderr := altsd(t, append([]string{"tlsa"}, strings.Fields(tc.args)...)...)
			var records strings.Builder
			for line := range strings.Lines(stdout) {
				if !strings.HasPrefix(line, "; ") {
					records.WriteString(line)
				}
			}
			if (code == 0) != (tc.out != "") || records.String() != tc.out || !strings.Contains(stdout+stderr, tc.says) {
				t.Errorf("exit status %d, want %q with %q\n%s%s", code, tc.out, tc.says, stdout, stderr)
			}
		})
	}
}
