package testca

import (
	"math/big"
	"testing"
)

// The functions below are the CA's for tests that end where it fails.

// MustCA is NewCA.
func MustCA(t testing.TB, o Options) *CA {
	t.Helper()
	ca, err := NewCA(o)
	return must(t, ca, err)
}

// MustIntermediate is ca.Intermediate.
func MustIntermediate(t testing.TB, ca *CA, o Options) *CA {
	t.Helper()
	sub, err := ca.Intermediate(o)
	return must(t, sub, err)
}

// MustIssue is ca.Issue.
func MustIssue(t testing.TB, ca *CA, l Leaf) *Issued {
	t.Helper()
	issued, err := ca.Issue(l)
	return must(t, issued, err)
}

// MustCRL is ca.CRL.
func MustCRL(t testing.TB, ca *CA, serials []*big.Int, o CRLOptions) []byte {
	t.Helper()
	der, err := ca.CRL(serials, o)
	return must(t, der, err)
}

func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}
