package service

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// A Role is that of this machine in a handshake (docs/protocol.md, section 1).
type Role int

// The roles: an Initiator's application dialled (a gRPC client), a Responder's accepted (a gRPC server).
const (
	Initiator Role = iota
	Responder
)

const lastKept = 16 // failures in Stats.Last

// A Record is one finished handshake, for the log, for metrics and for `status`. It holds no key material, and no text
// of the peer's but its verified identity.
type Record struct {
	Time  time.Time // of its end
	Role  Role
	ID    string // 16 hexadecimal digits, the same in the peer's log; empty if no message 1 was made or seen
	Local string // account@machine, empty if the caller has no account
	UID   uint32
	PID   int32  // at connect
	Peer  string // account@machine, empty unless verified
	// PeerCA is the trusted CA that vouched for the peer, nil unless verified. It is shared: not to be changed.
	PeerCA   *x509.Certificate
	Remote   netip.AddrPort // as the application says, not proved
	Reason   string         // "accepted", the name of a reason code, or bad_request, peer_closed, cancelled
	Detail   string         // cause and cure, empty if accepted
	ByPeer   bool           // the peer's daemon refused
	Duration time.Duration  // since the start request of a client, since the first byte of the peer's at a server
	// Sent and Received are bytes on the wire in each direction.
	Sent, Received int

	machine string // the first name of the peer's certificate, if verified: with share, the key of the log's limits
	share   share
}

// record returns the Record of a session that has ended.
func (h *session) record() Record {
	r := Record{Time: time.Now(), Role: h.role, ID: h.id, UID: h.caller.UID, PID: h.caller.PID,
		share: h.share, Reason: reason.Accepted.String(), Sent: h.sent, Received: h.received}
	if f := h.failure; f != nil {
		r.Reason, r.Detail, r.ByPeer = f.name, f.text, f.byPeer
	}
	if !h.began.IsZero() {
		r.Duration = r.Time.Sub(h.began)
	}
	if h.me != nil {
		r.Local = h.me.String()
	}
	if h.peer != nil {
		r.Peer, r.PeerCA, r.machine = h.peer.String(), h.peer.CA, h.peer.Machine
		if leaf := h.peer.Leaf; leaf != nil && len(leaf.DNSNames) > 0 {
			r.machine = leaf.DNSNames[0] // whoever has the certificate may be any of its names
		}
	}
	if h.start != nil {
		r.Remote = h.start.endpoints.remote
	}
	return r
}

// String returns "initiator" or "responder".
func (r Role) String() string {
	if r == Initiator {
		return "initiator"
	}
	return "responder"
}

// An auditor writes one line a handshake, and hands its record on to be counted. Lines are limited for each account
// (loglimit.go), with the number of those left out in a line of their own.
type auditor struct {
	log      *slog.Logger
	onFinish func(Record)
	window   time.Duration

	mu       sync.Mutex
	accounts map[share]*accountLines
	last     []Record // the newest last
}

func newAuditor(log *slog.Logger, onFinish func(Record)) *auditor {
	return &auditor{log: log, onFinish: onFinish, window: logWindow, accounts: make(map[share]*accountLines)}
}

func (a *auditor) finish(r Record) {
	ok := r.Reason == reason.Accepted.String()
	a.mu.Lock()
	logged := a.allow(r)
	if !ok {
		a.keep(r)
	}
	a.mu.Unlock()
	if a.onFinish != nil {
		a.onFinish(r)
	}
	if !logged {
		return
	}
	level, text := slog.LevelInfo, "handshake done"
	if !ok {
		level, text = slog.LevelWarn, "handshake failed"
	}
	attrs := []slog.Attr{
		slog.String("id", r.ID), slog.String("role", r.Role.String()), slog.String("local", r.Local),
		slog.Uint64("uid", uint64(r.UID)), slog.Int("pid", int(r.PID)), slog.String("peer", r.Peer),
		slog.String("reason", r.Reason), slog.Duration("duration", r.Duration), slog.Int("sent", r.Sent),
		slog.Int("received", r.Received),
	}
	if r.Remote.IsValid() {
		attrs = append(attrs, slog.String("remote", r.Remote.String()))
	}
	if !ok {
		attrs = append(attrs, slog.Bool("by_peer", r.ByPeer), slog.String("detail", r.Detail))
	}
	a.log.LogAttrs(context.Background(), level, text, attrs...)
}
