package certbind

import (
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testca"
)

func TestTrustInspection(t *testing.T) {
	one, two := newCA(t, testca.Options{Name: "one"}), newCA(t, testca.Options{Name: "two"})
	end := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	cfg := trusting(one, two)
	cfg.CRLs = []CRLFile{crlOf(t, two, testca.CRLOptions{NextUpdate: end})}
	trust := newTrust(t, cfg)
	if cas := trust.CAs(); len(cas) != 2 || !cas[0].Equal(one.Cert) || !cas[1].Equal(two.Cert) {
		t.Errorf("got the CAs %v", cas)
	}
	crls := trust.CRLs()
	if len(crls) != 1 || crls[0].Source != "test.crl" || crls[0].Issuer != "CN=two" || !crls[0].NextUpdate.Equal(end) ||
		!crls[0].ThisUpdate.Before(end) {
		t.Errorf("got the lists %v", crls)
	}
}
