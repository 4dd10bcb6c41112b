package service

import (
	"math"
	"net/netip"

	"github.com/shared-altsd/shared-altsd/internal/gate"
	"github.com/shared-altsd/shared-altsd/internal/handed"
)

// A gateKey tells apart whose handshakes are counted; from, if set, is the peers' address.
type gateKey struct {
	share share
	role  Role
	from  netip.Prefix
}

// GivesWay reports whether it is a server's: a client's handshake is its account's own.
func (k gateKey) GivesWay() bool { return k.role == Responder }

type (
	handshakeGate = gate.Gate[gateKey]
	place         = gate.Place[gateKey]
)

// A caller that stands still while it waits, and so does not, may have twice the handshakes that others may: such as Envoy
// begin, after a restart, hundreds at once, and each that is refused is a connection that fails.
func newGate(l Limits) *handshakeGate {
	g := gate.New[gateKey](l.Handshakes, l.HandshakesInAll)
	g.AtOnce = 2 * l.Handshakes
	return g
}

// newAddressGate returns the gate that each handshake passes first whose peer's address is known.
func newAddressGate() *handshakeGate { return gate.New[gateKey](handed.PlacesOfNetwork, math.MaxInt) }

// counts returns how many handshakes are under way, and how many wait for a place, by Role.
func counts(g *handshakeGate) (inUse, waiting [2]int) {
	for role := range Responder + 1 {
		inUse[role], waiting[role] = g.Counts(func(k gateKey) bool { return k.role == role })
	}
	return inUse, waiting
}
