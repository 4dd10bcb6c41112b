package ping

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/cli"
)

// maxCallers is how many callers are served at a time; more wait.
const maxCallers = 64

// A Ponger answers pings.
type Ponger struct {
	Daemon  Daemon
	Count   int           // of callers after which it ends, 0 for no end
	Timeout time.Duration // for one caller
	JSON    bool

	mu     sync.Mutex // of the output and failed
	failed bool
}

// A line is what pong prints of a caller.
type line struct {
	Time   string  `json:"time"`
	From   string  `json:"from"`
	OK     bool    `json:"ok"`
	Peer   string  `json:"peer,omitempty"`
	Millis float64 `json:"ms"`
	Reason string  `json:"reason,omitempty"`
	Error  string  `json:"error,omitempty"`
}

// Run listens on addr and prints a line for each caller, until ctx ends or Count callers were served; if one of those
// failed it returns an exit status.
func (p *Ponger) Run(ctx context.Context, w io.Writer, addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("%w: give an ADDR of this machine such as :7400, with a port that is free", err)
	}
	defer l.Close()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	// Known before the first caller comes: a daemon that is not there, or does not know this account.
	me, err := p.Daemon.selfHandshake()
	if err != nil {
		return err
	}
	if !p.JSON {
		fmt.Fprintf(w, "listening on %s as %s\n", l.Addr(), me.Account)
	}
	var callers sync.WaitGroup
	places := make(chan struct{}, maxCallers)
	for n := 0; p.Count == 0 || n < p.Count; n++ {
		raw, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				break
			}
			return fmt.Errorf("accepting a connection: %w", err)
		}
		places <- struct{}{}
		callers.Go(func() {
			p.answer(raw, w)
			<-places
		})
	}
	callers.Wait()
	if p.Count > 0 && p.failed {
		return cli.ExitStatus(1)
	}
	return nil
}

// answer serves one caller and prints its line.
func (p *Ponger) answer(raw net.Conn, w io.Writer) {
	defer raw.Close()
	began := time.Now()
	raw.SetDeadline(began.Add(p.Timeout))
	conn := altscreds.Server(raw, p.Daemon.server(protocol))
	l := line{Time: began.UTC().Format("2006-01-02T15:04:05.000Z"), From: raw.RemoteAddr().String()}
	err := conn.Handshake()
	if err == nil {
		l.Peer = conn.Peer().Account
		err = reply(conn, l.Peer)
	}
	l.OK, l.Millis = err == nil, float64(time.Since(began).Microseconds())/1000
	if err != nil {
		l.Error = cli.OneLine(strings.TrimPrefix(err.Error(), "altscreds: "))
		var refusal *altscreds.HandshakeError
		if errors.As(err, &refusal) {
			l.Reason = string(refusal.Reason)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed = p.failed || err != nil
	switch {
	case p.JSON:
		json.NewEncoder(w).Encode(l)
	case err == nil:
		fmt.Fprintf(w, "%s  %-22s %s, %.3f ms\n", l.Time, l.From, l.Peer, l.Millis)
	default:
		fmt.Fprintf(w, "%s  %-22s failed: %s\n", l.Time, l.From, l.Error)
	}
}
