package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// streamArgument is the first argument of this program as client or server of forwarded connections; the second is a
// stream as JSON.
const streamArgument = "stream"

const (
	// The first byte of a connection says what is done: what comes is sent back; it is counted, and the number sent at its
	// end; for so many nanoseconds, 8 bytes, bytes are sent.
	doEcho, doCount, doSend = 'e', 'c', 's'
	// blockSize is how much is read and written at a time.
	blockSize = 256 << 10
	// holders open connections at once that are held.
	holders = 8
)

// A stream is the client or the server of connections that are forwarded. It knows nothing of how.
type stream struct {
	Network, Addr string // of the forwarder, for the client
	Path          string // of the server's socket, "" for TCP
	held          []net.Conn
}

func (s *stream) server() bool { return s.Addr == "" }

func (s *stream) do(r request) (n int, took time.Duration, err error) {
	began := time.Now()
	switch r.Do {
	case "connection":
		// One after the other: the time until the first byte is there, without the end, after which the next begins.
		n, err = again(1, began, r.For, func() error {
			first, err := s.connection()
			took += first
			return err
		})
		return n, took, err
	case "connections":
		n, err = again(r.Dialers, began, r.For, func() error {
			_, err := s.connection()
			return err
		})
		return n, time.Since(began), err
	case "up":
		n, err = s.up(r.For)
		return n, time.Since(began), err
	case "down":
		n, err = s.down(r.For)
		return n, time.Since(began), err
	case "hold":
		return r.N, time.Since(began), s.hold(r.N)
	case "drop":
		for _, c := range s.held {
			c.Close()
		}
		s.held = nil
		return 0, 0, nil
	}
	return 0, 0, fmt.Errorf("no request %q", r.Do)
}

// dial connects, and has the server do what the first byte says.
func (s *stream) dial(request ...byte) (*net.UnixConn, error) {
	c, err := net.DialUnix(s.Network, nil, &net.UnixAddr{Name: s.Addr, Net: s.Network})
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write(request); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// echo opens a connection and has its first byte back.
func (s *stream) echo() (*net.UnixConn, error) {
	c, err := s.dial(doEcho, 1)
	if err != nil {
		return nil, err
	}
	var b [1]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		c.Close()
		return nil, fmt.Errorf("no first byte: %w", err)
	}
	return c, nil
}

// connection has one from its beginning to the end in both directions.
func (s *stream) connection() (first time.Duration, err error) {
	began := time.Now()
	c, err := s.echo()
	if err != nil {
		return 0, err
	}
	first = time.Since(began)
	defer c.Close()
	if err := c.CloseWrite(); err != nil {
		return first, err
	}
	switch n, err := c.Read(make([]byte, 1)); {
	case n > 0:
		return first, errors.New("a byte came that nobody sent")
	case err != io.EOF:
		return first, fmt.Errorf("in the place of the end: %w", err)
	}
	return first, nil
}

// up sends for that long, until the server has it all.
func (s *stream) up(d time.Duration) (mib int, err error) {
	c, err := s.dial(doCount)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(d + patience))
	block := make([]byte, blockSize)
	sent := 0
	for began := time.Now(); sent < 1<<20 || time.Since(began) < d; sent += len(block) {
		if _, err := c.Write(block); err != nil {
			return 0, err
		}
	}
	if err := c.CloseWrite(); err != nil {
		return 0, err
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		return 0, err
	}
	if len(answer) != 8 || binary.BigEndian.Uint64(answer) != uint64(sent) {
		return 0, fmt.Errorf("the server has %x of %d bytes", answer, sent)
	}
	return sent >> 20, nil
}

// down receives for that long.
func (s *stream) down(d time.Duration) (mib int, err error) {
	c, err := s.dial(binary.BigEndian.AppendUint64([]byte{doSend}, uint64(d))...)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(d + patience))
	received, err := count(c)
	if err == nil && received < 1<<20 {
		err = fmt.Errorf("%d bytes came, which is too few", received)
	}
	return received >> 20, err
}

// count reads to the end.
func count(c net.Conn) (n int, err error) {
	block := make([]byte, blockSize)
	for err == nil {
		var m int
		m, err = c.Read(block)
		n += m
	}
	if err == io.EOF {
		err = nil
	}
	return n, err
}

// hold opens n connections and keeps them.
func (s *stream) hold(n int) error {
	opened := make(chan net.Conn, n)
	var left atomic.Int64
	left.Store(int64(n))
	_, err := again(min(n, holders), time.Now(), 0, func() error {
		for left.Add(-1) >= 0 {
			c, err := s.echo()
			if err != nil {
				return fmt.Errorf("connection %d: %w", len(opened)+1, err)
			}
			c.SetDeadline(time.Time{})
			opened <- c
		}
		return nil
	})
	close(opened)
	for c := range opened {
		s.held = append(s.held, c)
	}
	return err
}

// serve is the backend.
func (s *stream) serve() (addr string, err error) {
	network, at := "tcp", "127.0.0.1:0"
	if s.Path != "" {
		network, at = "unix", s.Path
	}
	l, err := net.Listen(network, at)
	if err != nil {
		return "", err
	}
	go func() { // until the process ends
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serveStream(c)
		}
	}()
	return l.Addr().String(), nil
}

func serveStream(c net.Conn) {
	defer c.Close()
	var b [8]byte
	if _, err := io.ReadFull(c, b[:1]); err != nil {
		return
	}
	switch b[0] {
	case doEcho:
		for {
			n, err := c.Read(b[:])
			if err != nil {
				return
			}
			if _, err := c.Write(b[:n]); err != nil {
				return
			}
		}
	case doCount:
		if n, err := count(c); err == nil {
			c.Write(binary.BigEndian.AppendUint64(nil, uint64(n)))
		}
	case doSend:
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return
		}
		d := time.Duration(binary.BigEndian.Uint64(b[:]))
		block := make([]byte, blockSize)
		for began, sent := time.Now(), 0; sent < 1<<20 || time.Since(began) < d; sent += len(block) {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	}
}
