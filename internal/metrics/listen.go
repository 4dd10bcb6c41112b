package metrics

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/cli"
)

// ParseAddr splits the value of --metrics, HOST:PORT or unix:PATH, into what net.Listen takes. Only loopback addresses
// and UNIX sockets are taken: the metrics say how often which account was refused, and there is no login.
func ParseAddr(v string) (network, address string, err error) {
	if path, ok := strings.CutPrefix(v, "unix:"); ok {
		if !filepath.IsAbs(path) {
			return "", "", fmt.Errorf("%q is not an absolute path: it begins with a slash, as in unix:/run/x", path)
		}
		return "unix", path, nil
	}
	host, port, err := cli.HostPort(v)
	if err != nil {
		return "", "", fmt.Errorf("%w; give ADDRESS:PORT or unix:PATH", err)
	}
	if host == "localhost" {
		host = "127.0.0.1" // never what a resolver makes of it
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || !ip.Unmap().IsLoopback() {
		return "", "", fmt.Errorf("%q is not a loopback address: use 127.0.0.1:%s or unix:PATH, and let a proxy that asks who "+
			"calls carry it further", host, port)
	}
	return "tcp", net.JoinHostPort(host, port), nil
}

// CheckListener refuses a listener, inherited say, that ParseAddr would not make.
func CheckListener(l net.Listener) error {
	switch a := l.Addr().(type) {
	case *net.UnixAddr:
		return nil
	case *net.TCPAddr:
		if a.IP.IsLoopback() {
			return nil
		}
	}
	return fmt.Errorf("metrics on %v: only a loopback address or a UNIX socket is allowed", l.Addr())
}

// Serve answers GET /metrics on l until ctx ends, with what state returns at each request.
func (s *Set) Serve(ctx context.Context, l net.Listener, state func() State) error {
	return serve(ctx, l, func(w io.Writer) { s.Write(w, state()) })
}

// serve answers GET /metrics on l until ctx ends, with what write writes at each request.
func serve(ctx context.Context, l net.Listener, write func(io.Writer)) error {
	turn := make(pace, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", ContentType)
		var page bytes.Buffer // so that who does not read keeps no turn
		turn.run(r, func() { write(&page) })
		w.Write(page.Bytes()) // an error is the scraper's having gone
	})
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ConnState:         changed,
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(&boundListener{Listener: l, credit: acceptFirst, last: time.Now()}); err != http.ErrServerClosed {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}
