package companion

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/localsock"
	"github.com/shared-altsd/shared-altsd/internal/peercred"
	"github.com/shared-altsd/shared-altsd/internal/reports"
)

const (
	// maxConns bounds the connections of one account. A daemon needs one, and one more while it is restarted.
	maxConns = 4
	// maxClosing bounds the refused connections that are not closed yet.
	maxClosing = 64
	// quiet is how long nothing more is said of connections that are refused.
	quiet = time.Minute
)

// A Server is a companion's end. All fields are set before Serve, and not changed after it.
type Server struct {
	// Protocol is the hello, "shared-altsd resolve 1".
	Protocol string
	// Clients says which accounts may ask besides root and this process's own; nil for none.
	Clients func(uid uint32) bool
	// InFlight bounds the requests that Handle has, or whose answers are not taken, at a time; three quarters of it those of one
	// account. Over it a connection's next request waits.
	InFlight int
	// Handle answers a request, by any number of goroutines. ctx ends with the connection that it came by. nil says that the
	// request breaks the protocol: its connection is closed. An answer has at most MaxBody bytes.
	Handle func(ctx context.Context, req []byte) []byte
	Log    *slog.Logger

	places  chan struct{}
	refused *reports.Every

	mu       sync.Mutex
	accounts map[uint32]*account
}

// An account is one that has connections.
type account struct {
	open   int
	places chan struct{} // its own part of the server's
}

// Serve takes connections until ctx ends, and returns nil when all are closed; or why it cannot take any.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	s.places, s.accounts, s.refused = make(chan struct{}, s.InFlight), map[uint32]*account{}, reports.NewEvery(quiet)
	if err := takeNone(l); err != nil {
		return err
	}
	closing := make(chan struct{}, maxClosing)
	ctx, stop := context.WithCancel(ctx)
	var serving sync.WaitGroup
	defer serving.Wait()
	defer stop()
	defer l.Close() // a connection may have come before what follows has closed it
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		conn, err := l.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // no descriptors, no memory: others may give them back
			s.Log.Error("connections cannot be taken", "error", err)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
			continue
		}
		uid, places, err := s.admit(conn)
		if err != nil {
			closing <- struct{}{}
			go func() { // a socket that lies in it, and lingers, holds whoever closes it
				conn.Close()
				<-closing
			}()
			s.refused.Say("refused", func(unsaid int) { s.Log.Warn("a connection was refused", "error", err, "unsaid_before", unsaid) })
			continue
		}
		serving.Go(func() {
			defer s.leave(uid)
			s.serve(ctx, conn, uid, places)
		})
	}
}

// admit returns the account of a connection, which has a place from then on, and its part of the places of requests; or why it is
// refused.
func (s *Server) admit(conn *net.UnixConn) (uid uint32, places chan struct{}, err error) {
	if err := takeNone(conn); err != nil { // it may be older than the listener's setting
		return 0, nil, err
	}
	cred, err := peercred.FromConn(conn)
	if err != nil {
		return 0, nil, err
	}
	uid = cred.UID
	if uid != 0 && uid != uint32(os.Geteuid()) && (s.Clients == nil || !s.Clients(uid)) || localsock.Overflow(uid) {
		return 0, nil, fmt.Errorf("uid %d may not ask: only root, this account and those of --client may", uid)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.accounts[uid]
	switch {
	case a == nil:
		a = &account{places: make(chan struct{}, s.InFlight-s.InFlight/4)}
		s.accounts[uid] = a
	case a.open >= maxConns:
		return 0, nil, fmt.Errorf("uid %d has %d connections already", uid, maxConns)
	}
	a.open++
	return uid, a.places, nil
}

func (s *Server) leave(uid uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.accounts[uid]; a.open > 1 {
		a.open--
	} else {
		delete(s.accounts, uid)
	}
}

// serve serves one connection to its end.
func (s *Server) serve(ctx context.Context, conn *net.UnixConn, uid uint32, places chan struct{}) {
	ctx, stop := context.WithCancel(ctx)
	var answering sync.WaitGroup
	defer answering.Wait()
	defer stop()
	defer context.AfterFunc(ctx, func() { conn.Close() })() // and so its reading and writing end
	defer conn.Close()
	r := bufio.NewReader(conn)
	err := greet(conn, r, s.Protocol)
	var writing sync.Mutex
	for err == nil {
		var id uint32
		var req []byte
		if id, req, err = readFrame(conn, r); err != nil {
			break
		}
		if !take(ctx, places) {
			return
		}
		if !take(ctx, s.places) {
			<-places
			return
		}
		answering.Go(func() {
			defer func() { <-s.places; <-places }() // only when the answer is written: who does not read is not read
			answer := s.Handle(ctx, req)
			if ctx.Err() != nil {
				return
			}
			if answer == nil || len(answer) > MaxBody {
				s.refused.Say("request", func(unsaid int) {
					s.Log.Warn("a connection was closed: a request that cannot be answered", "uid", uid, "bytes", len(req), "unsaid_before", unsaid)
				})
				stop()
				return
			}
			writing.Lock()
			defer writing.Unlock()
			conn.SetWriteDeadline(time.Now().Add(pause))
			if _, err := conn.Write(appendFrame(nil, id, answer)); err != nil {
				stop()
			}
		})
	}
	if err != nil && !errors.Is(err, io.EOF) && ctx.Err() == nil {
		s.refused.Say("closed", func(unsaid int) {
			s.Log.Warn("a connection was closed", "uid", uid, "error", err, "unsaid_before", unsaid)
		})
	}
}

// take takes a place, or reports that ctx has ended.
func take(ctx context.Context, places chan<- struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}
