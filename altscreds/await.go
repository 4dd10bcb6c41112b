package altscreds

import (
	"container/list"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/handed"
)

// What a server does before it takes a place among the handshakes: it waits for the peer's whole first message.

// silentPeers is how many connections of a process may wait for the peer's first message; where there are more, that of
// the network that has most of them is given up that has waited longest. A peer that means it needs a round trip.
const silentPeers = 512

var silent waitingPeers

// waitingPeers are the connections that wait, the oldest first.
type waitingPeers struct {
	mu   sync.Mutex
	list list.List // of *waitingPeer
	of   map[netip.Prefix]*silentNetwork
}

// A silentNetwork is one that has peers who wait.
type silentNetwork struct {
	prefix netip.Prefix
	n      int // of them
}

type waitingPeer struct {
	net.Conn
	network *silentNetwork
	givenUp bool
}

func (w *waitingPeers) enter(raw net.Conn) (p *waitingPeer, leave func()) {
	p = &waitingPeer{Conn: raw}
	prefix := handed.Network(addrOf(raw.RemoteAddr()))
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of == nil {
		w.of = make(map[netip.Prefix]*silentNetwork)
	}
	if w.list.Len() >= silentPeers {
		w.giveUp()
	}
	if p.network = w.of[prefix]; p.network == nil {
		p.network = &silentNetwork{prefix: prefix}
		w.of[prefix] = p.network
	}
	p.network.n++
	e := w.list.PushBack(p)
	return p, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !p.givenUp {
			w.remove(e)
		}
	}
}

// giveUp gives up the oldest of the network that has most of them.
func (w *waitingPeers) giveUp() {
	oldest := w.list.Front()
	for e := oldest.Next(); e != nil; e = e.Next() {
		if e.Value.(*waitingPeer).network.n > oldest.Value.(*waitingPeer).network.n {
			oldest = e
		}
	}
	p := w.remove(oldest)
	p.givenUp = true
	p.SetReadDeadline(time.Unix(1, 0))
}

func (w *waitingPeers) remove(e *list.Element) *waitingPeer {
	p := w.list.Remove(e).(*waitingPeer)
	if p.network.n--; p.network.n == 0 {
		delete(w.of, p.network.prefix)
	}
	return p
}

// awaitPeer waits for the peer's whole first message, or for what cannot become one, which is for the daemon to judge. It
// returns what it could not leave where it is, after the bytes that were received before.
func awaitPeer(raw net.Conn, received []byte) ([]byte, error) {
	p, leave := silent.enter(raw)
	received, err := firstMessage(raw, received)
	leave()
	switch {
	case err == nil:
		return received, nil
	case p.givenUp:
		return nil, &HandshakeError{Reason: ReasonOverloaded, Text: "given up for others, since too many peers are silent, " +
			"and this one had been for longest", Err: err}
	}
	return nil, readError(err)
}

func firstMessage(raw net.Conn, received []byte) ([]byte, error) {
	const maxReceived = 2048 // bytes: message 1 has 1240
	if tcp, ok := raw.(*net.TCPConn); ok && len(received) == 0 {
		handle := getBuffer(maxReceived)
		defer putBuffer(handle)
		n, err := handed.PeekUntil(tcp, (*handle)[:maxReceived], func(b []byte) bool { return !partialFrame(b) })
		if n > 0 && err == io.EOF {
			err = nil // the daemon says what is missing
		}
		return nil, err
	}
	b := append(make([]byte, 0, maxReceived), received...)
	for len(b) == 0 || partialFrame(b) && frameEnd(b) <= maxReceived {
		n, err := raw.Read(b[len(b):frameEnd(b)])
		b = b[:len(b)+n]
		if err != nil && (n == 0 || err != io.EOF) {
			if len(b) > 0 && err == io.EOF {
				break
			}
			return nil, err
		}
	}
	return b, nil
}

// readByte reads one byte.
func readByte(raw net.Conn) ([]byte, error) {
	b := make([]byte, 1)
	for {
		switch n, err := raw.Read(b); {
		case n > 0:
			return b, nil
		case err != nil:
			return nil, err
		}
	}
}
