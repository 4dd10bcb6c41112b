package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/ascii"
)

// A SocketUse says whom a socket serves, and as whom.
type SocketUse struct {
	// UIDs are those that may use it, which together count as one account; nil: any.
	UIDs UIDRanges
	// Account, if set, is who all of its callers are, in the place of the accounts of their uids: a name in the form of
	// docs/spec/protocol.md, section 5.3, that the user database does not have. It needs UIDs.
	Account string
	// Label is the attribute "socket" of such an account, "" for none.
	Label string
	// Path is what the log calls the socket if it has no label.
	Path string
}

// ParseSocketUse reads uids=N-M, with ,account=NAME and ,label=LABEL behind it if wanted.
func ParseSocketUse(s string) (u SocketUse, err error) {
	parts := strings.Split(s, ",")
	ranges, ok := strings.CutPrefix(parts[0], "uids=")
	if !ok {
		return u, fmt.Errorf("%.60q: the first must be uids=N-M", parts[0])
	}
	if u.UIDs, err = ParseUIDRanges(ranges); err != nil {
		return u, err
	}
	for _, part := range parts[1:] {
		key, value, _ := strings.Cut(part, "=")
		into := map[string]*string{"account": &u.Account, "label": &u.Label}[key]
		switch {
		case into == nil:
			return u, fmt.Errorf("%.60q: after uids=N-M there may be account=NAME and label=LABEL", part)
		case value == "" || *into != "":
			return u, fmt.Errorf("%s= is empty, or there twice: give it once, with a value", key)
		}
		*into = value
	}
	u.Account = ascii.Lower(u.Account)
	return u, u.Check(true)
}

// Check reports what is wrong with the use of a socket, as far as no user database is asked.
func (u *SocketUse) Check(domains bool) error {
	switch {
	case u.Account == "" && u.Label != "":
		return errors.New("label= stands beside account= alone")
	case u.Account == "":
		return nil
	case u.UIDs == nil:
		return errors.New("account= needs uids=, without which every account of this machine could be it")
	case onlyDigits(u.Account):
		return fmt.Errorf("account=%.80s: a name of digits alone is taken for a uid: give it a letter, and best a \"+\"", u.Account)
	case u.Label != "" && (len(u.Label) > maxLabel || strings.Trim(u.Label, labelBytes) != ""):
		return fmt.Errorf("label=%.80s: it must have 1 to %d of the characters a to z, 0 to 9 and -", u.Label, maxLabel)
	}
	if err := certbind.ValidAccount(u.Account, domains); err != nil {
		return fmt.Errorf("account=%.80s cannot be anybody: %w", u.Account, err)
	}
	return nil
}

const (
	maxLabel   = 32
	labelBytes = "abcdefghijklmnopqrstuvwxyz0123456789-"
)

// name is what the log calls the socket.
func (u *SocketUse) name() string {
	if u.Label != "" {
		return u.Label
	}
	return u.Path
}

// A Socket is a place where the server is reached, whichever listener is there.
type Socket struct {
	srv     *Server
	allowed UIDRanges
	number  uint32     // if it is limited to uids, else 0
	as      *SocketUse // if its callers are not the accounts of their uids
	now     *listener  // of srv.mu
}

// NewSocket returns a place for that use, which Check finds good.
func (s *Server) NewSocket(u SocketUse) (*Socket, error) {
	if err := u.Check(s.cfg.AllowDomainAccounts); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := &Socket{srv: s, allowed: u.UIDs}
	if u.UIDs != nil {
		s.limited++
		k.number = s.limited
	}
	if u.Account != "" {
		k.as = &u
	}
	return k, nil
}

// Fault returns why the socket's callers are refused for the name that it gives out, as the user database stands now; nil
// if they are not.
func (k *Socket) Fault(ctx context.Context) error {
	if k.as == nil {
		return nil
	}
	return k.srv.vacant(ctx, k.as.Account)
}

// Take puts a listener in the place of the one before, which is closed, and returns what answers on it: until Shutdown, or
// until the next is taken, after which it returns nil. The listener is closed then.
func (k *Socket) Take(l *net.UnixListener) (serve func() error, err error) {
	s := k.srv
	s.takeDescriptors(l, false)
	from := &listener{UnixListener: l, srv: s, allowed: k.allowed, socket: k.number, as: k.as}
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
	k, err := s.NewSocket(SocketUse{UIDs: allowed})
	if err != nil {
		return err
	}
	serve, err := k.Take(l)
	if err != nil {
		return err
	}
	return serve()
}
