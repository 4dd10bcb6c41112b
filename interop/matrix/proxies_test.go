package matrix

import (
	"io"
	"net"
	"net/http"
	"testing"
)

// TestRule44CoreProxies: C-core sends what it dials by a proxy, but for the handshaker, whichever lists of exceptions there
// are.
func TestRule44CoreProxies(t *testing.T) {
	w := theWorld(t)
	pythonDebian.need(t, w)
	address, greet := greeter(t, w, pythonDebian)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 64)
	server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.RequestURI
		connect(rw, r)
	})}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-done })
	for _, lists := range [][]string{{}, {"no_proxy=*"}, {"no_grpc_proxy=*"}, {"no_proxy=*", "no_grpc_proxy="}, {"no_proxy=a.test"},
		{"no_grpc_proxy=a.test", "no_proxy=*"}} {
		if got := greet(append(lists, "http_proxy=http://"+l.Addr().String())...); got != greeting(w) {
			t.Errorf("%q: %q", lists, got)
		}
		if got := <-asked; got != "CONNECT "+address {
			t.Errorf("%q: the proxy was asked for %q", lists, got)
		}
		for len(asked) > 0 {
			if got := <-asked; got != "CONNECT "+address {
				t.Errorf("%q: the proxy was asked for %q", lists, got)
			}
		}
	}
}

// connect is what a proxy does with CONNECT.
func connect(rw http.ResponseWriter, r *http.Request) {
	there, err := net.Dial("tcp", r.Host)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadGateway)
		return
	}
	rw.WriteHeader(http.StatusOK)
	here, buffered, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		there.Close()
		return
	}
	defer here.Close()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		io.Copy(there, buffered)
		there.Close()
	}()
	io.Copy(here, there)
	here.Close()
	<-sent
}
