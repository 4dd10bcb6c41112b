package localgrpc

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
)

// A Call answers one stream. Its methods are called under the connection's lock, one at a time, and must not wait.
type Call interface {
	// Message takes a request, which it must not keep. It is to be answered by one Send or Finish, at once or later; the
	// next one comes after that.
	Message(b []byte)
	// End says that no request comes any more: io.EOF after the last, context.Canceled or context.DeadlineExceeded when
	// the call is over, or the status of a request that could not be taken.
	End(err error)
	// Drain says that the server is to stop.
	Drain()
}

// A Method makes the Call of a new stream.
type Method func(*Stream) Call

// An Account is to whom connections and what they hold are counted. Its methods must not wait.
type Account interface {
	// Enter counts a stream; an error, a status, refuses it.
	Enter() error
	// Leave takes back one Enter.
	Leave()
	// Hold counts n bytes more, or fewer, and reports false, counting nothing, if that is too much.
	Hold(n int) bool
}

// A Meter is charged for work before it is done. A unit is about a microsecond: see units.
type Meter interface {
	// TryCharge charges if that needs no wait, and reports whether it did.
	TryCharge(units int) bool
	// Charge may wait, and so push back on the sender. An error closes the connection.
	Charge(ctx context.Context, units int) error
}

// A Free meter charges nothing.
type Free struct{}

// TryCharge does nothing.
func (Free) TryCharge(int) bool { return true }

// Charge does nothing.
func (Free) Charge(context.Context, int) error { return nil }

// A Peer is who holds a connection.
type Peer struct {
	Context context.Context // of calls of generated services
	Account Account
	Meter   Meter
}

// A Server answers calls on connections. Register everything before the first.
type Server struct {
	// Age is when a connection is asked to end; Grace is how long its streams then may go on.
	Age, Grace time.Duration
	// Linger is how long calls of generated services go on after Drain.
	Linger time.Duration
	// Idle, if set, is called when a connection has written all that it has to and is about to wait for more to read. It
	// must not wait, and what comes meanwhile on that connection waits for it.
	Idle func()

	methods map[string]Method

	mu       sync.Mutex
	conns    map[*conn]struct{}
	draining bool
}

// New returns a Server with no methods.
func New() *Server {
	return &Server{methods: make(map[string]Method), conns: make(map[*conn]struct{})}
}

// Handle answers calls of path by m.
func (s *Server) Handle(path string, m Method) { s.methods[path] = m }

// RegisterService answers the methods of a generated service, of which each call sends one request.
func (s *Server) RegisterService(d *grpc.ServiceDesc, impl any) {
	for _, m := range d.Methods {
		s.Handle("/"+d.ServiceName+"/"+m.MethodName, unary(m, impl))
	}
	for _, m := range d.Streams {
		s.Handle("/"+d.ServiceName+"/"+m.StreamName, streaming(m, impl))
	}
}

// Drain asks all connections to end, once their streams did, and tells the streams.
func (s *Server) Drain() {
	s.mu.Lock()
	s.draining = true
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.do(c.drain)
	}
}

// add notes a connection, and reports whether the server drains.
func (s *Server) add(c *conn) (draining bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
	return s.draining
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}
