package service

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/policy"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// A Role is that of this machine in a handshake (docs/spec/protocol.md, section 1).
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
	Time     time.Time // of its end
	Role     Role
	ID       string // 16 hexadecimal digits, the same in the peer's log; empty if no message 1 was made or seen
	Local    string // account@machine, empty if the caller has no account
	UID      uint32
	PID      int32             // at connect
	Program  string            // the process's own word, bounded; empty if not known
	Socket   string            // label or path of the socket that gave the account out; empty if the user database did
	Peer     string            // account@machine, empty unless verified
	PeerCA   *x509.Certificate // that vouched for the peer, a trusted one; nil unless verified. It is shared: not to be changed
	DNS      bool              // DNS vouched for the peer
	Serial   string            // of the peer's certificate, in hexadecimal, as above
	Issuer   string            // the same, bounded
	Near     netip.AddrPort    // the connection's end on this machine
	Remote   netip.AddrPort    // and its other one
	Proved   bool              // both are as the kernel has them, and not as the application says
	Reason   string            // "accepted", the name of a reason code, or bad_request, peer_closed, cancelled
	Detail   string            // cause and cure, empty if accepted
	ByPeer   bool              // the peer's daemon refused
	Rule     string            // of this machine's policy, that let or refused the peer: FILE:LINE or the default; "" for none
	Would    bool              // Rule would have refused the peer, and let him because the rules are permissive
	Duration time.Duration     // since there was a place; where it ended before, since the peer's first byte, or the start request
	// Sent and Received are bytes on the wire in each direction.
	Sent, Received int

	stands  bool   // it is not a handshake, but a connection that stood
	machine string // the first name of the peer's certificate, if verified: with share, the key of the log's limits
	share   share
}

// record returns the Record of a session that has ended.
func (h *session) record() Record {
	r := Record{Time: time.Now(), Role: h.role, ID: h.id, UID: h.caller.UID, PID: h.caller.PID, Program: h.caller.Program,
		share: h.share, Reason: reason.Accepted.String(), Sent: h.sent, Received: h.received}
	if f := h.failure; f != nil {
		r.Reason, r.Detail, r.ByPeer = f.name, f.text, f.byPeer
	}
	if h.caller.as != nil {
		r.Socket = h.caller.as.name()
	}
	if !h.began.IsZero() {
		r.Duration = r.Time.Sub(h.began)
	}
	if h.me != nil {
		r.Local = h.me.String()
	}
	accepted := r.Reason == reason.Accepted.String()
	if accepted || r.Reason == reason.DeniedByPolicy.String() && !r.ByPeer {
		r.Rule, r.Would = h.judged.verdict.Rule, accepted && h.judged.verdict.Would
	}
	if h.peer != nil {
		r.Peer, r.PeerCA, r.DNS, r.machine = h.peer.String(), h.peer.CA, h.peer.DNS, h.peer.Machine
		if leaf := h.peer.Leaf; leaf != nil {
			a := aboutPeer(h.peer)
			r.Serial, r.Issuer = a.serial, a.issuer
			if len(leaf.DNSNames) > 0 && !r.DNS {
				r.machine = leaf.DNSNames[0] // whoever has the certificate may be any of its names
			}
		}
	}
	ends := h.ends
	if r.Proved = h.carried; !h.carried && h.start != nil {
		ends = h.start.endpoints
	}
	r.Near, r.Remote = ends.local, ends.remote
	return r
}

// Bounds of what the log has of a certificate, bytes.
const (
	maxSerial = 64 // twice of what RFC 5280 lets a CA use, and more
	maxIssuer = 256
)

// bounded returns s, or its first n bytes and that there are more.
func bounded(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "..."
}

// direction returns what the role is to a policy.
func (r Role) direction() policy.Direction {
	if r == Initiator {
		return policy.Out
	}
	return policy.In
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
	would    wouldTable
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
	if r.Would {
		a.would.add(&r)
	}
	if a.onFinish != nil {
		a.onFinish(r)
	}
	if !logged {
		return
	}
	switch {
	case !ok:
		a.log.LogAttrs(context.Background(), slog.LevelWarn, "handshake failed",
			append(r.attrs(), slog.Bool("by_peer", r.ByPeer), slog.String("detail", r.Detail))...)
	case r.Would:
		a.log.LogAttrs(context.Background(), slog.LevelWarn, "handshake done", r.attrs()...)
	default:
		a.log.LogAttrs(context.Background(), slog.LevelInfo, "handshake done", r.attrs()...)
	}
}

// refusedNow writes the line of a connection that stood and is refused now.
func (a *auditor) refusedNow(r Record, ended bool) {
	a.mu.Lock()
	logged := a.allow(r)
	a.mu.Unlock()
	if !logged {
		return
	}
	text := "connection ended"
	if !ended {
		text = "connection kept that would be refused"
	}
	attrs := slices.Concat(r.whose(), r.proved(), r.judged())
	a.log.LogAttrs(context.Background(), slog.LevelWarn, text, append(attrs, slog.String("detail", r.Detail))...)
}

// attrs are what the line of a handshake says, each key only where there is something to say (docs/log.md).
func (r *Record) attrs() []slog.Attr {
	return slices.Concat(r.whose(), r.ends(), r.proved(),
		[]slog.Attr{slog.Duration("duration", r.Duration), slog.Int("sent", r.Sent), slog.Int("received", r.Received)}, r.judged())
}

// whose are the keys that say of which caller it is.
func (r *Record) whose() []slog.Attr {
	attrs := []slog.Attr{
		slog.String("id", r.ID), slog.String("role", r.Role.String()), slog.String("local", r.Local),
		slog.Uint64("uid", uint64(r.UID)), slog.Int("pid", int(r.PID)), slog.String("program", r.Program),
	}
	if r.Socket != "" {
		attrs = append(attrs, slog.String("socket", r.Socket))
	}
	return attrs
}

// ends are those of the connection.
func (r *Record) ends() (attrs []slog.Attr) {
	for _, end := range []struct {
		key string
		at  netip.AddrPort
	}{{"local_address", r.Near}, {"remote_address", r.Remote}} {
		if end.at.IsValid() {
			attrs = append(attrs, slog.String(end.key, end.at.String()))
		}
	}
	if r.Near.IsValid() || r.Remote.IsValid() {
		by := "application"
		if r.Proved {
			by = "kernel"
		}
		attrs = append(attrs, slog.String("addresses_by", by))
	}
	return attrs
}

// proved are those of the peer, and of the outcome.
func (r *Record) proved() []slog.Attr {
	attrs := []slog.Attr{slog.String("peer", r.Peer)}
	if r.Serial != "" {
		attrs = append(attrs, slog.String("peer_serial", r.Serial), slog.String("peer_issuer", r.Issuer))
	}
	if r.DNS {
		attrs = append(attrs, slog.String("verified_by", "dns"))
	}
	return append(attrs, slog.String("reason", r.Reason))
}

// judged are those of the policy.
func (r *Record) judged() (attrs []slog.Attr) {
	if r.Rule != "" {
		attrs = append(attrs, slog.String("rule", r.Rule))
	}
	if r.Would {
		attrs = append(attrs, slog.String("would", reason.DeniedByPolicy.String()))
	}
	return attrs
}
