package ping

import (
	"net"
	"sync"
	"time"
)

// A watchedConn notes when the direction of the bytes on a connection turns.
type watchedConn struct {
	net.Conn
	mu      sync.Mutex
	times   []time.Time // the last byte before each turn
	reading bool
}

func (c *watchedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.note(false, n)
	return n, err
}

func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.note(true, n)
	return n, err
}

func (c *watchedConn) note(reading bool, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case n == 0:
	case len(c.times) == 0 || c.reading != reading:
		c.times, c.reading = append(c.times, time.Now()), reading
	default:
		c.times[len(c.times)-1] = time.Now()
	}
}

func (c *watchedConn) turns() []time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]time.Time(nil), c.times...)
}
