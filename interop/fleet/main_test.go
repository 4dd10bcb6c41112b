package main

import (
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// The simulation does what it says: with too small a cache all are verified again, with a large one none, and who renewed is.
func TestFleet(t *testing.T) {
	f := &fleet{ca: testca.MustCA(t, testca.Options{})}
	f.server = testca.MustIssue(t, f.ca, testca.Leaf{Hosts: []string{"server.hpc.example.com"}})
	again := func(n int) *peer {
		p, err := f.issue(n)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for n := range 20 {
		f.peers = append(f.peers, again(n))
	}
	for cached, want := range map[int]uint64{8: 20, 32: 0} {
		m, _, err := f.machine(cached, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []uint64{20, want} {
			if _, verified, err := dial(m, f.peers); err != nil || verified != want {
				t.Errorf("%d are kept: %d verified, want %d: %v", cached, verified, want, err)
			}
		}
		f.peers[3] = again(3)
		if _, verified, err := dial(m, f.peers); err != nil || cached == 32 && verified != 1 {
			t.Errorf("one renewed, %d verified: %v", verified, err)
		}
	}
	if err := f.reload(1000); err != nil {
		t.Error(err)
	}
}
