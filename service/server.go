package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/ascii"
	"github.com/shared-altsd/shared-altsd/internal/fair"
	"github.com/shared-altsd/shared-altsd/internal/handed"
	"github.com/shared-altsd/shared-altsd/internal/keysahead"
	"github.com/shared-altsd/shared-altsd/internal/localgrpc"
	"github.com/shared-altsd/shared-altsd/internal/names"
	"github.com/shared-altsd/shared-altsd/noiseproto"
)

// Config says how a Server behaves. Only Machine is required.
type Config struct {
	// Machine attests local accounts and verifies peers.
	Machine *certbind.Machine
	// Resolver asks DNS about machines for which it vouches (certbind.CA.DANE); nil: none, and such machines are refused.
	Resolver Resolver
	// Accounts is the user database; nil: the system's (NewAccounts).
	Accounts AccountDatabase
	// PublishGroups are the groups whose members are attested as such, by their names in lower case. Together they may
	// need 2048 bytes as an attribute.
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
	// KeepRevoked lets connections stand that would be refused now: that is only logged and counted.
	KeepRevoked bool
	// Limits bounds what callers may hold.
	Limits Limits
	// Logger gets one line a handshake; nil: slog.Default().
	Logger *slog.Logger
	// OnFinish, if set, is called at the end of each handshake, for metrics. It must not block.
	OnFinish func(Record)
}

const (
	handshakeTimeout = 10 * time.Second
	maxGroupsField   = 2048 // bytes: docs/spec/protocol.md, section 5.4

	// bytesPerAccount bounds what requests and answers of an account's streams hold; a connection may hold 2 MiB of it.
	bytesPerAccount = 32 << 20
)

// A Server is the daemon's local service.
type Server struct {
	cfg           Config
	log           *slog.Logger
	accounts      AccountDatabase
	refusedUIDs   refusedUIDs
	gate          *handshakeGate
	addresses     *handshakeGate // by the peer's address, which is passed first
	connections   *tally[share]  // of callers who may, and have a name
	refusedConns  *tally[uint32] // of the uids that may not, or have none
	handoverConns *tally[share]  // connections by which sockets are handed over
	idleStreams   *tally[share]  // streams without a place in gate
	allStreams    *tally[share]  // streams of any service, in any state
	pending       *tally[share]  // connections that wait for their account's budget
	budget        *fair.Budget[share]
	unproven      *fair.Budget[share] // of a server's handshakes, until the peer has proved who he is
	turns         *fair.Turns[share]  // of work on the processor
	keys          *keysahead.Keys     // of handshakes
	audit         *auditor
	measure       measure
	watches       watches       // connections that stand
	heldBytes     *tally[share] // bytes of requests and answers that streams hold
	grpc          *localgrpc.Server
	poller        *handed.Poller // of the sockets that were handed over
	serving       sync.WaitGroup // connections

	stopping  atomic.Bool  // no client's handshake is taken any more
	heardLast atomic.Int64 // when the peer of a client's handshake was heard last, in nanoseconds since 1970

	draining context.Context // done when the daemon is to stop, and takes no more handshakes
	drain    context.CancelFunc
	stopped  context.Context // done when it waits no longer for what is under way on sockets handed over
	stop     context.CancelFunc

	mu          sync.Mutex
	conns       map[*conn]struct{}
	listeners   map[*listener]struct{}
	limited     uint32    // sockets that are limited to uids, so far
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
		addresses:     newAddressGate(),
		connections:   newTally[share](c.Limits.Connections, connectionsInAll()),
		refusedConns:  newTally[uint32](refusedConnections, refusedConnectionsInAll),
		handoverConns: newTally[share](min(c.Limits.Connections, handoverConnections), math.MaxInt),
		idleStreams:   newTally[share](c.Limits.Streams, math.MaxInt),
		allStreams:    newTally[share](2*(c.Limits.Streams+c.Limits.Handshakes), math.MaxInt),
		heldBytes:     newTally[share](bytesPerAccount, math.MaxInt),
		pending:       newTally[share](pendingConnections, math.MaxInt),
		budget:        fair.NewBudget[share](budgetRate, budgetSaved),
		unproven:      fair.NewBudget[share](unprovenRate, unprovenSaved),
		turns:         fair.NewTurns[share](runtime.GOMAXPROCS(0)),
		keys:          keysahead.New(noiseproto.FreshKeys{}),
		watches:       newWatches(c.Limits.Connections),
		measure:       measure{generation: rand.Uint64()}, // another run's records bear another
		audit:         newAuditor(c.Logger, c.OnFinish), conns: make(map[*conn]struct{}),
		listeners: make(map[*listener]struct{})}
	if s.accounts == nil {
		s.accounts = NewAccounts(AccountOptions{AllowDomainAccounts: c.AllowDomainAccounts, Groups: c.PublishGroups})
	}
	var err error
	if s.poller, err = handed.NewPoller(); err != nil {
		return nil, fmt.Errorf("service: %w", err)
	}
	s.draining, s.drain = context.WithCancel(context.Background())
	s.stopped, s.stop = context.WithCancel(context.Background())
	s.grpc = s.newGRPCServer()
	return s, nil
}

func (c *Config) checkNames() error {
	c.PublishGroups = lowered(c.PublishGroups)
	slices.Sort(c.PublishGroups)
	c.PublishGroups = slices.Compact(c.PublishGroups)
	for _, g := range c.PublishGroups {
		if err := certbind.ValidGroup(g, c.AllowDomainAccounts); err != nil {
			return fmt.Errorf("service: the group %q cannot be published: %w", g, err)
		}
	}
	if size := len(names.EncodeGroups(c.PublishGroups)); size > maxGroupsField {
		return fmt.Errorf("service: the names of the published groups need %d bytes; they may have %d", size, maxGroupsField)
	}
	if c.ServerAccounts != nil && len(c.ServerAccounts) == 0 {
		return errors.New("service: the list of server accounts is empty; leave it out to accept any")
	}
	c.ServerAccounts = lowered(c.ServerAccounts)
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

// lowered returns names in lower case, as those of peers and of their groups are.
func lowered(list []string) []string {
	list = slices.Clone(list)
	for i := range list {
		list[i] = ascii.Lower(list[i])
	}
	return list
}

// Shutdown takes no more handshakes (UNAVAILABLE), lets those under way finish until ctx is done, or their peers are
// silent for long, and cuts the rest. It returns ctx's error if it had to cut. As long as clients' handshakes are under
// way, a server's are still taken by connections that are there: the peer may be an account of this machine, and would
// wait for the next daemon, as this one for him.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.stopping.Store(true)
	for l := range s.listeners {
		l.Close()
	}
	s.mu.Unlock()
	s.awaitClients(ctx)
	s.mu.Lock()
	s.drain()
	s.mu.Unlock()
	defer s.audit.flush()
	s.keys.Close() // what is under way makes its own
	s.grpc.Drain()
	graceful := make(chan struct{})
	go func() {
		s.serving.Wait()
		_ = s.poller.Close()
		close(graceful)
	}()
	select {
	case <-graceful:
		return nil
	case <-ctx.Done():
	}
	s.stop()
	s.mu.Lock()
	conns := slices.Collect(maps.Keys(s.conns))
	s.mu.Unlock()
	for _, c := range conns {
		go c.Close() // also those that have not sent their preface
	}
	// The giver of a socket can make the kernel hold a thread of ours for as long as he likes; the stop does not wait
	// for it.
	select {
	case <-graceful:
	case <-time.After(lingerTime):
	}
	return ctx.Err()
}

// awaitClients waits until no client's handshake is under way, or none gets on any more, or half of ctx's time is over:
// servers are to be told as well.
func (s *Server) awaitClients(ctx context.Context) {
	if d, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, time.Now().Add(time.Until(d)/2))
		defer cancel()
	}
	s.heardLast.Store(time.Now().UnixNano())
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C: // after what has passed begin had the time to take its place
		case <-ctx.Done():
			return
		}
		inUse, waiting := counts(s.gate)
		if inUse[Initiator]+waiting[Initiator] == 0 || time.Since(time.Unix(0, s.heardLast.Load())) > stopPatience {
			return
		}
	}
}

// Stats is a snapshot for metrics and status; handshakes that ended are for Config.OnFinish to count.
type Stats struct {
	// InFlight and Waiting count handshakes with and without a place, by Role.
	InFlight, Waiting [2]int
	// Connections counts those to the daemon, refused ones among them; Streams those streams that are not under way.
	Connections, Streams int
	// Standing is of connections that stand.
	Standing StandingStats
	// Last holds the last failures, at most 16, oldest first.
	Last []Record
}

// Snapshot returns the Stats of now.
func (s *Server) Snapshot() Stats {
	st := Stats{Connections: s.connections.sum() + s.refusedConns.sum(), Streams: s.idleStreams.sum(),
		Standing: s.watches.stats()}
	st.Standing.Keep = s.cfg.KeepRevoked
	st.InFlight, st.Waiting = counts(s.gate)
	s.audit.mu.Lock()
	defer s.audit.mu.Unlock()
	st.Last = slices.Clone(s.audit.last)
	return st
}
