package service

import (
	"context"
	"encoding/binary"
	"time"

	"golang.org/x/net/http2"

	"github.com/shared-altsd/shared-altsd/internal/fair"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// What an account costs the daemon, in microseconds of its processor, about. Work that can be long is done in turns
// among accounts (Server.turns). What only may lead to a handshake is taken from a budget, and a handshake that went well
// gives more back than the dearest library's connection and frames for it come to: so whoever does handshakes is not held up,
// and whoever does none cannot keep the daemon busy.
const (
	budgetRate  = 100_000 // a second: a tenth of a processor
	budgetSaved = 400_000
	handshakeOK = 800

	// A server's handshakes are paid for by a budget of their own when message 1 is there, and paid back when the peer has
	// proved who he is, so that replays of message 1 to a server of one account's do not slow those of others.
	unprovenRate  = 300_000
	unprovenSaved = 600_000
	costMessage1  = 700

	costConnection = 200
	costHandover   = 40 // a request with a descriptor
	// pendingConnections is how many connections of an account may wait for its budget; those above are closed.
	pendingConnections = 256
)

// Work does something for a caller that is not a handshake, which costs about so many microseconds: when his budget has
// them, and in turn with the work for others. An error is ctx's.
func (s *Server) Work(ctx context.Context, c Caller, cost int, do func()) error {
	if err := s.budget.Charge(ctx, c.share, cost); err != nil {
		return err
	}
	s.turns.Do(c.share, do)
	return nil
}

// payMessage1 takes from the account what message 1 costs.
func (h *session) payMessage1(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, h.srv.cfg.HandshakeTimeout)
	defer cancel()
	defer context.AfterFunc(h.srv.draining, cancel)()
	if h.impatient && h.srv.unproven.Try(h.share, costMessage1) ||
		!h.impatient && h.srv.unproven.Charge(ctx, h.share, costMessage1) == nil {
		return nil
	}
	if h.srv.draining.Err() != nil {
		return errStopping
	}
	return reason.Errorf(reason.Overloaded, "too many peers of %s begin handshakes and do not prove who they are", h.share)
}

// A frameMeter charges an account for the frames of HTTP/2 that are read on a connection of its own, before they are
// worked on.
type frameMeter struct {
	meter   fair.Meter
	preface int // bytes of the client's preface to come
	header  [9]byte
	have    int // bytes of header
	body    int // bytes of the frame to come
}

func newFrameMeter(m fair.Meter) *frameMeter {
	return &frameMeter{meter: m, preface: len(http2.ClientPreface)}
}

// read charges for bytes that were read.
func (m *frameMeter) read(ctx context.Context, b []byte) error {
	n := min(m.preface, len(b))
	m.preface -= n
	b = b[n:]
	cost := len(b) >> 10
	for len(b) > 0 {
		if m.body > 0 {
			n := min(m.body, len(b))
			m.body -= n
			b = b[n:]
			continue
		}
		n := copy(m.header[m.have:], b)
		m.have += n
		b = b[n:]
		if m.have == len(m.header) {
			m.have = 0
			m.body = int(binary.BigEndian.Uint32(m.header[:4]) >> 8)
			cost += costOf(http2.FrameType(m.header[3]), m.body)
		}
	}
	if cost == 0 {
		return nil
	}
	return m.meter.Charge(ctx, cost)
}

func costOf(t http2.FrameType, length int) int {
	switch t {
	case http2.FrameHeaders:
		return 60 + length/32
	case http2.FrameContinuation:
		return 20 + length/32
	case http2.FrameSettings, http2.FramePing, http2.FrameRSTStream:
		return 10 // answered, or work is undone
	}
	return 3
}

// pay waits until the account's budget has what a connection costs.
func (c *conn) pay() error {
	ctx, cancel := context.WithTimeout(c.ctx, 2*prefaceTimeout)
	defer cancel()
	defer context.AfterFunc(c.srv.draining, cancel)()
	if err := c.srv.budget.Charge(ctx, c.share, costConnection); err != nil {
		return err
	}
	_ = c.UnixConn.SetDeadline(time.Now().Add(prefaceTimeout)) // the wait was not the caller's
	return nil
}
