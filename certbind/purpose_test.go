package certbind

import (
	"crypto/x509"
	"encoding/asn1"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/purpose"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// Whoever has the key of a machine's web server has a certificate of the same CA for the same name, and speaks for nobody where
// the purpose is required; where it is not, that is said.
func TestRule64Purpose(t *testing.T) {
	ca := newCA(t, testca.Options{})
	web := issue(t, ca, testca.Leaf{Hosts: []string{alpha}, EKUs: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
	machine := issue(t, ca, testca.Leaf{Hosts: []string{alpha}, EKUs: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		UnknownEKUs: []asn1.ObjectIdentifier{purpose.OID()}})
	if ForMachines(web.Cert) || !ForMachines(machine.Cert) {
		t.Error("which of the two is for machines is not seen")
	}
	oid := func(s string) asn1.ObjectIdentifier {
		o, err := purpose.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	dns := CA{Names: []string{"example.com"}, DANE: true}
	for name, tc := range map[string]struct {
		require asn1.ObjectIdentifier
		cas     []CA
		web     reason.Code
		any     bool
	}{
		"none":                        {any: true},
		"ours":                        {require: purpose.OID(), web: reason.CertificateUnacceptable},
		"another":                     {require: oid("1.3.6.1.4.1.32473.1"), web: reason.CertificateUnacceptable},
		"serverAuth is no protection": {require: oid("1.3.6.1.5.5.7.3.1"), any: true},
		"nor clientAuth":              {require: oid("1.3.6.1.5.5.7.3.2"), any: true},
		"nor any":                     {require: oid("2.5.29.37.0"), web: reason.CertificateUnacceptable, any: true},
		"DNS as well":                 {cas: []CA{{PEM: ca.PEM()}, dns}, any: true},
		"DNS alone":                   {cas: []CA{dns}, web: reason.UnknownCA},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := trusting(ca)
			cfg.RequireEKU = tc.require
			if tc.cas != nil {
				cfg.CAs = tc.cas
			}
			trust := newTrust(t, cfg)
			if got := trust.AnyPurpose(); got != tc.any {
				t.Errorf("any purpose: %v", got)
			}
			if name == "DNS as well" || name == "DNS alone" {
				return
			}
			c := newClaim(web)
			_, err := trust.verify(c.sign(web), c.used, nil, c.now)
			wantCode(t, err, tc.web)
			if name == "ours" && (err == nil || !strings.Contains(err.Error(), "shared-altsd ("+purpose.Dotted+")")) {
				t.Errorf("the purpose is not named: %v", err)
			}
			if name == "none" || name == "ours" {
				c := newClaim(machine)
				_, err := trust.verify(c.sign(machine), c.used, nil, c.now)
				wantCode(t, err, reason.Accepted)
			}
		})
	}
}
