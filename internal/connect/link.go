package connect

import (
	"context"
	"net"
	"sync"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/forward"
)

// A link is a local program's connection on its way to the target.
type link struct {
	*server
	local net.Conn

	mu   sync.Mutex
	uid  string
	peer *altscreds.Conn // once its handshake is done
}

func (s *server) newLink(local net.Conn) forward.Link {
	if tcp, ok := local.(*net.TCPConn); ok {
		tcp.SetLinger(0) // whatever ends it before a clean end, also a SIGKILL, is a reset
	}
	return &link{server: s, local: local}
}

// Prove asks the kernel whose the connection is.
func (l *link) Prove(context.Context) error {
	uid, err := l.callers.check(l.local)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.uid = uid
	return err
}

// Open connects to the target, but for a connection whose requests are looked at first.
func (l *link) Open(ctx context.Context) error {
	if l.looksAtRequests() {
		return nil
	}
	_, err := l.dial(ctx)
	if unix, ok := l.local.(*net.UnixConn); ok && err != nil && l.config.Hold {
		// A close would look like the peer's, who had nothing to say.
		l.log.Warn("connection held", "reason", err.Error())
		forward.AwaitHangup(ctx, unix)
	}
	return err
}

func (l *link) dial(ctx context.Context) (*altscreds.Conn, error) {
	peer, err := l.config.dial(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.peer = peer
	return peer, err
}

// looksAtRequests reports whether a browser could have been led here.
func (l *link) looksAtRequests() bool {
	_, tcp := l.local.(*net.TCPConn)
	return tcp && l.http != nil
}

// Carry carries bytes, or requests.
func (l *link) Carry(ctx context.Context) forward.Result {
	if l.looksAtRequests() {
		r := l.http.ServeConn(ctx, l.local, func(ctx context.Context) (net.Conn, error) {
			peer, err := l.dial(ctx)
			if err != nil {
				return nil, err // not a nil *altscreds.Conn in an interface
			}
			return peer, nil
		})
		return forward.Result{FromPeer: r.Out, ToPeer: r.In, Err: r.Err, By: forward.Local}
	}
	r := forward.Carry(ctx, l.local, l.peer, forward.Ends{Hold: l.config.Hold})
	r.Err = l.config.explainCut(r)
	return r
}

// Abort ends all at once.
func (l *link) Abort() {
	l.local.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.peer != nil {
		l.peer.Close()
	}
}

// Facts returns what is known.
func (l *link) Facts() forward.Facts {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := forward.Facts{Peer: l.config.Target.Account, Service: l.config.Service, Account: l.uid}
	if l.peer != nil {
		f.Handshake = l.peer.HandshakeID()
	}
	if len(l.callers.uids) > 1 {
		f.Holder = l.uid // none of several keeps the others out
	}
	return f
}

// Recheck refuses nothing: what connect goes by does not change while it runs.
func (l *link) Recheck() error { return nil }
