package certbind

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// What a setting of the program cures bears that setting, and says so in words that hold for any program.
func TestSettings(t *testing.T) {
	now := time.Now()
	root := newCA(t, testca.Options{})
	host := issue(t, root, testca.Leaf{Hosts: []string{alpha}})
	oid := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1, 1}
	name := func(sans []string, override string) error {
		_, err := credential(t, issue(t, root, testca.Leaf{Hosts: sans})).MachineName(nil, override, "")
		return err
	}
	trust := func(cas ...CA) error {
		_, err := NewTrust(TrustConfig{CAs: cas})
		return err
	}
	chain := func(l *testca.Issued, edit func(*TrustConfig)) error {
		cfg := trusting(root)
		edit(&cfg)
		return checkOwnChain(credential(t, l), alpha, newTrust(t, cfg), now)
	}
	sub := intermediate(t, root, testca.Options{EKUs: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	stale := crlOf(t, root, testca.CRLOptions{ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(-time.Minute)})
	_, noKey := ParseCredential(host.CertPEM, nil)
	for what, tc := range map[string]struct {
		err  error
		want Setting
	}{
		"no key":                  {noKey, SettingKey},
		"name that is none":       {name([]string{alpha}, "A"), SettingMachineName},
		"name not proved":         {name([]string{alpha}, "b.test"), SettingMachineName},
		"several names":           {name([]string{"a.b", "c.d"}, ""), SettingMachineName},
		"no name":                 {name(nil, ""), 0},
		"no CA":                   {trust(), SettingCAs},
		"any of the system":       {trust(CA{System: true}), SettingCAs},
		"a leaf as CA":            {trust(CA{PEM: host.CertPEM}), 0},
		"unknown CA":              {chain(issue(t, newCA(t, testca.Options{}), testca.Leaf{Hosts: []string{alpha}}), func(*TrustConfig) {}), SettingCAs},
		"CA for other names":      {chain(host, func(c *TrustConfig) { c.CAs[0].Names = []string{"example.org"} }), SettingCAs},
		"stale list":              {chain(host, func(c *TrustConfig) { c.CRLs = []CRLFile{stale} }), SettingCRLStaleOK},
		"purpose of leaf":         {chain(host, func(c *TrustConfig) { c.RequireEKU = oid }), SettingRequireEKU},
		"purpose of intermediate": {chain(issue(t, sub, testca.Leaf{Hosts: []string{alpha}, UnknownEKUs: []asn1.ObjectIdentifier{oid}}), func(c *TrustConfig) { c.RequireEKU = oid }), SettingRequireEKU},
		"CA as leaf":              {chain(issue(t, root, testca.Leaf{Hosts: []string{alpha}, IsCA: true}), func(*TrustConfig) {}), 0},
		"domain account":          {ValidAccount("a@b", false), SettingDomainAccounts},
		"domain group":            {validAttributes([]Attribute{{"groups", `b\a`}}, false), SettingDomainAccounts},
		"account with space":      {ValidAccount("a b", false), 0},
		"another's error":         {errors.New("no"), 0},
	} {
		if got := SettingOf(tc.err); tc.err == nil || got != tc.want || strings.Contains(tc.err.Error(), "--") {
			t.Errorf("%s: setting %d, want %d: %v", what, got, tc.want, tc.err)
		}
	}
	if SettingOf(nil) != 0 || errors.Unwrap(noKey) == nil || errors.Unwrap(noKey).Error() != noKey.Error() {
		t.Errorf("an error that is no more than its setting: %v", errors.Unwrap(noKey))
	}
	// Faults bear the same.
	cfg := trusting(newCA(t, testca.Options{NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)}))
	faults := Check(credential(t, host), "b.test", newTrust(t, cfg), now)
	if len(faults) != 2 || faults[0].Setting != SettingMachineName || faults[1].Setting != SettingCAs {
		t.Errorf("got %+v", faults)
	}
}
