package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/proto"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/handed"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// Config says how a Server behaves. Only Machine is required.
type Config struct {
	// Machine attests local accounts and verifies peers.
	Machine *certbind.Machine
	// Accounts is the user database; nil: the system's (NewAccounts).
	Accounts AccountDatabase
	// PublishGroups are the groups whose members are attested as such. Together they may need 2048 bytes.
	PublishGroups []string
	// AllowDomainAccounts lets @ and \ stand in account names, local ones and those of targets.
	AllowDomainAccounts bool
	// SecureNaming is what a client is assured of that names no target identities.
	SecureNaming SecureNaming
	// ServerAccounts are the accounts that a client is content with that names no target identities; nil: any; the only
	// entry "same": its own account name.
	ServerAccounts []string
	// MinVersion is the least version of the inter-daemon protocol that is accepted; 0: the least that there is, 1.
	MinVersion byte
	// HandshakeTimeout bounds a handshake, and before it the wait for a place; 0: 10 seconds.
	HandshakeTimeout time.Duration
	// Limits bounds what callers may hold.
	Limits Limits
	// Logger gets one line a handshake; nil: slog.Default().
	Logger *slog.Logger
	// OnFinish, if set, is called at the end of each handshake, for metrics. It must not block.
	OnFinish func(Record)
	// Register, if set, adds services of the daemon's own beside the handshaker, on the same sockets (CallerFromContext).
	Register func(grpc.ServiceRegistrar)
}

const (
	handshakeTimeout  = 10 * time.Second
	maxRequest        = 128 << 10        // bytes
	streamsPerConn    = 256              // at once, on one connection
	prefaceTimeout    = 5 * time.Second  // for the HTTP/2 preface
	connectionAge     = 26 * time.Minute // to which grpc adds up to a tenth
	connectionGrace   = time.Minute      // for the streams on an aged connection: 29.6 minutes in all
	maxGroupsField    = 2048             // bytes: docs/protocol.md, section 5.4
	unknownFieldsEach = time.Hour        // between two lines about a newer gRPC library
)

// A Server is the daemon's local service.
type Server struct {
	cfg         Config
	log         *slog.Logger
	accounts    AccountDatabase
	refusedUIDs refusedUIDs
	gate        *gate
	connections *tally
	spare       *tally // refused connections
	givers      *tally // connections by which sockets are handed over
	streams     *tally // streams without a place in gate
	open        *tally // streams of any service, in any state
	audit       *auditor
	grpc        *grpc.Server
	poller      *handed.Poller // of the sockets that were handed over
	handovers   sync.WaitGroup // connections by which sockets are handed over

	stop     context.Context // done when the daemon stops
	stopping context.CancelFunc
	cut      context.Context // done when it waits no longer for what is under way on sockets handed over
	cutting  context.CancelFunc

	mu          sync.Mutex
	conns       map[*conn]struct{}
	unknownNote time.Time // when the last line about unknown fields was written
}

// New checks the configuration and makes a Server.
func New(c Config) (*Server, error) {
	if c.Machine == nil {
		return nil, errors.New("service: no Machine")
	}
	if err := c.Limits.setDefaults(); err != nil {
		return nil, err
	}
	if c.HandshakeTimeout < 0 {
		return nil, fmt.Errorf("service: the handshake timeout is %v; it must be positive", c.HandshakeTimeout)
	}
	if c.HandshakeTimeout == 0 {
		c.HandshakeTimeout = handshakeTimeout
	}
	if c.SecureNaming < Strict || c.SecureNaming > Off {
		return nil, fmt.Errorf("service: secure naming %d is not known", c.SecureNaming)
	}
	if err := c.checkNames(); err != nil {
		return nil, err
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	s := &Server{cfg: c, log: c.Logger, accounts: c.Accounts, refusedUIDs: readRefusedUIDs(), gate: newGate(c.Limits),
		connections: newTally(c.Limits.Connections, connectionsInAll()),
		spare:       newTally(spareConnections, spareInAll),
		givers:      newTally(min(c.Limits.Connections, giverConnections), math.MaxInt),
		streams:     newTally(c.Limits.Streams, math.MaxInt),
		open:        newTally(2*(c.Limits.Streams+c.Limits.Handshakes), math.MaxInt),
		audit:       newAuditor(c.Logger, c.OnFinish), conns: make(map[*conn]struct{})}
	if s.accounts == nil {
		s.accounts = NewAccounts(AccountOptions{AllowDomainAccounts: c.AllowDomainAccounts, Groups: c.PublishGroups})
	}
	var err error
	if s.poller, err = handed.NewPoller(); err != nil {
		return nil, fmt.Errorf("service: %w", err)
	}
	s.stop, s.stopping = context.WithCancel(context.Background())
	s.cut, s.cutting = context.WithCancel(context.Background())
	s.grpc = grpc.NewServer(
		grpc.Creds(peerCreds{}),
		grpc.ConnectionTimeout(prefaceTimeout),
		// Goroutines that are used again keep the stack that the cryptography needs; when all are busy, others are made.
		grpc.NumStreamWorkers(16),
		grpc.MaxConcurrentStreams(streamsPerConn),
		grpc.InTapHandle(s.enterStream),
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.MaxHeaderListSize(16<<10),
		// Buffers that hold any usual message; grpc takes back the one for writing from the many connections that are idle.
		grpc.ReadBufferSize(8<<10),
		grpc.WriteBufferSize(8<<10),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: connectionAge, MaxConnectionAgeGrace: connectionGrace}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Minute, PermitWithoutStream: true}),
	)
	s.grpc.RegisterService(&grpc.ServiceDesc{
		ServiceName: altspb.ServiceName,
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{
			StreamName: altspb.MethodName, Handler: s.doHandshake, ServerStreams: true, ClientStreams: true,
		}},
		Metadata: "grpc/gcp/handshaker.proto",
	}, s)
	if c.Register != nil {
		c.Register(s.grpc)
	}
	return s, nil
}

func (c *Config) checkNames() error {
	c.PublishGroups = slices.Clone(c.PublishGroups)
	slices.Sort(c.PublishGroups)
	c.PublishGroups = slices.Compact(c.PublishGroups)
	size := 0
	for _, g := range c.PublishGroups {
		if err := certbind.ValidAccount(g, c.AllowDomainAccounts); err != nil {
			return fmt.Errorf("service: the group %q cannot be published: %w", g, err)
		}
		size += len(g) + 1
	}
	if size > maxGroupsField {
		return fmt.Errorf("service: the names of the published groups need %d bytes; they may have %d", size, maxGroupsField)
	}
	if c.ServerAccounts != nil && len(c.ServerAccounts) == 0 {
		return errors.New("service: the list of server accounts is empty; leave it out to accept any")
	}
	c.ServerAccounts = slices.Clone(c.ServerAccounts)
	for _, a := range c.ServerAccounts {
		if a == same && len(c.ServerAccounts) > 1 {
			return errors.New("service: the server account \"same\" must stand alone")
		}
		if err := certbind.ValidAccount(a, c.AllowDomainAccounts); err != nil {
			return fmt.Errorf("service: the server account %q cannot be anybody: %w", a, err)
		}
	}
	return nil
}

// Serve answers on the listener until Shutdown, which it returns nil after. It may be called for several listeners; only
// the uids of allowed may use this one. It closes the listener.
func (s *Server) Serve(l *net.UnixListener, allowed UIDRanges) error {
	s.takeDescriptors(l, false)
	err := s.grpc.Serve(&listener{UnixListener: l, srv: s, allowed: allowed})
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("serving on %s: %w", l.Addr(), err)
	}
	return nil
}

// Shutdown takes no more handshakes (UNAVAILABLE), lets those under way finish until ctx is done, and cuts the rest. It
// returns ctx's error if it had to cut.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stopping()
	defer s.audit.flush()
	graceful := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		s.handovers.Wait()
		_ = s.poller.Close()
		close(graceful)
	}()
	select {
	case <-graceful:
		return nil
	case <-ctx.Done():
	}
	s.cutting()
	s.mu.Lock()
	conns := slices.Collect(maps.Keys(s.conns))
	s.mu.Unlock()
	for _, c := range conns {
		c.Close() // also those that have not sent their preface, for which grpc would wait
	}
	s.grpc.Stop()
	// The giver of a socket can make the kernel hold a thread of ours for as long as he likes; the stop does not wait for it.
	select {
	case <-graceful:
	case <-time.After(lingerTime):
	}
	return ctx.Err()
}

// refusalsKept is how many streams a connection may have refused by enterStream; grpc keeps a little of each until the
// connection ends.
const refusalsKept = 256

// enterStream bounds the streams of a uid, whatever service or state they are in, before grpc spends anything on them: a
// call of which nothing but the header has come, and a health check that watches, cost as much as a handshake. When the
// daemon stops, calls of the services beside the handshaker end, which else would hold up the stop for as long as their
// callers like.
func (s *Server) enterStream(ctx context.Context, call *tap.Info) (context.Context, error) {
	p, _ := peer.FromContext(ctx)
	info, ok := p.AuthInfo.(callerInfo)
	if !ok {
		return ctx, status.Error(codes.Unauthenticated, "shared-altsd: the connection has no peer credentials")
	}
	if !s.open.enter(info.UID) {
		if info.conn.refused.Add(1) > refusalsKept {
			info.conn.Close()
		}
		return ctx, status.Errorf(codes.ResourceExhausted, "shared-altsd: uid %d has %d streams open; close some, or raise "+
			"the limit (overloaded)", info.UID, s.open.limit)
	}
	if call.FullMethodName == altspb.FullMethod {
		context.AfterFunc(ctx, func() { s.open.leave(info.UID) })
		return ctx, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	keep := context.AfterFunc(s.stop, func() { time.AfterFunc(lingerTime, cancel) })
	context.AfterFunc(ctx, func() {
		keep()
		s.open.leave(info.UID)
	})
	return ctx, nil
}

// doHandshake serves one stream. Requests are read by a goroutine of their own, so that timers and the daemon's stop end
// the stream at once.
func (s *Server) doHandshake(_ any, stream grpc.ServerStream) error {
	ctx := stream.Context()
	p, ok := peer.FromContext(ctx)
	info, isCaller := callerInfo{}, false
	if ok {
		info, isCaller = p.AuthInfo.(callerInfo)
	}
	if !isCaller {
		return errors.New("shared-altsd: the connection has no peer credentials")
	}
	kind := clientKindOf(ctx)
	h := s.newSession(info.Caller)
	defer h.close()
	if info.refusal != nil || !h.counted {
		// It will be refused, but its first request is waited for: some libraries show only an answer to one.
		h.setTimer(lingerTime)
	}
	more := make(chan struct{}, 1)
	requests := receive(stream, more)
	sent := 0 // bytes
	for {
		resp, req, final, err := s.next(ctx, h, requests)
		if err == nil {
			sent += 5 + proto.Size(resp) // with the prefix of a message
			err = h.send(stream, resp, sent > sendsFree)
			if late := (*failure)(nil); errors.As(err, &late) {
				_, err = kind.deliver(late, h.id, nil)
				return err
			}
			clear(resp.GetResult().GetKeyData())
			if err != nil {
				h.abort(cancelled())
				return err
			}
			if final {
				h.succeed()
				return nil
			}
			more <- struct{}{}
			continue
		}
		resp, err = kind.deliver(asFailure(err), h.id, req)
		if resp != nil {
			if err := stream.SendMsg(resp); err != nil {
				return err
			}
		}
		return err
	}
}

// sendsFree is how many bytes of responses grpc takes on a stream whose client reads none, less a margin for
// the last one (64 KiB in all); then SendMsg waits for the client.
const sendsFree = 48 << 10

// send sends a response, which is encoded at once. If that may block, the session's timer ends it with a *failure: an
// application that asks and does not read must not keep its place among the handshakes.
func (h *session) send(stream grpc.ServerStream, resp *altspb.HandshakerResp, mayBlock bool) error {
	if !mayBlock {
		return stream.SendMsg(resp)
	}
	done := make(chan error, 1)
	go func() { done <- stream.SendMsg(resp) }() // the end of the stream ends it
	select {
	case err := <-done:
		return err
	case <-h.expired():
		return h.expire()
	}
}

type received struct {
	req *altspb.HandshakerReq
	err error
}

// receive reads requests, each only when more says that the one before was answered: a request may be large, and an
// application has no reason to send two.
func receive(stream grpc.ServerStream, more <-chan struct{}) <-chan received {
	ch := make(chan received)
	go func() {
		for {
			r := received{req: new(altspb.HandshakerReq)}
			r.err = stream.RecvMsg(r.req)
			select {
			case ch <- r:
			case <-stream.Context().Done():
				return
			}
			if r.err != nil {
				return
			}
			select {
			case <-more:
			case <-stream.Context().Done():
				return
			}
		}
	}()
	return ch
}

// next waits for whatever comes first and gives the response to it; req is the request that is still unanswered.
func (s *Server) next(ctx context.Context, h *session, requests <-chan received) (
	resp *altspb.HandshakerResp, req *altspb.HandshakerReq, final bool, err error) {
	stop := s.stop.Done()
	if h.inFlight() {
		stop = nil
	}
	select {
	case r := <-requests:
		switch {
		case r.err == nil:
			resp, final, err = h.step(ctx, r.req)
			return resp, r.req, final, err
		case errors.Is(r.err, io.EOF) || ctx.Err() != nil:
			return nil, nil, true, h.abort(s.gone(ctx))
		default: // too large, or no protobuf: grpc's own text says which
			return nil, nil, true, h.abort(badRequest("the request could not be read: %v", r.err))
		}
	case <-h.expired():
		if h.state == idle {
			return nil, nil, true, h.abort(asFailure(h.overload()))
		}
		return nil, nil, true, h.expire()
	case <-stop:
		return nil, nil, true, h.abort(asFailure(errStopping))
	case <-ctx.Done():
		return nil, nil, true, h.abort(s.gone(ctx))
	}
}

func (s *Server) gone(ctx context.Context) *failure {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		f := asFailure(reason.Errorf(reason.TimedOut, "the application's own deadline for the handshake passed"))
		f.end = true
		return f
	}
	return cancelled()
}

// noteUnknownFields tells that an application's gRPC library is newer than this daemon, now and then.
func (s *Server) noteUnknownFields(c Caller) {
	s.mu.Lock()
	due := time.Since(s.unknownNote) >= unknownFieldsEach
	if due {
		s.unknownNote = time.Now()
	}
	s.mu.Unlock()
	if due {
		s.log.Warn("a start request has fields that this daemon does not know, and leaves out: the gRPC library is newer; upgrade the daemon",
			"uid", c.UID, "pid", c.PID)
	}
}

// Stats is a snapshot for metrics and status.
type Stats struct {
	// InFlight and Waiting count handshakes with and without a place, by Role.
	InFlight, Waiting [2]int
	// Connections counts those to the daemon, refused ones among them; Streams those streams that are not under way.
	Connections, Streams int
	// Handshakes counts those that ended.
	Handshakes map[Count]uint64
	// Last holds the last failures, at most 16, oldest first.
	Last []Record
}

// Snapshot gives the Stats of now.
func (s *Server) Snapshot() Stats {
	st := Stats{Connections: s.connections.sum() + s.spare.sum(), Streams: s.streams.sum()}
	st.InFlight, st.Waiting = s.gate.counts()
	s.audit.mu.Lock()
	defer s.audit.mu.Unlock()
	st.Handshakes, st.Last = maps.Clone(s.audit.counts), slices.Clone(s.audit.last)
	return st
}
