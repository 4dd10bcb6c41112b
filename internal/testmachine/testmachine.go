// Package testmachine makes machines out of test certificates, for tests of what stands on certbind.
package testmachine

import (
	"sync"
	"testing"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// CA returns the one CA that has issued the usual machine's certificate, and that it trusts.
var CA = sync.OnceValue(func() *testca.CA {
	ca, err := testca.NewCA(testca.Options{Name: "test CA"})
	if err != nil {
		panic(err)
	}
	return ca
})

// Options say how a machine differs from the usual one.
type Options struct {
	// Leaf is its certificate, for the machine's name besides those given.
	Leaf testca.Leaf
	// Issuer has issued the certificate; CA if it is nil.
	Issuer *testca.CA
	// Config is what else the machine is made with. Credential and name are set here, and the trust if it has none.
	Config certbind.MachineConfig
	// AllowDomainAccounts is that of the trust that is made here.
	AllowDomainAccounts bool
}

// New makes a machine of that name.
func New(t testing.TB, name string, o Options) *certbind.Machine {
	t.Helper()
	if o.Issuer == nil {
		o.Issuer = CA()
	}
	o.Leaf.Hosts = append([]string{name}, o.Leaf.Hosts...)
	cred, err := certbind.ParseCredential(testca.MustIssue(t, o.Issuer, o.Leaf).PEM(), nil)
	if err != nil {
		t.Fatal(err)
	}
	o.Config.Credential, o.Config.Name = cred, name
	if o.Config.Trust == nil {
		o.Config.Trust, err = certbind.NewTrust(certbind.TrustConfig{AllowDomainAccounts: o.AllowDomainAccounts,
			CAs: []certbind.CA{{PEM: CA().PEM(), Source: "test CA"}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	m, err := certbind.NewMachine(o.Config)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
