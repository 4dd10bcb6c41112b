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
	// quiet is how long nothing more is said of connections that are refused.
	quiet = time.Minute
)

// A Server is a companion's end. All fields are set before Serve, and not changed after it.
type Server struct {
	// Protocol is the hello, "shared-altsd resolve 1".
	Protocol string
	// Clients says which accounts may ask besides root and this process's own; nil for none.
	Clients func(uid uint32) bool
	// InFlight bounds the requests that Handle has at a time. While it has so many, a connection's next one waits.
	InFlight int
	// Handle answers a request, by any number of goroutines. ctx ends with the connection that it came by. nil says that the
	// request breaks the protocol: its connection is closed. An answer has at most MaxBody bytes.
	Handle func(ctx context.Context, req []byte) []byte
	Log    *slog.Logger

	places chan struct{}

	refused *reports.Every

	mu   sync.Mutex
	open map[uint32]int // connections of each account
}

// Serve takes connections until ctx ends, and returns nil when all are closed; or why it cannot take any.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	s.places, s.open, s.refused = make(chan struct{}, s.InFlight), map[uint32]int{}, reports.NewEvery(quiet)
	ctx, stop := context.WithCancel(ctx)
	var serving sync.WaitGroup
	defer serving.Wait()
	defer stop()
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
		uid, err := s.admit(conn)
		if err != nil {
			conn.Close()
			s.refused.Say("refused", func(unsaid int) { s.Log.Warn("a connection was refused", "error", err, "unsaid_before", unsaid) })
			continue
		}
		serving.Go(func() {
			defer s.leave(uid)
			s.serve(ctx, conn, uid)
		})
	}
}

// admit returns the account of a connection, which has a place from then on, or why it is refused.
func (s *Server) admit(conn *net.UnixConn) (uint32, error) {
	cred, err := peercred.FromConn(conn)
	if err != nil {
		return 0, err
	}
	uid := cred.UID
	if uid != 0 && uid != uint32(os.Geteuid()) && (s.Clients == nil || !s.Clients(uid)) || localsock.Overflow(uid) {
		return 0, fmt.Errorf("uid %d may not ask: only root, this account and those of --client may", uid)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[uid] >= maxConns {
		return 0, fmt.Errorf("uid %d has %d connections already", uid, maxConns)
	}
	s.open[uid]++
	return uid, nil
}

func (s *Server) leave(uid uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[uid]--; s.open[uid] == 0 {
		delete(s.open, uid)
	}
}

// serve serves one connection to its end.
func (s *Server) serve(ctx context.Context, conn *net.UnixConn, uid uint32) {
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
		select {
		case s.places <- struct{}{}:
		case <-ctx.Done():
			return
		}
		answering.Go(func() {
			answer := s.Handle(ctx, req)
			<-s.places
			if ctx.Err() != nil {
				return
			}
			if answer == nil || len(answer) > MaxBody {
				s.Log.Warn("a connection was closed: a request that cannot be answered", "uid", uid, "bytes", len(req))
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
		s.Log.Warn("a connection was closed", "uid", uid, "error", err)
	}
}
