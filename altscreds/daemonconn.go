package altscreds

import (
	"context"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/localsock"
)

const (
	// daemonWait is how long a handshake waits for a daemon that is being restarted.
	daemonWait = 2 * time.Second
	// daemonRetry is the pause between two attempts to reach it.
	daemonRetry = 50 * time.Millisecond
	// daemonIdle is how long the connection to the daemon outlives the last handshake.
	daemonIdle = time.Minute
	// daemonPlaces is how many handshakes of each role run at a time; more wait. The daemon allows at least 256 streams on
	// a connection, and places for each role keep a program that talks to itself from waiting for its own other half.
	daemonPlaces = 100
	// maxResponse is the most that a response of the daemon may have, in bytes.
	maxResponse = 128 << 10
)

// A daemonConn is what this process has open to the daemon at a socket: one connection of gRPC, and those by which
// sockets are handed over.
type daemonConn struct {
	key     daemonKey
	rpc     *grpc.ClientConn
	clients chan struct{} // their places
	servers serverPlaces
	// dialErr is why the last attempt to connect failed, nil if it did not.
	dialErr atomic.Pointer[error]

	// Of daemonConns.mu:
	handoverConns []*handoverConn // idle ones, that used last at the end
	rested        int             // how many, from the front, were idle since trim was set
	trim          *time.Timer     // closes those; nil while there are few
	relayUntil    time.Time       // until then the daemon is not asked to take sockets
	users         int
	idle          *time.Timer // closes the connection; nil while there are users, and once it fired
	retired       bool        // not in byKey any more: the last user closes it
	closed        bool
	watcher       *watcher // of connections; nil while there are none
}

type daemonKey struct {
	socket string
	uid    uint32
	who    identity
}

var daemonConns = struct {
	mu    sync.Mutex
	byKey map[daemonKey]*daemonConn
}{byKey: make(map[daemonKey]*daemonConn)}

// acquireDaemonConn returns the connection to the daemon, to be given back with release. What was made under another
// identity than the key's is ended, as soon as no handshake that began under that one uses it.
func acquireDaemonConn(key daemonKey) (*daemonConn, error) {
	daemonConns.mu.Lock()
	defer daemonConns.mu.Unlock()
	for _, other := range daemonConns.byKey {
		if other.key.who != key.who {
			other.retire()
		}
	}
	d := daemonConns.byKey[key]
	if d == nil {
		d = &daemonConn{key: key, clients: make(chan struct{}, daemonPlaces), servers: newServerPlaces()}
		rpc, err := grpc.NewClient("passthrough:///shared-altsd",
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(d.dial),
			grpc.WithDisableServiceConfig(),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: daemonRetry, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
				MinConnectTimeout: 5 * time.Second,
			}),
			// "grpc-go/" follows by itself, which tells the daemon to report failures as RPC statuses.
			grpc.WithUserAgent("shared-altsd-altscreds"),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxResponse)),
		)
		if err != nil {
			return nil, &NoDaemonError{Socket: key.socket, Err: err}
		}
		d.rpc = rpc
		daemonConns.byKey[key] = d
	}
	if d.idle != nil {
		d.idle.Stop()
		d.idle = nil
	}
	d.users++
	return d, nil
}

// release returns d back. The connection is closed when nobody has used it for daemonIdle.
func (d *daemonConn) release() {
	daemonConns.mu.Lock()
	defer daemonConns.mu.Unlock()
	if d.users--; d.users > 0 {
		return
	}
	if d.retired {
		d.close()
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(daemonIdle, func() {
		daemonConns.mu.Lock()
		defer daemonConns.mu.Unlock()
		if d.idle != timer {
			return
		}
		d.idle = nil
		d.closeHandoverConns()
		if d.watcher == nil {
			d.close()
		}
	})
	d.idle = timer
}

// watch has the daemon watch a connection whose handshake it did; c.mu is held.
func (d *daemonConn) watch(c *Conn, s *altspb.Standing) {
	daemonConns.mu.Lock()
	defer daemonConns.mu.Unlock()
	if d.closed || d.retired {
		return // the process is somebody else by now
	}
	if d.watcher == nil {
		d.watcher = newWatcher(d)
	}
	d.watcher.add(c, s)
}

// watched says that the stream by which connections were watched has ended.
func (d *daemonConn) watched() {
	daemonConns.mu.Lock()
	defer daemonConns.mu.Unlock()
	if d.watcher == nil || d.watcher.busy() {
		return // a connection came in this moment
	}
	d.watcher.end()
	d.watcher = nil
	if d.users == 0 && d.idle == nil && !d.closed {
		d.close()
	}
}

// unwatch lets go of the connections that are watched; daemonConns.mu is held.
func (d *daemonConn) unwatch() {
	if d.watcher != nil {
		d.watcher.stop()
		d.watcher = nil
	}
}

// retire keeps d from new handshakes, and closes what no handshake uses; daemonConns.mu is held.
func (d *daemonConn) retire() {
	if d.users == 0 {
		d.close()
		return
	}
	d.unwatch()
	d.retired = true
	delete(daemonConns.byKey, d.key)
	d.closeHandoverConns()
}

// close ends the connection; daemonConns.mu is held and there are no users.
func (d *daemonConn) close() {
	d.closed = true
	d.unwatch()
	if d.idle != nil {
		d.idle.Stop()
	}
	if !d.retired {
		delete(daemonConns.byKey, d.key)
	}
	d.closeHandoverConns()
	d.rpc.Close()
}

// takePlace waits for a place among the handshakes of the role.
func (d *daemonConn) takePlace(ctx context.Context, client bool, peer net.Addr) (*place, error) {
	if !client {
		return d.servers.take(ctx, peer)
	}
	leave, err := take(ctx, d.clients)
	if err != nil {
		return nil, err
	}
	return &place{ctx, leave, func() {}}, nil
}

func take(ctx context.Context, places chan struct{}) (leave func(), err error) {
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// dial connects to the socket, as nobody else than d is for, and checks who serves it. gRPC calls it whenever it likes.
func (d *daemonConn) dial(ctx context.Context, _ string) (conn net.Conn, err error) {
	defer func() {
		if err != nil {
			d.dialErr.Store(&err)
		} else {
			d.dialErr.Store(nil)
		}
	}()
	// The kernel records the identity of the thread that connects.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if currentIdentity() != d.key.who {
		return nil, errIdentityChanged
	}
	unixConn, err := localsock.Dial(ctx, d.key.socket, d.key.uid)
	if err != nil {
		return nil, err // not a nil *net.UnixConn in an interface
	}
	if currentIdentity() != d.key.who {
		unixConn.Close()
		return nil, errIdentityChanged
	}
	return unixConn, nil
}
