//go:build long

package e2e

import (
	"slices"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testdns"
)

// A record that is withdrawn ends what stands, once what was kept of it is over.
func TestDNSWithdrawn(t *testing.T) {
	dw := newDNSWorld(t, testdns.Zone{Name: "good.example"})
	one, two := dw.machine("one.good.example", testca.Leaf{}), dw.machine("two.good.example", testca.Leaf{})
	ofOne, ofTwo := dw.tlsa(one.credentials(), "--ttl", "1s"), dw.tlsa(two.credentials(), "--ttl", "1s")
	dw.publish("good.example", testdns.Signed, append(slices.Clone(ofOne), ofTwo...)...)
	p := &standingPeer{name: "two", reason: "unknown_ca", daemon: two, addr: serveEcho(t, two.socket)}
	p.talk(t, one.socket, 3)
	p.wantGoesOn(t, 3)
	dw.Set(t, "good.example", testdns.Signed, ofOne...)
	p.wantEnds(t, 3)
	wantError(t, dw.call(one, two, dw.as(t, bob).listen(t, two, 0)), reasons[reason.UnknownCA].own, "DNS has no TLSA record at _shared-alts.two.good.example")
}
