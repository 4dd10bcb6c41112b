package altscreds

import (
	"net"
	"os"
	"time"
)

// SetCounters sets the numbers of the next frames of a connection, both ways.
func SetCounters(c net.Conn, n uint64) {
	r := c.(*Conn).rec
	r.in.counter, r.out.counter = n, n
}

// CountBuffers calls f with each change in the number of pooled buffers in use, until the func returned is called.
func CountBuffers(f func(delta int)) (stop func()) {
	bufferHook = f
	return func() { bufferHook = nil }
}

// CloseDaemonConnections closes the idle connections to daemons and returns how many are in use.
func CloseDaemonConnections() (inUse int) {
	daemonConns.mu.Lock()
	defer daemonConns.mu.Unlock()
	for _, d := range daemonConns.byKey {
		if d.users > 0 {
			inUse++
		} else {
			d.close()
		}
	}
	return inUse
}

// Match is the matcher of patterns.
var Match = match

// RefusalError is what makes an error of a daemon's refusal.
var RefusalError = refusalError

// RelayOnly, as an environment variable, makes a test process use the gRPC interface alone.
const RelayOnly = "ALTSCREDS_TEST_RELAY_ONLY"

func init() {
	if os.Getenv(RelayOnly) != "" {
		helloWait = -1
	}
}

// WatchWithin sets within how long a lost stream of watched connections is begun again, and how long it outlives the last.
func WatchWithin(first, idle time.Duration) (restore func()) {
	set := func(f, i time.Duration) (time.Duration, time.Duration) {
		daemonConns.mu.Lock()
		defer daemonConns.mu.Unlock()
		oldFirst, oldIdle := watchFirst, watchIdle
		watchFirst, watchIdle = f, i
		return oldFirst, oldIdle
	}
	oldFirst, oldIdle := set(first, idle)
	return func() { set(oldFirst, oldIdle) }
}

// Watched returns how many connections are watched by the daemon at a socket, and how many streams there are for it.
func Watched(socket string) (conns, streams int) {
	daemonConns.mu.Lock()
	defer daemonConns.mu.Unlock()
	for _, d := range daemonConns.byKey {
		if w := d.watcher; w != nil && d.key.socket == socket {
			w.mu.Lock()
			conns += len(w.conns)
			w.mu.Unlock()
			streams++
		}
	}
	return conns, streams
}
