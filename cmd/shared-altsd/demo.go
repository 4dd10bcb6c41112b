package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/devca"
	"github.com/shared-altsd/shared-altsd/service"
)

var demoCommand = &cli.Command{
	Name:    "demo",
	Summary: "show two machines, their daemons and a call between them, with no set-up at all",
	About: `
Makes a throwaway CA and the machines alpha.demo and beta.demo, runs a daemon for each, and a gRPC greeter between
them over TCP. Shows the handshake's size and time, who each side says the other is, and two refusals: a client that
asked for another account, and a third machine whose CA is unknown. Needs no privileges. Exit status 0 only if all of
it came out so.`,
	Setup: func() ([]cli.Option, func([]string) error) {
		return nil, func([]string) error {
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
			defer cancel()
			return demo(ctx, os.Stdout)
		}
	},
}

// demo runs the demonstration and returns the first thing that did not come out as it should.
func demo(ctx context.Context, w io.Writer) (err error) {
	// The daemons know accounts as the user database has them; so does this.
	me, err := service.NewAccounts(service.AccountOptions{}).Lookup(ctx, uint32(os.Geteuid()))
	if err != nil {
		return fmt.Errorf("the account that runs the demo: %w", err)
	}
	dir, err := os.MkdirTemp("", "altsd-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	step := func(format string, args ...any) { fmt.Fprintf(w, "\n"+format+"\n", args...) }
	show := func(what, format string, args ...any) {
		fmt.Fprintf(w, "    %-12s %s\n", what, fmt.Sprintf(format, args...))
	}

	fmt.Fprintln(w, "Two machines with a daemon each, and a third one that nobody knows, all in "+dir)
	step("1. Certificates")
	if err := demoCertificates(dir); err != nil {
		return err
	}
	show("demo CA", "alpha.demo, beta.demo")
	show("another CA", "gamma.demo, which trusts the demo CA, but the demo CA's machines do not trust this one")

	step("2. Daemons, each with its own socket for the applications of its machine")
	machines := map[string]*demoMachine{}
	for name, cas := range map[string][]string{"alpha": {"ca"}, "beta": {"ca"}, "gamma": {"ca", "other-ca"}} {
		m, err := startDemoMachine(ctx, dir, name, cas)
		if err != nil {
			return fmt.Errorf("the daemon of %s.demo: %w", name, err)
		}
		defer m.stop()
		machines[name] = m
	}
	for _, name := range []string{"alpha", "beta", "gamma"} {
		show(name+".demo", "process %d, %s", machines[name].cmd.Process.Pid, machines[name].socket)
	}

	server, err := startGreeter(machines["beta"].socket)
	if err != nil {
		return err
	}
	defer server.grpc.Stop()
	greeter, alice := me.Name+"@beta.demo", me.Name+"@alpha.demo"

	step("3. A program on alpha.demo calls the greeter on beta.demo, over TCP to %s", server.addr)
	for _, which := range []string{"first call", "again"} {
		c, err := callGreeter(ctx, machines["alpha"].socket, server, greeter)
		if err != nil {
			return fmt.Errorf("the call that should succeed: %w", err)
		}
		show(which, "handshake of %d bytes (%d sent, %d received) in %.1f ms", c.sent+c.received, c.sent, c.received,
			c.took.Seconds()*1000)
		if which == "first call" {
			show("client says", "the server is %s", c.serverIs)
			show("server says", "the client is %s", c.clientIs)
			show("reply", "%q", c.reply)
		}
		if c.serverIs != greeter || c.clientIs != alice {
			return fmt.Errorf("the identities should be %s and %s", greeter, alice)
		}
	}
	show("", "(the second one is quicker: both daemons remember the certificates that they verified)")

	step("4. The same, but the client asks for the account backup@beta.demo: refused by its own daemon")
	if err := refused(ctx, machines["alpha"].socket, server, "backup@beta.demo", altscreds.ReasonTargetMismatch, false,
		show); err != nil {
		return err
	}
	step("5. A program on gamma.demo calls the greeter: refused by beta.demo, which does not know gamma.demo's CA")
	if err := refused(ctx, machines["gamma"].socket, server, greeter, altscreds.ReasonUnknownCA, true, show); err != nil {
		return err
	}
	step("All came out as it should.")
	return nil
}

// refused makes a call that has to fail for the reason.
func refused(ctx context.Context, socket string, server *greeterServer, target string, reason altscreds.Reason,
	byPeer bool, show func(string, string, ...any)) error {
	_, err := callGreeter(ctx, socket, server, target)
	var h *altscreds.HandshakeError
	switch {
	case err == nil:
		return errors.New("the call went through, and it should have been refused")
	case !errors.As(err, &h) || h.Reason != reason || h.ByPeer != byPeer:
		return fmt.Errorf("the call should have been refused for %q, but: %w", reason, err)
	}
	show("client's error", "%s", h.Text)
	return nil
}

func demoCertificates(dir string) error {
	for ca, machines := range map[string][]string{"ca": {"alpha", "beta"}, "other-ca": {"gamma"}} {
		authority, err := devca.New("shared-altsd " + ca)
		if err != nil {
			return err
		}
		if err := devca.WriteNew(filepath.Join(dir, ca+".pem"), authority.PEM(), 0o600); err != nil {
			return err
		}
		for _, m := range machines {
			issued, err := authority.Issue(m + ".demo")
			if err != nil {
				return err
			}
			if err := devca.WriteNew(filepath.Join(dir, m+".pem"), issued.PEM(), 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

// A demoMachine is a daemon, run from this very program as an administrator would run it.
type demoMachine struct {
	socket string
	cmd    *exec.Cmd
	done   chan struct{} // closed when the process has ended
}

// startDemoMachine returns when the daemon says that it is ready.
func startDemoMachine(ctx context.Context, dir, name string, cas []string) (*demoMachine, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, name+".ready"), Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	m := &demoMachine{socket: filepath.Join(dir, name+".socket"), done: make(chan struct{})}
	args := []string{"serve", "--socket", m.socket, "--credentials", filepath.Join(dir, name+".pem")}
	for _, ca := range cas {
		args = append(args, "--ca", filepath.Join(dir, ca+".pem"))
	}
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	m.cmd = exec.Command(self, args...)
	m.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+ready.LocalAddr().String(), "LISTEN_FDS=", "WATCHDOG_USEC=")
	m.cmd.Stdout, m.cmd.Stderr = log, log
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		m.cmd.Wait()
		close(m.done)
		ready.Close() // ends the wait below
	}()
	stop := context.AfterFunc(ctx, func() { ready.Close() })
	defer stop()
	for buf := make([]byte, 4096); ; {
		n, err := ready.Read(buf)
		if err != nil {
			m.stop()
			said, _ := os.ReadFile(log.Name())
			return nil, fmt.Errorf("did not start: %s", strings.TrimSpace(string(said)))
		}
		if strings.HasPrefix(string(buf[:n]), "READY=1") {
			return m, nil
		}
	}
}

func (m *demoMachine) stop() {
	m.cmd.Process.Signal(syscall.SIGTERM)
	<-m.done
}

// A greeterServer is the gRPC server on beta.demo.
type greeterServer struct {
	grpc  *grpc.Server
	addr  string
	creds *measured
}

type greeter interface {
	hello(context.Context) (*wrapperspb.StringValue, error)
}

func (*greeterServer) hello(ctx context.Context) (*wrapperspb.StringValue, error) {
	p, ok := altscreds.PeerFromContext(ctx)
	if !ok {
		return nil, errors.New("the connection has no verified peer")
	}
	return wrapperspb.String(p.Account), nil
}

const helloMethod = "/demo.Greeter/Hello"

var greeterService = grpc.ServiceDesc{
	ServiceName: "demo.Greeter",
	HandlerType: (*greeter)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Hello",
		Handler: func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			if err := decode(new(wrapperspb.StringValue)); err != nil {
				return nil, err
			}
			return srv.(greeter).hello(ctx)
		},
	}},
}

func startGreeter(socket string) (*greeterServer, error) {
	creds, err := altscreds.NewServerCredentials(altscreds.ServerOptions{Socket: socket})
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &greeterServer{addr: l.Addr().String(), creds: &measured{TransportCredentials: creds, log: new(handshakeLog)}}
	s.grpc = grpc.NewServer(grpc.Creds(s.creds))
	s.grpc.RegisterService(&greeterService, s)
	go s.grpc.Serve(l)
	return s, nil
}

// A call is what one call to the greeter showed.
type call struct {
	serverIs, clientIs, reply string
	sent, received            int64 // bytes of the handshake, as the client sees them
	took                      time.Duration
}

func callGreeter(ctx context.Context, socket string, server *greeterServer, target string) (*call, error) {
	creds, err := altscreds.NewClientCredentials(altscreds.ClientOptions{Socket: socket, TargetAccounts: []string{target}})
	if err != nil {
		return nil, err
	}
	client := &measured{TransportCredentials: creds, log: new(handshakeLog)}
	conn, err := grpc.NewClient("passthrough:///"+server.addr, grpc.WithTransportCredentials(client))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	reply := new(wrapperspb.StringValue)
	if err := conn.Invoke(ctx, helloMethod, wrapperspb.String("Hello?"), reply); err != nil {
		// The handshake's own error says more than the call's, which is text.
		return nil, errors.Join(client.log.last().err, err)
	}
	ours, theirs := client.log.last(), server.creds.log.last()
	p, ok := altscreds.PeerFromAuthInfo(ours.info)
	if !ok {
		return nil, errors.New("the connection has no verified peer")
	}
	return &call{
		serverIs: p.Account, clientIs: reply.GetValue(), reply: "Hello, " + reply.GetValue(),
		sent: ours.sent, received: theirs.sent, took: ours.took,
	}, nil
}

// measured are credentials that take the size, time and outcome of each handshake.
type measured struct {
	credentials.TransportCredentials
	log *handshakeLog
}

type handshakeLog struct {
	mu       sync.Mutex
	finished handshake
}

// A handshake is the outcome of one. sent counts what this side wrote: what it read may go past the handshake's end.
type handshake struct {
	sent int64
	took time.Duration
	info credentials.AuthInfo
	err  error
}

func (l *handshakeLog) last() handshake {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.finished
}

type handshaker func(net.Conn) (net.Conn, credentials.AuthInfo, error)

func (m *measured) measure(raw net.Conn, do handshaker) (net.Conn, credentials.AuthInfo, error) {
	counted := &countingConn{Conn: raw}
	began := time.Now()
	conn, info, err := do(counted)
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	m.log.finished = handshake{counted.written.Load(), time.Since(began), info, err}
	return conn, info, err
}

// ClientHandshake implements credentials.TransportCredentials.
func (m *measured) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo,
	error) {
	return m.measure(raw, func(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
		return m.TransportCredentials.ClientHandshake(ctx, authority, c)
	})
}

// ServerHandshake implements credentials.TransportCredentials.
func (m *measured) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return m.measure(raw, m.TransportCredentials.ServerHandshake)
}

// Clone implements credentials.TransportCredentials.
func (m *measured) Clone() credentials.TransportCredentials {
	return &measured{m.TransportCredentials.Clone(), m.log}
}

type countingConn struct {
	net.Conn
	written atomic.Int64
}

func (c *countingConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.written.Add(int64(n))
	return n, err
}
