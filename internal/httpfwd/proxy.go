package httpfwd

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A backend is the way of one connection's requests to the other side. Each connection has its own, so that nobody waits for
// what another one does not read.
type backend struct{ http1, http2 *http.Transport }

func newBackend(dial func(context.Context) (net.Conn, error), t Times) *backend {
	b := &backend{http1: newTransport(dial, t), http2: newTransport(dial, t)}
	b.http2.Protocols = new(http.Protocols)
	b.http2.Protocols.SetUnencryptedHTTP2(true)
	return b
}

func newTransport(dial func(context.Context) (net.Conn, error), t Times) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{Protocols: protocols, DisableCompression: true, MaxResponseHeaderBytes: maxHeaderBytes * 4,
		DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		IdleConnTimeout: t.Idle / 2, ExpectContinueTimeout: time.Second,
		HTTP2: &http.HTTP2Config{MaxReceiveBufferPerConnection: connBuffer, MaxReceiveBufferPerStream: streamBuffer,
			SendPingTimeout: t.Ping, WriteByteTimeout: t.Write}}
}

func (b *backend) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.ProtoMajor == 2 {
		return b.http2.RoundTrip(r)
	}
	return b.http1.RoundTrip(r)
}

func (b *backend) close() {
	b.http1.CloseIdleConnections()
	b.http2.CloseIdleConnections()
}

// each has the transport of the request's own connection carry it.
type each struct{}

func (each) RoundTrip(r *http.Request) (*http.Response, error) { return connOf(r).backend.RoundTrip(r) }

// A way is what is peculiar to the reverse proxy of one side.
type way struct {
	unfit   func(*http.Request) (status int, why string) // why is "" for a request that may pass
	admit   func(*http.Request) (leave func(), ok bool)  // nil: as many requests as there are streams
	rewrite func(*httputil.ProxyRequest)
	failed  func(error) // hears of what did not arrive
	away    string      // what the requester is told then
}

func (y way) handler() http.Handler {
	proxy := &httputil.ReverseProxy{Transport: each{}, FlushInterval: -1, ErrorLog: log.New(io.Discard, "", 0),
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = "http", "forward" // dialled by no name
			p.Out.URL.RawQuery = p.In.URL.RawQuery
			p.Out.Host = p.In.Host
			passTrailers(p)
			y.rewrite(p)
		},
		ModifyResponse: func(r *http.Response) error {
			if r.ContentLength == 0 {
				r.Request.Context().Value(wholeKey{}).(*whole).Store(true)
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() == nil { // else it is the peer who has gone
				y.failed(err)
			}
			refuse(w, r, http.StatusBadGateway, y.away)
		}}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		busy := connOf(r).busy
		busy.Add(1)
		ended := false
		defer func() {
			if ended || r.ProtoMajor == 2 { // which has reset the stream
				busy.Add(-1)
			}
		}()
		status, why := y.unfit(r)
		if why == "" && y.admit != nil {
			if leave, ok := y.admit(r); ok {
				defer leave()
			} else {
				status, why = http.StatusServiceUnavailable, "too many requests of this account, or of its machine, are under way"
			}
		}
		if why != "" {
			refuse(w, r, status, why)
		} else {
			http.NewResponseController(w).EnableFullDuplex() // fails for HTTP/2, which always is
			sent := &answer{ResponseWriter: w}
			// Panics when an answer breaks off.
			proxy.ServeHTTP(sent, r.WithContext(context.WithValue(r.Context(), wholeKey{}, &sent.whole)))
		}
		ended = true
	})
}

// An answer that has no body is sent whole: its headers are the end of it, which flushed before would be told apart. What
// gRPC calls trailers alone is such, and none of its libraries takes the two.
type answer struct {
	http.ResponseWriter
	whole whole
}

type (
	whole    = atomic.Bool
	wholeKey struct{}
)

// FlushError is what http.ResponseController calls.
func (a *answer) FlushError() error {
	if a.whole.Load() {
		return nil
	}
	return http.NewResponseController(a.ResponseWriter).Flush()
}

// Unwrap gives it the rest.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// unfit returns why a request is none that a forward passes on, "" if it is.
func unfit(r *http.Request) (status int, why string) {
	if r.Method == http.MethodConnect {
		return http.StatusNotImplemented, "CONNECT is not forwarded: this is no way to other programs"
	}
	for _, value := range r.Header["Upgrade"] {
		if !strings.EqualFold(value, "websocket") || len(r.Header["Upgrade"]) > 1 {
			return http.StatusNotImplemented, "of all protocols only websocket can be upgraded to here; for HTTP/2 use prior knowledge"
		}
	}
	return 0, ""
}

// refuse answers in the place of the backend, as a gRPC library or as a person can read it.
func refuse(w http.ResponseWriter, r *http.Request, status int, text string) {
	h := w.Header()
	if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		const unavailable = "14"
		h.Set("Content-Type", "application/grpc")
		h.Set("Grpc-Status", unavailable)
		h.Set("Grpc-Message", text)
		w.WriteHeader(http.StatusOK)
		return
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	fmt.Fprintf(w, "shared-altsd: %s\n", text)
}

// passTrailers passes on the trailers of a request that it has announced: they come with the end of its body.
func passTrailers(p *httputil.ProxyRequest) {
	if p.Out.Body == nil || len(p.In.Trailer) == 0 {
		p.Out.Trailer = nil
		return
	}
	cleanse(p.Out.Trailer)
	if len(p.Out.Trailer) == 0 {
		p.Out.Trailer = nil
		return
	}
	p.Out.Body = &trailed{ReadCloser: p.Out.Body, in: p.In, out: p.Out.Trailer}
}

type trailed struct {
	io.ReadCloser
	in  *http.Request
	out http.Header
}

func (t *trailed) Read(b []byte) (int, error) {
	n, err := t.ReadCloser.Read(b)
	if err == io.EOF {
		for name := range t.out {
			t.out[name] = t.in.Trailer[name]
		}
	}
	return n, err
}

// handler forwards a request with the identity of whom its connection is.
func (s *Server) handler() http.Handler {
	failures := seldom{log: s.config.Log, text: "the backend cannot be reached"}
	return way{unfit: unfit, admit: s.underWay.enter, failed: failures.add,
		away: "the program behind this forward does not answer; the forward's log has the reason",
		rewrite: func(p *httputil.ProxyRequest) {
			cleanse(p.Out.Header)
			for name, value := range connOf(p.In).caller {
				p.Out.Header[name] = []string{value}
			}
		}}.handler()
}

// Bounds of the requests that are under way: what is held of each, headers and what the backend has not taken, is most of
// what a peer can make the forward hold.
const (
	maxOfAccount = 512
	maxOfMachine = 1024
)

// underWay counts requests by account, and by machine, since one that lies has any number of accounts.
type underWay struct {
	mu sync.Mutex
	of map[string]int
}

func (u *underWay) enter(r *http.Request) (leave func(), ok bool) {
	caller := connOf(r).caller
	account, machine := caller[headerPeer], "@"+caller[headerMachine]
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.of[account] >= maxOfAccount || u.of[machine] >= maxOfMachine {
		return nil, false
	}
	if u.of == nil {
		u.of = make(map[string]int)
	}
	u.of[account]++
	u.of[machine]++
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		for _, who := range []string{account, machine} {
			if u.of[who]--; u.of[who] == 0 {
				delete(u.of, who)
			}
		}
	}, true
}

// seldom logs an error at most once a minute, however many requests meet it.
type seldom struct {
	log  *slog.Logger
	text string

	mu   sync.Mutex
	last time.Time
	left int
}

func (s *seldom) add(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.log == nil {
		return
	}
	if time.Since(s.last) < time.Minute {
		s.left++
		return
	}
	s.log.Warn(s.text, "error", err, "not_logged", s.left)
	s.last, s.left = time.Now(), 0
}
