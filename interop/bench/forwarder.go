package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"
)

// forwarderArgument is the first argument of this program as a forwarder to compare with; the second is one as JSON.
const forwarderArgument = "forwarder"

// copySize is io.Copy's own.
const copySize = 32 << 10

var copyBuffers = sync.Pool{New: func() any { return new([copySize]byte) }}

// A forwarder takes connections and carries each to a target: what anybody would write around crypto/tls.
type forwarder struct {
	Listen, Target [2]string // network and address
	Certificates   string    // directory; "" is no TLS at all
	Machine        string    // whose certificate it has
	Peer           string    // host that the other forwarder's certificate has to be for
	Accepts        bool      // TLS comes from who connects; else it is spoken to the target
	config         *tls.Config
}

func runForwarder(text string) error {
	f := new(forwarder)
	if err := json.Unmarshal([]byte(text), f); err != nil {
		return err
	}
	if f.Certificates != "" {
		var err error
		if f.config, err = tlsConfig(f.Certificates, f.Machine); err != nil {
			return err
		}
		f.config.ServerName = f.Peer
		f.config.VerifyConnection = func(s tls.ConnectionState) error { return s.PeerCertificates[0].VerifyHostname(f.Peer) }
	}
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	l, err := net.Listen(f.Listen[0], f.Listen[1])
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go f.serve(c)
	}
}

// A halfCloser can end its own direction.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// serve has a line in the log for the beginning and one for the end of each connection, as ghostunnel and ours do.
func (f *forwarder) serve(accepted net.Conn) {
	defer accepted.Close()
	began := time.Now()
	there, back, err := f.forward(accepted)
	slog.Info("connection ends", "peer", f.Peer, "from", accepted.RemoteAddr().String(), "out", there, "in", back, "error", err,
		"duration", time.Since(began).Round(time.Millisecond).String())
}

func (f *forwarder) forward(accepted net.Conn) (there, back int64, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	near := accepted.(halfCloser)
	if f.config != nil && f.Accepts {
		c := tls.Server(accepted, f.config)
		if err := c.HandshakeContext(ctx); err != nil {
			return 0, 0, err
		}
		near = c
	}
	dialled, err := new(net.Dialer).DialContext(ctx, f.Target[0], f.Target[1])
	if err != nil {
		return 0, 0, err
	}
	defer dialled.Close()
	far := dialled.(halfCloser)
	if f.config != nil && !f.Accepts {
		c := tls.Client(dialled, f.config)
		if err := c.HandshakeContext(ctx); err != nil {
			return 0, 0, err
		}
		far = c
	}
	cancel() // and with it the timer
	slog.Info("connection begins", "peer", f.Peer, "from", accepted.RemoteAddr().String())
	either := func(to, from halfCloser) (n int64, err error) {
		if n, err = carry(to, from); err != nil { // ends the other direction as well
			near.SetDeadline(time.Unix(1, 0))
			far.SetDeadline(time.Unix(1, 0))
		}
		return n, err
	}
	failed := make(chan error, 1)
	go func() {
		var err error
		back, err = either(near, far)
		failed <- err
	}()
	there, err = either(far, near)
	err = errors.Join(err, <-failed)
	return there, back, err
}

// carry copies one direction and its end.
func carry(to, from halfCloser) (n int64, err error) {
	buf := copyBuffers.Get().(*[copySize]byte)
	defer copyBuffers.Put(buf)
	// Their own methods would have io.Copy make a buffer for each, or splice, which is slower here.
	if n, err = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, buf[:]); err != nil {
		return n, err
	}
	return n, to.CloseWrite()
}
