package service

import (
	"crypto/x509"
	"math/big"
	"strconv"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// What is said of a peer is kept with his verification, but not what a machine can make large for each of its accounts: the same is said
// of him then.
func TestAboutIsKeptIfSmall(t *testing.T) {
	var many []string
	for n := range keptNames + 1 {
		many = append(many, "n"+strconv.Itoa(n)+".test")
	}
	long := []certbind.Attribute{{Name: "groups", Value: strings.Repeat("a", 200) + "," + strings.Repeat("b", 200) + "," + strings.Repeat("c", 200)}}
	for _, c := range []struct {
		name  string
		leaf  testca.Leaf
		attrs []certbind.Attribute
		kept  bool
	}{
		{"small", testca.Leaf{}, nil, true}, {"groups", testca.Leaf{}, []certbind.Attribute{{Name: "groups", Value: "wheel"}}, true},
		{"many names", testca.Leaf{Hosts: append(many, "alpha.test")}, nil, false}, {"many groups", testca.Leaf{}, long, false},
	} {
		m := testMachine(t, "alpha.test", c.leaf)
		a, err := m.Attest(t.Context(), "alice", c.attrs)
		if err != nil {
			t.Fatal(err)
		}
		var of [2]*about
		for n := range of {
			p, err := m.Verify(a.Identity, a.Public)
			if err != nil {
				t.Fatal(err)
			}
			of[n] = aboutPeer(p)
		}
		if (of[0] == of[1]) != c.kept {
			t.Errorf("%s: kept %v", c.name, of[0] == of[1])
		}
		if of[0].err != nil || of[0].policy.Account != "alice" || of[0].leaf != of[1].leaf || len(of[1].policy.Names) == 0 || of[1].serial == "" {
			t.Errorf("%s: %+v", c.name, of[0])
		}
	}
	for bits, kept := range map[uint]bool{keptSerial - 1: true, keptSerial: false} {
		own := &x509.Certificate{SerialNumber: new(big.Int).Lsh(big.NewInt(1), bits)}
		if keeps(&certbind.Peer{Leaf: own, DNS: true}) != kept {
			t.Errorf("a serial number of %d bits: kept %v", bits+1, !kept)
		}
	}
}
