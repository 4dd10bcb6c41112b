package httpfwd

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/textproto"
	"strings"
	"sync"
	"testing"

	"github.com/shared-altsd/shared-altsd/altscreds"
)

// told returns an error if the header that a backend got tells anything else of the caller than the forward does.
func told(h http.Header) error {
	got := map[string]string{}
	for name, values := range h {
		if strings.HasPrefix(textproto.CanonicalMIMEHeaderKey(name), "Altsd") {
			got[name] = strings.Join(values, " and ")
		}
	}
	if !maps.Equal(got, identity) {
		return fmt.Errorf("the backend is told %q", got)
	}
	return nil
}

// forged are headers by which a peer may say that it is somebody else.
var forged = []string{
	"Altsd-Peer: root@beta", "altsd-peer: root@beta", "ALTSD-PEER: root@beta", "altsd_peer: root@beta", "Altsd_Peer: root@beta",
	"Altsd-Peer_User: root", "ALTSD_PEER_UID: 0", "Altsd-Peer-Uid: 0", "Altsd-Peer-Role: admin", "Altsd.Peer: root@beta",
	"Altsd-Handshake: 1", "Altsd_Service: ssh", "AltsdPeer: root", "Altsd-Peer-Groups: wheel", "altsd-peer-bin: cm9vdA==",
	"_Altsd-Peer: root",
	"Altsd: root", "Altsd-Peer: root@beta\r\nAltsd-Peer: root@gamma", "Connection: Altsd-Peer",
	"Connection: keep-alive, altsd-peer, Altsd-Peer-User",
	"Altsd-Peer: a\r\n b", "X-Forwarded-For: 10.0.0.1", "X_Forwarded_Host: beta", "Forwarded: for=10.0.0.1", "X-Real-IP: 10.0.0.1",
}

func TestRule55ForgedHeaders(t *testing.T) {
	s := forwarding(t, serving(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		err := told(r.Header)
		for name := range r.Header {
			if strings.HasPrefix(strings.ReplaceAll(name, "_", "-"), "X-Forwarded") || name == "Forwarded" || name == "X-Real-Ip" {
				err = fmt.Errorf("%s has come through", name)
			}
		}
		if len(r.Trailer) > 0 && (len(r.Trailer) != 1 || r.Trailer.Get("Digest") != "abc") {
			err = fmt.Errorf("trailers %q", r.Trailer)
		}
		fmt.Fprint(w, r.Proto, " ", err)
	})), Times{})
	for _, header := range forged {
		c, _, _ := connected(t, s, "altsd-tcp/1:web")
		want := "HTTP/1.1 <nil>"
		if got := body(t, ask(t, c, "GET / HTTP/1.1\r\nHost: x\r\n"+header+"\r\n\r\n")); got != want {
			t.Errorf("%q: %s", header, got)
		}
		name, value, _ := strings.Cut(header, ":")
		if name == "Connection" {
			continue // in a trailer it says nothing, and HTTP/2 has none
		}
		trailers := "Digest: abc\r\n" + header + "\r\n\r\n"
		if got := body(t, ask(t, c, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: Digest\r\nTrailer: "+name+
			"\r\n\r\n1\r\na\r\n0\r\n"+trailers)); got != want {
			t.Errorf("%q as a trailer: %s", header, got)
		}
		if strings.Contains(value, "\r\n") {
			continue // HTTP/2 has none such
		}
		for _, protocol := range []string{"altsd-tcp/1:web", "grpc"} {
			peer, _, _ := connected(t, s, protocol)
			r, err := http.NewRequest("POST", "http://x/", io.MultiReader(strings.NewReader("a")))
			if err != nil {
				t.Fatal(err)
			}
			r.Header[name] = []string{strings.TrimSpace(value), "another"}
			r.Trailer = http.Header{"Digest": {"abc"}, name: {strings.TrimSpace(value)}}
			answer, err := http2Client(t, peer).Do(r)
			if err != nil {
				t.Fatal(err)
			}
			if got := body(t, answer); got != "HTTP/2.0 <nil>" {
				t.Errorf("%q by HTTP/2 and %s: %s", header, protocol, got)
			}
		}
	}
}

// What the peer's machine says of the account cannot end a header, and a peer without an account is not served.
func TestRule55Values(t *testing.T) {
	for _, p := range []*altscreds.Peer{
		nil,
		{},
		{Account: "a b@alpha", User: "a b", Machine: "alpha"},
		{Account: "a@alpha", User: "a", Machine: "alpha", Attributes: map[string]string{"uid": "1\r\nAltsd-Peer: root"}},
		{Account: "a@alpha", User: "a", Machine: "alpha", Attributes: map[string]string{"groups": "é"}},
	} {
		if h, err := (Caller{Peer: p}).identity("s"); err == nil {
			t.Errorf("%+v: %q", p, h)
		}
	}
	h, err := caller("grpc").identity("web")
	if err != nil || !maps.Equal(h, identity) {
		t.Errorf("%q %v", h, err)
	}
}

// foldings are how servers make variables of headers' names: none, CGI and WSGI, nginx, lighttpd, and what knows letters alone.
var foldings = []func(string) string{
	strings.ToLower,
	func(s string) string { return strings.ReplaceAll(strings.ToUpper(s), "-", "_") },
	func(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", "_") },
	func(s string) string { return strings.Map(punctuation('_'), strings.ToUpper(s)) },
	func(s string) string { return strings.Map(punctuation(-1), strings.ToUpper(s)) },
}

func punctuation(to rune) func(rune) rune {
	return func(r rune) rune {
		if 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' {
			return r
		}
		return to
	}
}

// FuzzRequest has a peer send any bytes after a request's first lines. What the backend reads then is split into lines and
// names as laxly as any server does, and must tell of the caller what the forward says, once, and nothing else.
func FuzzRequest(f *testing.F) {
	for _, h := range forged {
		f.Add([]byte(h + "\r\n\r\n"))
		f.Add([]byte("Transfer-Encoding: chunked\r\nTrailer: altsd_peer\r\n\r\n1\r\na\r\n0\r\n" + h + "\r\n\r\n"))
		f.Add([]byte("Content-Length: 0\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n" + h + "\r\n\r\n"))
	}
	f.Add([]byte("Connection: Upgrade\r\nUpgrade: websocket\r\nAltsd-Peer : a\r\n\r\n"))
	f.Add([]byte("A: b\rAltsd-Peer: a\r\n\r\n"))
	f.Fuzz(func(t *testing.T, rest []byte) {
		var heads []string
		var mu sync.Mutex
		s := New(Config{Service: "web", Dial: func(context.Context) (net.Conn, error) {
			here, there := net.Pipe()
			go func() {
				defer there.Close()
				var head strings.Builder
				for r := bufio.NewReader(there); !strings.HasSuffix(head.String(), "\r\n\r\n"); {
					b, err := r.ReadByte()
					if err != nil {
						return
					}
					head.WriteByte(b)
				}
				mu.Lock()
				heads = append(heads, head.String())
				mu.Unlock()
				go io.Copy(io.Discard, there)
				io.WriteString(there, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
			}()
			return here, nil
		}})
		defer s.Close()
		peer, served := net.Pipe()
		go func() {
			peer.Write(append([]byte("POST / HTTP/1.1\r\nHost: x\r\n"), rest...))
			peer.Write([]byte("\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
			peer.Close()
		}()
		go io.Copy(io.Discard, peer)
		s.ServeConn(t.Context(), served, caller("altsd-tcp/1:web"))
		mu.Lock()
		defer mu.Unlock()
		for _, head := range heads {
			judge(t, head)
		}
	})
}

func judge(t *testing.T, head string) {
	t.Helper()
	for _, fold := range foldings {
		seen := map[string]string{}
		for _, line := range strings.FieldsFunc(head, func(r rune) bool { return r == '\r' || r == '\n' }) {
			name, value, _ := strings.Cut(line, ":")
			if folded := fold(strings.TrimSpace(name)); strings.HasPrefix(fold(folded), fold("altsd")) {
				seen[folded] += strings.TrimSpace(value)
			}
		}
		for name, value := range identity {
			if seen[fold(name)] != value {
				t.Errorf("%s is %q in %q", name, seen[fold(name)], head)
			}
			delete(seen, fold(name))
		}
		if len(seen) > 0 {
			t.Errorf("%q beside in %q", seen, head)
		}
	}
	if !bytes.HasSuffix([]byte(head), []byte("\r\n\r\n")) {
		t.Errorf("%q has no end", head)
	}
}
