package demo

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
)

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
