package devca

import (
	"crypto/x509"
	"net"
	"testing"
)

func TestIssue(t *testing.T) {
	ca, err := New("a CA")
	if err != nil {
		t.Fatal(err)
	}
	issued, err := ca.Issue("a.example.com", net.IPv4(192, 0, 2, 1))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca.PEM()) {
		t.Fatal("the CA's PEM holds no certificate")
	}
	for _, name := range []string{"a.example.com", "192.0.2.1"} {
		if _, err := issued.Cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := issued.Cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: "b.example.com"}); err == nil {
		t.Error("the certificate is valid for another host")
	}
}
