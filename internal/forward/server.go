package forward

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/handed"
	"github.com/shared-altsd/shared-altsd/internal/metrics"
)

// TimerSlack is how late timers of a forward may be: less than anybody sees, and more than Go's scheduler sleeps.
const TimerSlack = 5 * time.Millisecond

// Limits bound what a Server does. They may change while it runs, for connections to come.
type Limits struct {
	Conns     int           // with a place
	Age       time.Duration // of a connection, 0 for any
	Handshake time.Duration // until it is proved who is at the other end
	Drain     time.Duration // that a stop waits for connections
}

// A Server takes connections and carries each. A connection comes in three steps. First it is proved who is at the other end
// of it: for connect a question to the kernel, for listen a handshake. Until then it is one of a bounded crowd, of which the
// oldest gives way. Then it has a place, of which there are Limits.Conns. Then its other side is connected, and bytes are
// carried. The fields are set before the first use.
type Server struct {
	// New makes a Link of what was accepted. It does not wait.
	New     func(raw net.Conn) Link
	Log     *slog.Logger
	Metrics *metrics.Forwards

	limits  atomic.Pointer[Limits]
	once    sync.Once
	crowd   *crowd
	places  places
	refused refusals
	under   sync.WaitGroup // connections

	mu      sync.Mutex
	open    map[*connection]bool
	stopped bool // nothing is opened any more
}

var errStopped = Refuse(Stopped, errors.New("this forward stops"))

// A connection is a Link under way.
type connection struct {
	Link
	cancel context.CancelCauseFunc
}

// SetLimits has them in force from now on. It is to be called before Serve.
func (s *Server) SetLimits(l Limits) { s.limits.Store(&l) }

func (s *Server) init() {
	s.once.Do(func() {
		most := maxUnproven
		var files unix.Rlimit
		if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) == nil && files.Cur/fewestFilesOf < uint64(most) {
			most = max(16, int(files.Cur/fewestFilesOf))
		}
		s.crowd, s.open = newCrowd(most), make(map[*connection]bool)
	})
}

// State returns how many connections there are.
func (s *Server) State() metrics.ForwardState {
	s.init()
	return metrics.ForwardState{Unproven: s.crowd.len(), Open: s.places.len()}
}

// Serve takes connections from the listeners until ctx ends; then it closes them, waits for the connections for as long as
// Limits.Drain says, or until now ends too, and ends those that are left. It returns when there is none.
func (s *Server) Serve(ctx context.Context, now context.Context, listeners ...net.Listener) {
	s.init()
	var accepting sync.WaitGroup
	for _, l := range listeners {
		accepting.Go(func() { s.accept(ctx, l) })
	}
	<-ctx.Done()
	for _, l := range listeners {
		l.Close()
	}
	accepting.Wait()
	s.drain(now)
}

// accept takes connections until l is closed.
func (s *Server) accept(ctx context.Context, l net.Listener) {
	var told bool
	for {
		raw, err := l.Accept()
		switch {
		case err == nil:
			told = false
			s.under.Go(func() { s.serve(raw) })
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return
		default:
			// Nothing but a lack of descriptors or memory, or a connection that is gone: it passes.
			if !told {
				s.Log.Warn("accepting a connection failed; tried again", "error", err)
			}
			told = true
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
}

// serve serves one connection to its end.
func (s *Server) serve(raw net.Conn) {
	limits, began := *s.limits.Load(), time.Now()
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	c := &connection{s.New(raw), cancel}
	defer c.Abort()
	begun := context.AfterFunc(ctx, c.Abort)
	defer begun()

	var leave func()
	aside(func() { leave = s.begin(ctx, c, raw, limits) })
	if leave == nil {
		return
	}
	defer leave()
	if limits.Age > 0 {
		defer time.AfterFunc(limits.Age, func() {
			cancel(Refuse(Age, errors.New("as old as connections may be (--max-age)")))
		}).Stop()
	}
	begun() // Carry ends with ctx by itself
	r := c.Carry(ctx)
	s.logEnd(c, r, why(ctx, r.Err), time.Since(began))
}

// aside has do done on a stack of its own. A handshake makes one grow to four times what a connection needs that is carried,
// and that would be kept for as long as the connection is.
func aside(do func()) {
	var done sync.WaitGroup
	done.Go(do)
	done.Wait()
}

// begin has a connection proved, gives it a place and connects its other side. It returns nil if the connection was
// refused, which it says.
func (s *Server) begin(ctx context.Context, c *connection, raw net.Conn, limits Limits) (leave func()) {
	err := s.prove(ctx, c, raw, limits)
	holder := c.Facts().Holder
	if err == nil {
		err = s.places.take(holder, limits.Conns)
	}
	if err != nil {
		s.logRefused(c, err, Handshake)
		return nil
	}
	forget := s.register(c)
	// What came into force while it was proved who it is.
	if err = why(ctx, c.Recheck()); err == nil {
		err = why(ctx, c.Open(ctx))
	}
	leave = func() {
		forget()
		s.places.leave(holder)
	}
	if err != nil {
		s.logRefused(c, err, Backend)
		leave()
		return nil
	}
	s.Log.Info("connection begins", c.Facts().attrs()...)
	return leave
}

// register notes that a connection has a place.
func (s *Server) register(c *connection) (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[c] = true
	if s.stopped {
		c.cancel(errStopped)
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, c)
	}
}

// prove has it proved who is at the other end, as one of the crowd until then.
func (s *Server) prove(ctx context.Context, c *connection, raw net.Conn, limits Limits) error {
	bounded, cancel := context.WithTimeout(ctx, limits.Handshake)
	defer cancel()
	place := s.crowd.enter(handed.Network(addrOf(raw.RemoteAddr())), c.cancel)
	err := c.Prove(bounded)
	if !s.crowd.leave(place) && err == nil {
		<-ctx.Done() // it was told to give way at the same moment
		err = context.Cause(ctx)
	}
	return why(ctx, err)
}

// why returns what ended ctx, if err is what that made of it.
func why(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

// addrOf returns the address, not valid if it is not TCP's.
func addrOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr()
	}
	return netip.Addr{}
}

func (s *Server) logRefused(c *connection, err error, otherwise Outcome) {
	outcome := outcomeOf(err, otherwise)
	s.Metrics.Ended(string(outcome), 0, 0)
	if r, ok := errors.AsType[*Refusal](err); ok && r.Told {
		return
	}
	facts := c.Facts()
	skipped, ok := s.refused.may(facts.Holder, time.Now())
	if !ok {
		return
	}
	attrs := append(facts.attrs(), "outcome", string(outcome), "reason", cli.OneLine(err.Error()))
	if skipped > 0 {
		attrs = append(attrs, "left_out", skipped)
	}
	s.Log.Warn("connection refused", attrs...)
}

func (s *Server) logEnd(c *connection, r Result, err error, took time.Duration) {
	level, outcome, reason := slog.LevelInfo, Clean, "both ends"
	if err != nil {
		outcome, reason = outcomeOf(err, Unclean), err.Error()
	}
	if outcome == Unclean { // a program here may not see it
		level = slog.LevelWarn
	}
	s.Metrics.Ended(string(outcome), r.FromPeer, r.ToPeer)
	s.Log.Log(context.Background(), level, "connection ends", append(c.Facts().attrs(), "in", r.FromPeer, "out", r.ToPeer, "outcome", string(outcome),
		"reason", cli.OneLine(reason), "duration", took.Round(time.Millisecond).String())...)
}

// Recheck ends the connections that are refused by what is in force now.
func (s *Server) Recheck() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		if err := c.Recheck(); err != nil {
			c.cancel(err)
		}
	}
}

// drain waits for the connections, and ends those that are left.
func (s *Server) drain(now context.Context) {
	s.crowd.close(errStopped)
	ended := make(chan struct{})
	go func() {
		s.under.Wait()
		close(ended)
	}()
	wait := s.limits.Load().Drain
	select {
	case <-ended:
		return
	case <-time.After(wait):
	case <-now.Done():
	}
	s.mu.Lock()
	s.stopped = true
	left := len(s.open)
	for c := range s.open {
		c.cancel(errStopped)
	}
	s.mu.Unlock()
	if left > 0 {
		s.Log.Warn("connections were ended that had not ended by themselves", "connections", left, "after", wait.String())
	}
	<-ended
}
