package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/forward"
	"github.com/shared-altsd/shared-altsd/internal/names"
	"github.com/shared-altsd/shared-altsd/internal/policy"
)

// A link is the connection of one peer. It implements forward.Link.
type link struct {
	l    *listener
	by   *settings // in force when it was accepted
	conn *altscreds.Conn

	mu      sync.Mutex
	facts   forward.Facts
	to      carrier
	aborted bool
}

var _ forward.Link = (*link)(nil)

// Prove does the handshake, and lets in whom --allow names.
func (k *link) Prove(ctx context.Context) error {
	if err := k.conn.HandshakeContext(ctx); err != nil {
		var failed *altscreds.HandshakeError
		if errors.As(err, &failed) {
			k.learn(func(f *forward.Facts) { f.Handshake = failed.HandshakeID })
		}
		return forward.Refuse(forward.Handshake, err)
	}
	peer := k.conn.Peer()
	if peer == nil {
		return forward.Refuse(forward.Handshake, errors.New("the handshake proved no peer"))
	}
	k.learn(func(f *forward.Facts) {
		f.Handshake, f.Peer, f.Holder = k.conn.HandshakeID(), peer.Account, peer.Account
		f.Account = k.account()
	})
	// The daemons have agreed on it already; here it is what the connection's use is chosen by.
	if got := k.conn.ApplicationProtocol(); !slices.Contains(k.by.protocols, got) {
		return forward.Refuse(forward.Handshake, fmt.Errorf("agreed on the application protocol %q, and only %q are served", got,
			k.by.protocols))
	}
	return k.allowed(k.by)
}

// account returns the local account's name, as the daemon has it.
func (k *link) account() string {
	info, _ := k.conn.AuthInfo().(altscreds.AuthInfo)
	if info == nil {
		return ""
	}
	user, _ := names.SplitAccount(info.LocalServiceAccount())
	return user
}

// allowed refuses a peer whom no pattern names.
func (k *link) allowed(by *settings) error {
	p := k.conn.Peer()
	peer := &policy.Peer{Account: p.User, Machine: p.Machine, Groups: p.Groups()}
	account := k.account()
	for _, pattern := range by.allow {
		if pattern.Matches(account, peer) {
			return nil
		}
	}
	return forward.Refuse(forward.NotAllowed, errors.New("no --allow lets this peer in"))
}

// Recheck refuses whom the configuration in force now does not let in. What else has changed is for connections to come.
func (k *link) Recheck() error { return k.allowed(k.l.settings.Load()) }

// Open connects the backend.
func (k *link) Open(ctx context.Context) error {
	to, err := k.by.backend.open(ctx, k.conn)
	if err != nil {
		return err
	}
	k.mu.Lock()
	k.to = to
	aborted := k.aborted
	k.mu.Unlock()
	if aborted {
		to.abort()
		return context.Cause(ctx)
	}
	return nil
}

// Carry carries bytes.
func (k *link) Carry(ctx context.Context) forward.Result { return k.to.carry(ctx, k.conn) }

// Abort resets both connections. Who is refused after the handshake is cut off by a close without an end: a reset would
// overtake the last word of the handshake, and look like one that failed.
func (k *link) Abort() {
	k.mu.Lock()
	k.aborted = true
	to := k.to
	k.mu.Unlock()
	if tcp, ok := k.conn.NetConn().(*net.TCPConn); ok && (to != nil || k.conn.Peer() == nil) {
		tcp.SetLinger(0)
	}
	k.conn.Close()
	if to != nil {
		to.abort()
	}
}

// Facts returns what is known.
func (k *link) Facts() forward.Facts {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.facts
}

func (k *link) learn(what func(*forward.Facts)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	what(&k.facts)
}
