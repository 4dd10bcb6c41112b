package service

import (
	"fmt"
	"net"
)

// A Socket is a place where the server is reached, whichever listener is there.
type Socket struct {
	srv     *Server
	allowed UIDRanges
	number  uint32    // if it is limited to uids, else 0
	now     *listener // of srv.mu
}

// NewSocket returns a place that only the uids of allowed may use; together they count as one account.
func (s *Server) NewSocket(allowed UIDRanges) *Socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := &Socket{srv: s, allowed: allowed}
	if allowed != nil {
		s.limited++
		k.number = s.limited
	}
	return k
}

// Take puts a listener in the place of the one before, which is closed, and returns what answers on it: until Shutdown, or
// until the next is taken, after which it returns nil. The listener is closed then.
func (k *Socket) Take(l *net.UnixListener) (serve func() error, err error) {
	s := k.srv
	s.takeDescriptors(l, false)
	from := &listener{UnixListener: l, srv: s, allowed: k.allowed, socket: k.number}
	if from.file, err = l.File(); err != nil {
		l.Close()
		return nil, fmt.Errorf("serving on %s: %w", l.Addr(), err)
	}
	k.enter(from)
	return func() (err error) {
		if !s.stopping.Load() {
			err = s.accept(from)
		}
		if last := k.leave(from); !last || s.stopping.Load() {
			return nil
		}
		return fmt.Errorf("serving on %s: %w", l.Addr(), err)
	}, nil
}

// enter puts a listener in the place of the one before.
func (k *Socket) enter(l *listener) {
	k.srv.mu.Lock()
	defer k.srv.mu.Unlock()
	if k.now != nil {
		k.now.Close()
	}
	k.now = l
	k.srv.listeners[l] = struct{}{}
}

// leave closes a listener and reports whether there was none after it.
func (k *Socket) leave(l *listener) (last bool) {
	k.srv.mu.Lock()
	defer k.srv.mu.Unlock()
	l.Close()
	delete(k.srv.listeners, l)
	if last = k.now == l; last {
		k.now = nil
	}
	return last
}

// Serve answers on the listener until Shutdown, which it returns nil after. It may be called for several listeners; only
// the uids of allowed may use this one. It closes the listener.
func (s *Server) Serve(l *net.UnixListener, allowed UIDRanges) error {
	serve, err := s.NewSocket(allowed).Take(l)
	if err != nil {
		return err
	}
	return serve()
}
