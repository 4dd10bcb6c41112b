package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/cli"
)

var pongCommand = &cli.Command{
	Name:    "pong",
	Args:    cli.Args{Text: "ADDR"},
	Summary: "answer the pings of other machines and say who they are",
	About: `
Listens on ADDR, such as :7400, does a handshake with each caller by way of this machine's daemon, sends its message
back, and prints a line for each: who it was, or why it was refused. Ends with SIGINT, or after --count callers.

  shared-altsd pong :7400`,
	Setup: func() ([]cli.Option, func([]string) error) {
		p := &ponger{d: new(daemonFlags)}
		options := append(p.d.options(),
			cli.Option{Name: "count", Default: "0", Group: "Callers:", Value: cli.Int(&p.count, "N", 0, 1<<31-1),
				Help: "End after N callers, with exit status 1 if one of them failed; 0 for no end."},
			cli.Option{Name: "timeout", Default: "10s", Group: "Callers:",
				Value: cli.Duration(&p.timeout, 100*time.Millisecond, 5*time.Minute),
				Help:  "How long one caller may take."},
			jsonOption(&p.asJSON))
		return options, func(args []string) error {
			if len(args) != 1 {
				return cli.Usagef("give one ADDR: shared-altsd pong ADDR, such as :7400")
			}
			l, err := net.Listen("tcp", args[0])
			if err != nil {
				return fmt.Errorf("%w: give an ADDR of this machine such as :7400, with a port that is free", err)
			}
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return p.serve(ctx, l, os.Stdout)
		}
	},
}

// maxPongCallers is how many callers are served at a time; more wait.
const maxPongCallers = 64

type ponger struct {
	d       *daemonFlags
	count   int
	timeout time.Duration
	asJSON  bool

	mu     sync.Mutex // of the output and failed
	failed bool
}

// A pongLine is what pong prints of a caller.
type pongLine struct {
	Time   string  `json:"time"`
	From   string  `json:"from"`
	OK     bool    `json:"ok"`
	Peer   string  `json:"peer,omitempty"`
	Millis float64 `json:"ms"`
	Reason string  `json:"reason,omitempty"`
	Error  string  `json:"error,omitempty"`
}

func (p *ponger) serve(ctx context.Context, l net.Listener, w io.Writer) error {
	defer l.Close()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	// Known before the first caller comes: a daemon that is not there, or does not know this account.
	me, err := selfHandshake(p.d)
	if err != nil {
		return err
	}
	if !p.asJSON {
		fmt.Fprintf(w, "listening on %s as %s\n", l.Addr(), me.Account)
	}
	var callers sync.WaitGroup
	slots := make(chan struct{}, maxPongCallers)
	for n := 0; p.count == 0 || n < p.count; n++ {
		raw, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				break
			}
			return fmt.Errorf("accepting a connection: %w", err)
		}
		slots <- struct{}{}
		callers.Go(func() {
			p.answer(raw, w)
			<-slots
		})
	}
	callers.Wait()
	if p.count > 0 && p.failed {
		return cli.ExitStatus(1)
	}
	return nil
}

// answer serves one caller and prints its line.
func (p *ponger) answer(raw net.Conn, w io.Writer) {
	defer raw.Close()
	began := time.Now()
	raw.SetDeadline(began.Add(p.timeout))
	conn := altscreds.Server(raw, p.d.server(pingProtocol))
	line := pongLine{Time: began.UTC().Format("2006-01-02T15:04:05.000Z"), From: raw.RemoteAddr().String()}
	err := conn.Handshake()
	if err == nil {
		line.Peer = conn.Peer().Account
		err = reply(conn, line.Peer)
	}
	line.OK, line.Millis = err == nil, float64(time.Since(began).Microseconds())/1000
	if err != nil {
		line.Error = cli.OneLine(strings.TrimPrefix(err.Error(), "altscreds: "))
		var refusal *altscreds.HandshakeError
		if errors.As(err, &refusal) {
			line.Reason = string(refusal.Reason)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed = p.failed || err != nil
	switch {
	case p.asJSON:
		json.NewEncoder(w).Encode(line)
	case err == nil:
		fmt.Fprintf(w, "%s  %-22s %s, %.3f ms\n", line.Time, line.From, line.Peer, line.Millis)
	default:
		fmt.Fprintf(w, "%s  %-22s failed: %s\n", line.Time, line.From, line.Error)
	}
}

// reply sends a message of ping's back, and the name of its account.
func reply(conn io.ReadWriter, name string) error {
	b := make([]byte, pingSize, pingSize+256)
	if _, err := io.ReadFull(conn, b); err != nil {
		return err
	}
	name = name[:min(len(name), 255)]
	_, err := conn.Write(append(append(b, byte(len(name))), name...))
	return err
}
