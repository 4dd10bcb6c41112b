package altscreds

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/netip"

	"github.com/shared-altsd/shared-altsd/internal/gate"
	"github.com/shared-altsd/shared-altsd/internal/handed"
)

// sitePlaces is how many of a server's daemonPlaces the networks of one site may have, so that who has a whole range of
// addresses does not take all.
const sitePlaces = 48

// A network is one of handed.Network or handed.Site; not valid: peers without an address.
type network struct{ netip.Prefix }

// GivesWay reports true: a stranger's message 1 takes a place, and may be a replay.
func (network) GivesWay() bool { return true }

// serverPlaces are the places of servers. While others wait, the oldest of a network's, of a site's, or of the site that
// has most goes after a second: the daemon does the same, but does not know who waits here.
type serverPlaces struct {
	networks, all *gate.Gate[network]
}

func newServerPlaces() serverPlaces {
	return serverPlaces{networks: gate.New[network](handed.PlacesOfNetwork, math.MaxInt),
		all: gate.New[network](sitePlaces, daemonPlaces)}
}

// A place is that of a handshake under way.
type place struct {
	ctx     context.Context // the handshake's, which ends as well when the place has to be given up
	leave   func()
	prolong func() // is called when the daemon has to be waited for
}

// take waits for a place of the peer's network, and then for one of its site.
func (s serverPlaces) take(ctx context.Context, peer net.Addr) (*place, error) {
	addr := addrOf(peer)
	placed, cancel := context.WithCancelCause(ctx)
	away := func() { cancel(errGaveWay(s.all.Grace)) }
	leave, prolong := func() { cancel(nil) }, func() {}
	for _, g := range []struct {
		*gate.Gate[network]
		of netip.Prefix
	}{{s.networks, handed.Network(addr)}, {s.all, handed.Site(addr)}} {
		if g.Gate == s.networks && !g.of.IsValid() {
			continue
		}
		p, err := g.Acquire(placed, network{g.of}, false, away)
		if err != nil {
			leave()
			return nil, placeError(placed, err)
		}
		leaveOther, prolongOther := leave, prolong
		leave = func() { g.Release(p); leaveOther() }
		prolong = func() { g.Prolong(p, daemonWait); prolongOther() }
	}
	return &place{placed, leave, prolong}, nil
}

// addrOf returns the address, not valid if it is not TCP's.
func addrOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr()
	}
	return netip.Addr{}
}

// placeError returns why a place was given up, if it was, else err.
func placeError(placed context.Context, err error) error {
	if e, ok := context.Cause(placed).(*HandshakeError); ok {
		return e
	}
	return err
}

func errGaveWay(grace fmt.Stringer) error {
	return &HandshakeError{Reason: ReasonOverloaded, Text: fmt.Sprintf("the handshake gave its place to one that waited, "+
		"since it was not done within %v", grace)}
}
