package altscreds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/handed"
)

const (
	// giverIdle is how many connections for handing over are kept for the next handshakes, and giverAge for how long: less
	// than the daemon keeps them.
	giverIdle = 8
	giverAge  = 20 * time.Minute
	// relayOnly is for how long one that could not is not asked again.
	relayOnly = time.Minute
)

// helloWait is how long a handshaker may take to say that it can be handed a socket; a variable for tests.
var helloWait = time.Second

// errRelay: nothing was done to the connection, and relay must do the handshake.
var errRelay = errors.New("altscreds: the handshaker takes no sockets")

// A giver is a connection to the daemon by which sockets are handed over, one at a time.
type giver struct {
	conn *net.UnixConn
	born time.Time
}

// handOver is the handshaker for our own daemon: it hands over the connected socket, the daemon does the whole
// handshake on it and answers once. That saves waking this process for every message. It returns errRelay if that can't
// be.
func handOver(ctx context.Context, raw net.Conn, s *settings, target string, received []byte) (*outcome, error) {
	tcp, ok := raw.(*net.TCPConn)
	if !ok {
		return nil, errRelay
	}
	sock, err := tcp.SyscallConn()
	if err != nil {
		return nil, errRelay
	}
	req, slots := s.clientStart(target, nil), 0
	if !s.client {
		// A peer that stays silent holds nothing of the daemon's.
		if len(received) == 0 {
			if _, err := handed.Peek(tcp); err != nil {
				return nil, readError(err)
			}
		}
		req, slots = s.serverStart(received, nil), 1
	}
	d, err := acquireDaemon(daemonKey{s.socket, s.daemonUID})
	if err != nil {
		return nil, err
	}
	defer d.release()
	select {
	case d.slots[slots] <- struct{}{}:
		defer func() { <-d.slots[slots] }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for {
		g, fresh, err := d.giver(ctx)
		if err != nil {
			return nil, errRelay // which waits for a daemon that is being restarted, and says what is wrong
		}
		// The end of ctx closes the connection, which makes the daemon give up.
		stop := context.AfterFunc(ctx, func() { g.conn.Close() })
		if err := handed.WriteRequest(g.conn, req, sock); err != nil {
			stop()
			g.conn.Close()
			if fresh || ctx.Err() != nil {
				return nil, errRelay
			}
			continue // it was closed in this moment; nothing was taken
		}
		var answer altspb.Answer
		err = handed.ReadAnswer(g.conn, &answer)
		if !stop() || err != nil {
			g.conn.Close()
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, &NoDaemonError{Socket: s.socket, Err: fmt.Errorf("it ended in the middle of the handshake: %w", err)}
		}
		d.keep(g)
		if r := answer.GetRefusal(); r != nil {
			err := refusalError(r, r.GetText(), status.Error(codes.Code(r.GetCode()), r.GetText()))
			if stopping(err) {
				return nil, errRelay // nothing was begun, and the next daemon may be there soon
			}
			return nil, err
		}
		return &outcome{result: answer.GetResult()}, nil
	}
}

// stopping tells whether the local daemon refused because it is being stopped: it does so only before anything was said
// to the peer.
func stopping(err error) bool {
	e, ok := errors.AsType[*HandshakeError](err)
	return ok && e.Reason == ReasonShuttingDown && !e.ByPeer
}

// giver takes an idle connection, or makes one.
func (d *daemon) giver(ctx context.Context) (g *giver, fresh bool, err error) {
	for {
		daemons.mu.Lock()
		n := len(d.givers)
		if n == 0 {
			relay := time.Now().Before(d.relayUntil)
			daemons.mu.Unlock()
			if relay {
				return nil, false, errRelay
			}
			g, err = d.newGiver(ctx)
			return g, true, err
		}
		g, d.givers = d.givers[n-1], d.givers[:n-1]
		daemons.mu.Unlock()
		if time.Since(g.born) < giverAge && handed.Alive(g.conn) {
			return g, false, nil
		}
		g.conn.Close()
	}
}

// newGiver connects and asks whether the handshaker can be handed a socket. Any other gRPC server answers the question
// with HTTP/2, or hangs up.
func (d *daemon) newGiver(ctx context.Context) (*giver, error) {
	ctx, cancel := context.WithTimeout(ctx, helloWait)
	defer cancel()
	conn, err := d.dial(ctx, "")
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	answer := make([]byte, len(handed.Hello))
	_, err = io.WriteString(conn, handed.Hello)
	if err == nil {
		_, err = io.ReadFull(conn, answer)
	}
	if !stop() || err != nil || string(answer) != handed.Hello {
		conn.Close()
		daemons.mu.Lock()
		d.relayUntil = time.Now().Add(relayOnly)
		daemons.mu.Unlock()
		return nil, errRelay
	}
	return &giver{conn: conn.(*net.UnixConn), born: time.Now()}, nil
}

// keep keeps a connection for the next handshake.
func (d *daemon) keep(g *giver) {
	daemons.mu.Lock()
	defer daemons.mu.Unlock()
	if len(d.givers) < giverIdle {
		d.givers = append(d.givers, g)
		return
	}
	g.conn.Close()
}
