package altscreds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/handed"
)

// Connections for handing over are kept for the next handshakes, handoverIdle at most. The daemon allows 256 for all
// processes of the account together, so of more than handoverKept those are closed that were not needed for a while.
const (
	handoverIdle = 64
	handoverKept = 8
	handoverRest = 10 * time.Second
	// handoverAge is for how long one is used: less than the daemon keeps it.
	handoverAge = 20 * time.Minute
	// relayOnly is for how long a handshaker that takes no sockets is not asked again.
	relayOnly = time.Minute
)

// helloWait is how long a handshaker may take to say that it can be handed a socket; a variable for tests.
var helloWait = time.Second

// errRelay: nothing was done to the connection, and relay must do the handshake.
var errRelay = errors.New("altscreds: the handshaker takes no sockets")

// A handoverConn is a connection to the daemon by which sockets are handed over, one at a time.
type handoverConn struct {
	*net.UnixConn
	born time.Time
}

// handOver is for our own daemon: it hands over the connected socket, the daemon does the whole handshake on it and
// answers once. That saves waking this process for every message. It returns errRelay if that can't be.
func (d *daemonConn) handOver(ctx context.Context, raw net.Conn, start *altspb.HandshakerReq) (*outcome, error) {
	tcp, ok := raw.(*net.TCPConn)
	if !ok {
		return nil, errRelay
	}
	sock, err := tcp.SyscallConn()
	if err != nil {
		return nil, errRelay
	}
	for {
		c, fresh, err := d.takeHandoverConn(ctx)
		if err != nil {
			return nil, errRelay // which waits for a daemon that is being restarted, and says what is wrong
		}
		// The end of ctx closes the connection, which makes the daemon give up.
		stop := context.AfterFunc(ctx, func() { c.Close() })
		if err := handed.WriteRequest(c.UnixConn, start, sock); err != nil {
			stop()
			c.Close()
			if fresh || ctx.Err() != nil {
				return nil, errRelay
			}
			continue // it was closed in this moment; nothing was taken
		}
		var answer altspb.Answer
		err = handed.ReadAnswer(c.UnixConn, &answer)
		if !stop() || err != nil {
			c.Close()
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, &NoDaemonError{Socket: d.key.socket,
				Err: fmt.Errorf("it ended in the middle of the handshake: %w", err)}
		}
		d.keepHandoverConn(c)
		if r := answer.GetRefusal(); r != nil {
			err := refusalError(r, r.GetText(), status.Error(codes.Code(r.GetCode()), r.GetText()))
			if stopping(err) {
				return nil, errRelay // nothing was begun, and the next daemon may be there soon
			}
			return nil, err
		}
		return &outcome{result: answer.GetResult(), id: answer.GetHandshakeId(), standing: answer.GetStanding()}, nil
	}
}

// takeHandoverConn returns an idle connection, or a fresh one.
func (d *daemonConn) takeHandoverConn(ctx context.Context) (c *handoverConn, fresh bool, err error) {
	for {
		daemonConns.mu.Lock()
		n := len(d.handoverConns)
		if n == 0 {
			relay := time.Now().Before(d.relayUntil)
			daemonConns.mu.Unlock()
			if relay {
				return nil, false, errRelay
			}
			c, err = d.newHandoverConn(ctx)
			return c, true, err
		}
		c, d.handoverConns = d.handoverConns[n-1], d.handoverConns[:n-1]
		d.rested = min(d.rested, n-1)
		daemonConns.mu.Unlock()
		if time.Since(c.born) < handoverAge && handed.Alive(c) {
			return c, false, nil
		}
		c.Close()
	}
}

// newHandoverConn connects and asks whether the handshaker can be handed a socket. Any other gRPC server answers the
// question with HTTP/2, or hangs up.
func (d *daemonConn) newHandoverConn(ctx context.Context) (*handoverConn, error) {
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
		daemonConns.mu.Lock()
		d.relayUntil = time.Now().Add(relayOnly)
		daemonConns.mu.Unlock()
		return nil, errRelay
	}
	return &handoverConn{UnixConn: conn.(*net.UnixConn), born: time.Now()}, nil
}

// keepHandoverConn keeps a connection for the next handshake.
func (d *daemonConn) keepHandoverConn(c *handoverConn) {
	daemonConns.mu.Lock()
	defer daemonConns.mu.Unlock()
	if d.retired || len(d.handoverConns) >= handoverIdle {
		c.Close()
		return
	}
	d.handoverConns = append(d.handoverConns, c)
	if d.trim == nil && len(d.handoverConns) > handoverKept {
		d.rested = len(d.handoverConns)
		d.trim = time.AfterFunc(handoverRest, d.trimHandoverConns)
	}
}

// trimHandoverConns closes what was idle since it was last called, but for handoverKept, and has itself called again
// while there are more than those.
func (d *daemonConn) trimHandoverConns() {
	daemonConns.mu.Lock()
	defer daemonConns.mu.Unlock()
	if d.trim == nil {
		return // all were closed at this moment
	}
	if n := min(d.rested, len(d.handoverConns)-handoverKept); n > 0 {
		for _, c := range d.handoverConns[:n] { // the last is used first
			c.Close()
		}
		d.handoverConns = slices.Delete(d.handoverConns, 0, n)
	}
	if d.rested = len(d.handoverConns); d.rested > handoverKept {
		d.trim.Reset(handoverRest)
	} else {
		d.trim = nil
	}
}

// closeHandoverConns closes the idle ones; daemonConns.mu is held.
func (d *daemonConn) closeHandoverConns() {
	for _, c := range d.handoverConns {
		c.Close()
	}
	d.handoverConns = nil
	if d.trim != nil {
		d.trim.Stop()
		d.trim = nil
	}
}
