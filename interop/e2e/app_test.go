package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	_ "unsafe" // for go:linkname

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/alts"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/testnet"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// An application process: grpc-go with its own ALTS credentials, as client and server, under an account of its own. It
// takes orders as lines of JSON, any number at a time.

//go:linkname vmOnGCP google.golang.org/grpc/credentials/alts.vmOnGCP
var vmOnGCP bool

// An order is what a test tells an application to do.
type order struct {
	ID uint64
	Op string

	Altscreds bool // and not grpc-go's own credentials

	Socket         string // of the daemon
	Addr           string // of the server
	Targets        []string
	Authority      string
	Segment        int           // read and write at most that many bytes at a time, 0 for any
	ConnectTimeout time.Duration // of a new channel, 0 for grpc's own
	Key            string        // of a channel that is kept, or of a load
	N              int
	Requests       [][]byte      // of a raw stream
	Timeout        time.Duration // of a raw stream
}

// A report answers an order.
type report struct {
	ID   uint64
	Code codes.Code
	Text string // of the error

	Addr      string
	Peer      whom // the server, as the client sees it
	Seen      whom // the client, as the server sees it
	Took      time.Duration
	Done      int
	Responses [][]byte
}

// whom is an authenticated peer, as its application sees it.
type whom struct {
	Account, Local string
	Attributes     map[string]string
}

func whomOf(info credentials.AuthInfo) (w whom) {
	if a, ok := info.(alts.AuthInfo); ok {
		w.Account, w.Local = a.PeerServiceAccount(), a.LocalServiceAccount()
	}
	if p, ok := altscreds.PeerFromAuthInfo(info); ok {
		w.Attributes = p.Attributes
	}
	return w
}

type segmentListener struct {
	net.Listener
	size int
}

func (l segmentListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil || l.size == 0 {
		return c, err
	}
	return testnet.Segments{Conn: c, Size: l.size}, nil
}

const (
	echoService = "sharedaltsd.e2e.Echo"
	echoMethod  = "/" + echoService + "/Who"
)

// echo tells the caller whom the server sees.
var echo = grpc.ServiceDesc{
	ServiceName: echoService,
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Who",
		Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			if err := decode(new(wrapperspb.StringValue)); err != nil {
				return nil, err
			}
			p, _ := peer.FromContext(ctx)
			if _, err := alts.AuthInfoFromContext(ctx); err != nil {
				return nil, err
			}
			b, err := json.Marshal(whomOf(p.AuthInfo))
			return wrapperspb.String(string(b)), err
		},
	}},
}

type app struct {
	mu      sync.Mutex
	kept    map[string]*grpc.ClientConn
	loads   map[string]*load
	streams map[string]*rawStream
}

func runApp() {
	a := &app{kept: map[string]*grpc.ClientConn{}, loads: map[string]*load{}, streams: map[string]*rawStream{}}
	alts.NewClientCreds(&alts.ClientOptions{}) // whose first call sets the variable
	vmOnGCP = true
	var out sync.Mutex
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	for {
		var o order
		if err := in.Decode(&o); err != nil {
			os.Exit(0)
		}
		go func() {
			var r report
			began := time.Now()
			if err := a.do(&o, &r); err != nil {
				s := status.Convert(err)
				r.Code, r.Text = s.Code(), s.Message()
			}
			r.ID, r.Took = o.ID, time.Since(began)
			b, err := json.Marshal(r)
			if err != nil {
				panic(err)
			}
			out.Lock()
			defer out.Unlock()
			os.Stdout.Write(append(b, '\n'))
		}()
	}
}

func (a *app) do(o *order, r *report) error {
	switch o.Op {
	case "listen":
		return a.listen(o, r)
	case "call":
		c, err := dialServer(o)
		if err != nil {
			return err
		}
		defer c.Close()
		return who(c, r)
	case "keep":
		c, err := dialServer(o)
		if err != nil {
			return err
		}
		a.mu.Lock()
		a.kept[o.Key] = c
		a.mu.Unlock()
		return who(c, r)
	case "again":
		a.mu.Lock()
		c := a.kept[o.Key]
		a.mu.Unlock()
		return who(c, r)
	case "channels":
		return channels(o, r)
	case "load":
		a.mu.Lock()
		defer a.mu.Unlock()
		a.loads[o.Key] = startLoad(*o)
		return nil
	case "unload":
		a.mu.Lock()
		l := a.loads[o.Key]
		a.mu.Unlock()
		l.stop.Store(true)
		l.wg.Wait()
		r.Done = int(l.done.Load())
		return errors.Join(l.errs...)
	case "raw":
		return a.raw(o, r)
	case "hang up":
		a.hangUp(o.Key)
		return nil
	}
	return fmt.Errorf("unknown order %q", o.Op)
}

func (a *app) listen(o *order, r *report) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	creds := alts.NewServerCreds(&alts.ServerOptions{HandshakerServiceAddress: "unix:" + o.Socket})
	if o.Altscreds {
		if creds, err = altscreds.NewServerCredentials(altscreds.ServerOptions{Socket: o.Socket}); err != nil {
			return err
		}
	}
	s := grpc.NewServer(grpc.Creds(creds))
	s.RegisterService(&echo, nil)
	go s.Serve(segmentListener{l, o.Segment})
	r.Addr = l.Addr().String()
	return nil
}

func dialServer(o *order) (*grpc.ClientConn, error) {
	creds := alts.NewClientCreds(
		&alts.ClientOptions{HandshakerServiceAddress: "unix:" + o.Socket, TargetServiceAccounts: o.Targets})
	if o.Altscreds {
		var err error
		if creds, err = altscreds.NewClientCredentials(altscreds.ClientOptions{Socket: o.Socket,
			TargetAccounts: o.Targets}); err != nil {
			return nil, err
		}
	}
	options := []grpc.DialOption{grpc.WithTransportCredentials(creds)}
	if o.Authority != "" {
		options = append(options, grpc.WithAuthority(o.Authority))
	}
	if o.ConnectTimeout != 0 {
		options = append(options, grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.DefaultConfig, MinConnectTimeout: o.ConnectTimeout}))
	}
	if o.Segment != 0 {
		options = append(options, grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
			return testnet.Segments{Conn: c, Size: o.Segment}, err
		}))
	}
	return grpc.NewClient(o.Addr, options...)
}

func who(c *grpc.ClientConn, r *report) error {
	ctx, cancel := context.WithTimeout(context.Background(), testprog.Patience)
	defer cancel()
	var p peer.Peer
	reply := new(wrapperspb.StringValue)
	if err := c.Invoke(ctx, echoMethod, new(wrapperspb.StringValue), reply, grpc.Peer(&p)); err != nil {
		return err
	}
	r.Peer = whomOf(p.AuthInfo)
	return json.Unmarshal([]byte(reply.Value), &r.Seen)
}

// channels opens N channels at once and keeps each open until all have had their call.
func channels(o *order, r *report) error {
	conns, errs := make([]*grpc.ClientConn, o.N), make([]error, o.N)
	var done atomic.Int64
	var wg sync.WaitGroup
	for i := range o.N {
		wg.Go(func() {
			if conns[i], errs[i] = dialServer(o); errs[i] != nil {
				return
			}
			var one report
			if errs[i] = who(conns[i], &one); errs[i] == nil {
				done.Add(1)
			}
		})
	}
	wg.Wait()
	for _, c := range conns {
		if c != nil {
			c.Close()
		}
	}
	r.Done = int(done.Load())
	return errors.Join(errs...)
}

// A load opens channels, N at a time, until it is stopped.
type load struct {
	stop atomic.Bool
	done atomic.Int64
	wg   sync.WaitGroup
	mu   sync.Mutex
	errs []error // at most a few
}

func startLoad(o order) *load {
	l := new(load)
	for range o.N {
		l.wg.Go(func() {
			for !l.stop.Load() {
				c, err := dialServer(&o)
				if err == nil {
					var one report
					err = who(c, &one)
					c.Close()
				}
				if err == nil {
					l.done.Add(1)
					continue
				}
				l.mu.Lock()
				if len(l.errs) < 5 {
					l.errs = append(l.errs, err)
				}
				l.mu.Unlock()
			}
		})
	}
	return l
}

// rawCodec passes messages through as they are, so that a test can send what no library would.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

var _ encoding.CodecV2 = rawCodec{}

// A rawStream is a stream of the handshaker service.
type rawStream struct {
	grpc.ClientStream
	conn   *grpc.ClientConn
	cancel context.CancelFunc
}

func (s *rawStream) close() {
	s.cancel()
	s.conn.Close()
}

func openRaw(o *order) (*rawStream, error) {
	c, err := grpc.NewClient("unix:"+o.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	timeout := o.Timeout
	if timeout == 0 {
		timeout = testprog.Patience
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	s, err := c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, altspb.FullMethod,
		grpc.ForceCodecV2(rawCodec{}))
	if err != nil {
		cancel()
		c.Close()
		return nil, err
	}
	return &rawStream{s, c, cancel}, nil
}

// raw sends requests on a stream, each after the response to the one before it. With a key the stream stays open, for
// further orders with that key. Without requests it waits for what the daemon says by itself.
func (a *app) raw(o *order, r *report) (err error) {
	a.mu.Lock()
	s := a.streams[o.Key]
	a.mu.Unlock()
	if s == nil {
		if s, err = openRaw(o); err != nil {
			return err
		}
	}
	if o.Key == "" {
		defer s.close()
	} else {
		a.mu.Lock()
		a.streams[o.Key] = s
		a.mu.Unlock()
	}
	for _, request := range o.Requests {
		if err := s.SendMsg(&request); err != nil && err != io.EOF {
			return err
		}
		var response []byte
		if err := s.RecvMsg(&response); err != nil {
			return err
		}
		r.Responses = append(r.Responses, response)
	}
	if len(o.Requests) == 0 {
		return s.RecvMsg(new([]byte))
	}
	return nil
}

// hangUp ends a stream that was kept.
func (a *app) hangUp(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.streams[key]; s != nil {
		s.close()
		delete(a.streams, key)
	}
}

// A process is a running application, as a test sees it.
type process struct {
	account
	cmd *exec.Cmd
	in  io.WriteCloser

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan report
	ended   chan struct{}
}

// run starts an application as the account.
func (w *world) run(a account) (*process, error) {
	p := &process{account: a, cmd: exec.Command(w.self), waiting: map[uint64]chan report{}, ended: make(chan struct{})}
	p.cmd.Dir = "/"
	p.cmd.Env = []string{roleVariable + "=app", "GORACE=halt_on_error=1"}
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: a.uid, Gid: a.uid}}
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.ended)
		for d := json.NewDecoder(out); ; {
			var r report
			if err := d.Decode(&r); err != nil {
				p.cmd.Wait()
				return
			}
			p.mu.Lock()
			p.waiting[r.ID] <- r
			delete(p.waiting, r.ID)
			p.mu.Unlock()
		}
	}()
	return p, nil
}

// begin gives an order; the report comes by the channel.
func (p *process) begin(t testing.TB, o order) <-chan report {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last++
	o.ID = p.last
	ch := make(chan report, 1)
	p.waiting[o.ID] = ch
	b, err := json.Marshal(o)
	if err == nil {
		_, err = p.in.Write(append(b, '\n'))
	}
	if err != nil {
		t.Fatalf("an order to the application of %s: %v", p.name, err)
	}
	return ch
}

// do gives an order and waits for the report.
func (p *process) do(t testing.TB, o order) report {
	t.Helper()
	return p.wait(t, p.begin(t, o))
}

func (p *process) wait(t testing.TB, ch <-chan report) report {
	t.Helper()
	select {
	case r := <-ch:
		return r
	case <-p.ended:
		t.Fatalf("the application of %s has ended", p.name)
	case <-time.After(2 * testprog.Patience):
		t.Fatalf("the application of %s does not answer", p.name)
	}
	return report{}
}

// listen starts a server that uses the daemon and gives its address.
func (p *process) listen(t testing.TB, d *daemon, segment int) string {
	t.Helper()
	r := p.do(t, order{Op: "listen", Socket: d.socket, Segment: segment})
	if r.Code != codes.OK {
		t.Fatal(r.Text)
	}
	return r.Addr
}

func (p *process) end() {
	p.in.Close()
	select {
	case <-p.ended:
	case <-time.After(testprog.Patience):
		p.cmd.Process.Kill()
		<-p.ended
	}
}
