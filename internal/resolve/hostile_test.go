package resolve

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// A server answers each question by packets and, by TCP, by bytes. It is what no resolver should be.
type server struct {
	udp func(q *dnsmessage.Message) [][]byte
	tcp func(q *dnsmessage.Message) []byte // nil to close the connection at once
}

// start runs it at both protocols, and returns a Resolver that asks it.
func (s *server) start(t *testing.T) *Resolver {
	t.Helper()
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close(); l.Close() })
	go func() {
		for buf := make([]byte, maxUDP); ; {
			n, from, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			var q dnsmessage.Message
			if err := q.Unpack(buf[:n]); err != nil {
				t.Errorf("the question: %v", err)
			}
			for _, b := range s.udp(&q) {
				p.WriteTo(b, from)
			}
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(testprog.Patience))
				var size [2]byte
				io.ReadFull(c, size[:])
				msg := make([]byte, binary.BigEndian.Uint16(size[:]))
				if _, err := io.ReadFull(c, msg); err != nil || s.tcp == nil {
					return
				}
				var q dnsmessage.Message
				if err := q.Unpack(msg); err != nil {
					t.Errorf("the question: %v", err)
				}
				c.Write(s.tcp(&q))
				io.Copy(io.Discard, c)
			}()
		}
	}()
	r := New(netip.MustParseAddrPort("127.0.0.1:53"), slog.New(slog.DiscardHandler))
	r.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if address != r.addr.String() {
			return nil, errors.New("another address: " + address)
		}
		at := p.LocalAddr().String()
		if network == "tcp" {
			at = l.Addr().String()
		}
		return new(net.Dialer).DialContext(ctx, network, at)
	}
	return r
}

// answer returns a verified answer to q with one record, changed by changes.
func answer(q *dnsmessage.Message, changes ...func(*dnsmessage.Message)) []byte {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: q.ID, Response: true, RecursionAvailable: true, RecursionDesired: true, AuthenticData: true},
		Questions: q.Questions, Answers: []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Questions[0].Name, Type: typeTLSA, Class: dnsmessage.ClassINET, TTL: 60},
			Body:   &dnsmessage.UnknownResource{Type: typeTLSA, Data: []byte{3, 1, 1, 7}}}}}
	for _, change := range changes {
		change(&m)
	}
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

func alter(h func(m *dnsmessage.Message)) func(q *dnsmessage.Message) [][]byte {
	return func(q *dnsmessage.Message) [][]byte { return [][]byte{answer(q, h)} }
}

// Only a whole answer to this very question counts, by UDP and by TCP; what else comes is passed over until the right one does.
func TestRule59Answers(t *testing.T) {
	name := func(s string) dnsmessage.Name { return dnsmessage.MustNewName(s) }
	truncated := func(m *dnsmessage.Message) { m.Truncated, m.Answers = true, nil }
	withSize := func(b []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...) }
	opt := func(code dnsmessage.RCode, options ...dnsmessage.Option) func(*dnsmessage.Message) {
		return func(m *dnsmessage.Message) {
			var h dnsmessage.ResourceHeader
			h.SetEDNS0(1232, code, true)
			m.Additionals = append(m.Additionals, dnsmessage.Resource{Header: h, Body: &dnsmessage.OPTResource{Options: options}})
		}
	}
	for _, tt := range []struct {
		name    string
		udp     func(q *dnsmessage.Message) [][]byte
		tcp     func(q *dnsmessage.Message) []byte
		outcome Outcome
		detail  string
	}{
		{"good", alter(func(*dnsmessage.Message) {}), nil, Secure, ""},
		{"forgeries before", func(q *dnsmessage.Message) [][]byte {
			forged := func(m *dnsmessage.Message) {
				m.Answers[0].Body = &dnsmessage.UnknownResource{Type: typeTLSA, Data: []byte{3, 1, 1, 66}}
			}
			return [][]byte{nil, {1}, []byte("GET / HTTP/1.1"), bytes.Repeat([]byte{0xff}, 1000),
				answer(q, forged, func(m *dnsmessage.Message) { m.ID++ }), answer(q, forged, func(m *dnsmessage.Message) { m.Response = false }),
				answer(q, forged, func(m *dnsmessage.Message) { m.OpCode = 4 }), answer(q, forged, func(m *dnsmessage.Message) { m.Questions = nil }),
				answer(q, forged, func(m *dnsmessage.Message) { m.Questions = append(m.Questions, m.Questions...) }),
				answer(q, forged, func(m *dnsmessage.Message) {
					m.Questions = []dnsmessage.Question{{Name: name("_shared-alts.beta.example.com."), Type: typeTLSA, Class: dnsmessage.ClassINET}}
				}),
				answer(q, forged, func(m *dnsmessage.Message) {
					m.Questions = []dnsmessage.Question{{Name: m.Questions[0].Name, Type: dnsmessage.TypeTXT, Class: dnsmessage.ClassINET}}
				}),
				answer(q)}
		}, nil, Secure, ""},
		{"without AD", alter(func(m *dnsmessage.Message) { m.AuthenticData = false }), nil, Unsigned, ""},
		{"nothing, without AD", alter(func(m *dnsmessage.Message) { m.AuthenticData, m.Answers = false, nil }), nil, Unsigned, ""},
		{"no such name, without AD", alter(func(m *dnsmessage.Message) {
			m.AuthenticData, m.Answers, m.RCode = false, nil, dnsmessage.RCodeNameError
		}), nil, Unsigned, ""},
		{"no such name, with records", alter(func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeNameError }), nil, Malformed, "does not exist"},
		{"SERVFAIL with AD and records", alter(func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeServerFailure }), nil, Bogus, "SERVFAIL"},
		{"REFUSED", alter(func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeRefused }), nil, Malformed, "code RCodeRefused"},
		{"an extended code", alter(opt(16)), nil, Malformed, "code 16"},
		{"an extended error", func(q *dnsmessage.Message) [][]byte {
			return [][]byte{answer(q, func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeServerFailure },
				opt(0, dnsmessage.Option{Code: 10, Data: []byte("cookie")}, dnsmessage.Option{Code: optionEDE, Data: []byte("\x00\x07over\n\x00")},
					dnsmessage.Option{Code: optionEDE, Data: []byte("\x00\x16second")}))}
		}, nil, Bogus, "SERVFAIL, signature expired: over?"},
		{"what is over", alter(opt(0, dnsmessage.Option{Code: optionEDE, Data: []byte("\x00\x03")})), nil, Silent, "stale answer"},
		{"what is over, said last", alter(opt(0, dnsmessage.Option{Code: optionEDE, Data: []byte("\x00\x16")},
			dnsmessage.Option{Code: optionEDE, Data: []byte("\x00\x13")})), nil, Silent, "no authority reachable"},
		{"an extended error of one byte", alter(opt(0, dnsmessage.Option{Code: optionEDE, Data: []byte{0}})), nil, Secure, ""},
		{"two OPT records", alter(func(m *dnsmessage.Message) { opt(0)(m); opt(0)(m) }), nil, Malformed, "two OPT"},
		{"records of another name", alter(func(m *dnsmessage.Message) { m.Answers[0].Header.Name = name("_shared-alts.beta.example.com.") }), nil, Absent, ""},
		{"records of another class", alter(func(m *dnsmessage.Message) { m.Answers[0].Header.Class = dnsmessage.ClassCHAOS }), nil, Absent, ""},
		{"an alias of two", alter(func(m *dnsmessage.Message) {
			for _, to := range []string{"a.", "b."} {
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET},
					Body: &dnsmessage.CNAMEResource{CNAME: name(to)}})
			}
		}), nil, Malformed, "alias of two"},
		{"records without end", alter(func(m *dnsmessage.Message) {
			for range 3000 {
				m.Answers = append(m.Answers, m.Answers[0])
			}
		}), nil, Malformed, "more than 16 records"},
		{"aliases without end", alter(func(m *dnsmessage.Message) {
			for i := range 1000 {
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: name(fmt.Sprint("a", i, ".")), Class: dnsmessage.ClassINET},
					Body: &dnsmessage.CNAMEResource{CNAME: m.Questions[0].Name}})
			}
		}), nil, Malformed, "more than 8 aliases"},
		{"an alias of itself", alter(func(m *dnsmessage.Message) {
			m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET},
				Body: &dnsmessage.CNAMEResource{CNAME: m.Questions[0].Name}}}
		}), nil, Malformed, "more than 8 aliases"},
		{"a body that is cut", func(q *dnsmessage.Message) [][]byte { b := answer(q); return [][]byte{b[:len(b)-1]} }, nil, Malformed, ""},
		{"a long answer", alter(truncated), func(q *dnsmessage.Message) []byte { return withSize(answer(q)) }, Secure, ""},
		{"a long answer that nobody has", alter(truncated), nil, Silent, "by TCP"},
		{"a long answer of another id", alter(truncated), func(q *dnsmessage.Message) []byte {
			return withSize(answer(q, func(m *dnsmessage.Message) { m.ID++ }))
		}, Silent, "another question"},
		{"a long answer that is truncated again", alter(truncated), func(q *dnsmessage.Message) []byte { return withSize(answer(q, truncated)) }, Silent, "cut short"},
	} {
		a := (&server{tt.udp, tt.tcp}).start(t).Lookup(t.Context(), "alpha.example.com")
		b, err := ParseAnswer(a.Marshal())
		if err != nil || b.Outcome != tt.outcome || !strings.Contains(b.Detail, tt.detail) || b.Outcome == Secure && shown(b) != "3 1 1 07" {
			t.Errorf("%s: %+v, %v, want %v, %q", tt.name, b, err, tt.outcome, tt.detail)
		}
	}
}

// A question asks for recursion and DNSSEC, checked, and each has its own id and port.
func TestQuestions(t *testing.T) {
	var mu sync.Mutex
	ids, questions := map[uint16]bool{}, 0
	s := &server{udp: func(q *dnsmessage.Message) [][]byte {
		mu.Lock()
		defer mu.Unlock()
		ids[q.ID] = true
		questions++
		if !q.RecursionDesired || q.CheckingDisabled || q.Response || len(q.Questions) != 1 || len(q.Additionals) != 1 {
			t.Errorf("%+v", q)
		} else if h := q.Additionals[0].Header; h.Type != dnsmessage.TypeOPT || !h.DNSSECAllowed() || h.Class != payload {
			t.Errorf("%+v", h)
		}
		return [][]byte{answer(q)}
	}}
	r := s.start(t)
	for range 20 {
		r.Lookup(t.Context(), "alpha.example.com")
	}
	mu.Lock()
	defer mu.Unlock()
	if questions != 20 || len(ids) < 15 {
		t.Errorf("%d questions with %d ids", questions, len(ids))
	}
}

// Who does not answer is asked three times, and is given up in time; who is asked again may answer then.
func TestSilence(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	s := &server{udp: func(q *dnsmessage.Message) [][]byte {
		if asked.Add(1) == 2 {
			return [][]byte{answer(q)}
		}
		return nil
	}}
	r := s.start(t)
	if a := r.Lookup(t.Context(), "alpha.example.com"); a.Outcome != Secure {
		t.Errorf("at the second time: %+v", a)
	}
	if a := r.Lookup(t.Context(), "alpha.example.com"); a.Outcome != Silent || !strings.Contains(a.Detail, "within 5s") {
		t.Errorf("%+v", a)
	}
	if want := int32(2 + 1 + len(retries)); asked.Load() != want {
		t.Errorf("asked %d times, want %d", asked.Load(), want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if a := r.Lookup(ctx, "alpha.example.com"); a.Outcome != Silent {
		t.Errorf("given up: %+v", a)
	}
	// Who floods with packets that are none is given up too.
	flood := &server{udp: func(q *dnsmessage.Message) (all [][]byte) {
		for range 3 * maxPackets {
			all = append(all, []byte{1})
		}
		return all
	}}
	if a := flood.start(t).Lookup(t.Context(), "alpha.example.com"); a.Outcome != Silent {
		t.Errorf("a flood: %+v", a)
	}
}

// A resolver is believed at loopback, at a port that only root may take, if an administrator names it or vouches for it.
func TestRule59Resolver(t *testing.T) {
	conf := func(text string) string {
		return testprog.Write(t, filepath.Join(t.TempDir(), "resolv.conf"), []byte(text))
	}
	parse := func(v string) netip.AddrPort {
		addr, err := ParseResolver(v)
		if err != nil {
			t.Fatal(err)
		}
		return addr
	}
	for _, tt := range []struct{ given, conf, want, err string }{
		{"127.0.0.1", "", "127.0.0.1:53", ""},
		{"127.0.0.53:53", "", "127.0.0.53:53", ""},
		{"::1", "", "[::1]:53", ""},
		{"[::1]", "", "[::1]:53", ""},
		{"[::1]:853", "", "[::1]:853", ""},
		{"::ffff:127.0.0.1", "", "127.0.0.1:53", ""},
		{"127.0.0.12", "nameserver 127.0.0.53\noptions trust-ad\n", "127.0.0.12:53", ""}, // the flag wins
		{"127.0.0.11", "", "", "docker's"},
		{"", "nameserver 127.0.0.11\noptions edns0 trust-ad ndots:0\n", "", "passes on what others say"},
		{"", "nameserver 127.0.0.54\noptions trust-ad\n", "", "systemd-resolved's is 127.0.0.53"},
		{"192.0.2.1", "", "", "not at an address of loopback"},
		{"0.0.0.0", "", "", "not at an address of loopback"},
		{"2001:db8::1", "", "", "not at an address of loopback"},
		{"127.0.0.1:0", "", "", "has no port"},
		{"127.0.0.1:1024", "", "", "every account of this machine may take port 1024"},
		{"127.0.0.1:5353", "", "", "sysctl net.ipv4.ip_unprivileged_port_start=1024"},
		{"", "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n", "127.0.0.53:53", ""},
		{"", "# x\n\n options  trust-ad\nnameserver\t::1 # us\n", "[::1]:53", ""},
		{"", "options trust-ad\nnameserver 127.0.0.1\nnameserver 192.0.2.1\n", "127.0.0.1:53", ""},
		{"", "options trust-ad\nnameserver 192.0.2.1\nnameserver 127.0.0.1\n", "", "not at an address of loopback"},
		{"", "nameserver 192.0.2.1\n", "", "not at an address of loopback"},
		{"", "nameserver 127.0.0.1\noptions ndots:0\n", "", "does not say that its nameserver 127.0.0.1 validates (options trust-ad)"},
		{"", "nameserver 127.0.0.1\n# options trust-ad\n", "", "options trust-ad"},
		{"", "nameserver 127.0.0.1\noptions no-trust-ad\n", "", "options trust-ad"},
		{"", "nameserver localhost\noptions trust-ad\n", "", "is no address"},
		{"", "options trust-ad\n", "", "it names no resolver"},
		{"", "", "", "it names no resolver"},
		{"", strings.Repeat("#", 2*maxConf) + "\nnameserver 127.0.0.1\noptions trust-ad\n", "", "token too long"},
	} {
		var given netip.AddrPort
		if tt.given != "" {
			given = parse(tt.given)
		}
		addr, err := Choose(given, conf(tt.conf))
		if tt.err == "" && (err != nil || addr.String() != tt.want) || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%q, %.60q: %v, %v, want %q, %q", tt.given, tt.conf, addr, err, tt.want, tt.err)
		}
	}
	open := conf("nameserver 127.0.0.1\noptions trust-ad\n")
	if err := os.Chmod(open, 0o646); err != nil {
		t.Fatal(err)
	}
	if _, err := Choose(netip.AddrPort{}, open); err == nil || !strings.Contains(err.Error(), "chmod go-w") {
		t.Errorf("a file that everybody may write: %v", err)
	}
	for _, v := range []string{"", "localhost", "127.0.0.1:", "127.0.0.1:99999", "[127.0.0.1", "unix:/x", "127.1"} {
		if addr, err := ParseResolver(v); err == nil {
			t.Errorf("%q is %v", v, addr)
		}
	}
	if _, err := Choose(netip.AddrPort{}, "/nowhere/resolv.conf"); err == nil || !strings.Contains(err.Error(), "name one by --resolver") {
		t.Errorf("no file: %v", err)
	}
	if _, err := Choose(netip.MustParseAddrPort("[fe80::1%lo]:53"), ""); err == nil {
		t.Error("an address of a link")
	}
}

// The right to ports under 1024 may be everybody's, from the start or later: then nothing is believed.
func TestRule59Ports(t *testing.T) {
	was := portStart
	defer func() { portStart = was }()
	r := (&server{udp: alter(func(*dnsmessage.Message) {})}).start(t)
	if a := r.Lookup(t.Context(), "alpha.example.com"); a.Outcome != Secure {
		t.Errorf("%+v", a)
	}
	for text, want := range map[string]string{"0\n": "every account of this machine may take port 53", "53": "port 53", "x": "invalid syntax", "": "invalid syntax"} {
		portStart = filepath.Join(t.TempDir(), "start")
		if err := os.WriteFile(portStart, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Choose(r.addr, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
		if a := r.Lookup(t.Context(), "alpha.example.com"); a.Outcome != Unsigned || len(a.Records) > 0 || !strings.Contains(a.Detail, want) {
			t.Errorf("%q: %+v", text, a)
		}
	}
	portStart = "/nowhere"
	if _, err := Choose(r.addr, ""); err == nil {
		t.Error("what the kernel says cannot be read, and it is believed")
	}
}

// How the resolver is is known from the first probe on, and a change of it is told.
func TestProbe(t *testing.T) {
	root := func(m *dnsmessage.Message) {
		m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Type: dnsmessage.TypeNS, Class: dnsmessage.ClassINET, TTL: 60},
			Body: &dnsmessage.NSResource{NS: dnsmessage.MustNewName("ns.root.")}}}
	}
	for _, tt := range []struct {
		name    string
		changes []func(*dnsmessage.Message)
		want    Outcome
		log     string
	}{
		{"validates", []func(*dnsmessage.Message){root}, Secure, "the resolver validates"},
		{"does not", []func(*dnsmessage.Message){root, func(m *dnsmessage.Message) { m.AuthenticData = false }}, Unsigned, "DNSSEC=yes"},
		{"says nothing", []func(*dnsmessage.Message){func(m *dnsmessage.Message) { m.Answers = nil }}, Malformed, "does not answer as it should"},
		{"cannot", []func(*dnsmessage.Message){func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeServerFailure }}, Bogus, "outcome=bogus"},
	} {
		r := (&server{udp: func(q *dnsmessage.Message) [][]byte {
			if q.Questions[0].Type != dnsmessage.TypeNS || q.Questions[0].Name.String() != "." {
				t.Errorf("asked %v", q.Questions)
			}
			return [][]byte{answer(q, tt.changes...)}
		}}).start(t)
		log := new(testprog.Log)
		r.log = slog.New(slog.NewTextHandler(log, nil))
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.Watch(ctx)
		}()
		p, err := ParseProbe(r.Handle(t.Context(), ProbeRequest())) // waits for the first one
		if err != nil || p.Outcome != tt.want || !p.Since.Equal(p.Last) || p.Resolver != "127.0.0.1:53" || !strings.Contains(log.String(), tt.log) {
			t.Errorf("%s: %+v, %v\n%s", tt.name, p, err, log)
		}
		stop()
		<-done
	}
	r := New(netip.MustParseAddrPort("127.0.0.1:53"), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if b := r.Handle(ctx, ProbeRequest()); b != nil {
		t.Errorf("before the first probe: %q", b)
	}
	if b := r.Handle(t.Context(), []byte("x")); b != nil {
		t.Errorf("no request: %q", b)
	}
}

// Whatever a resolver sends, reading it ends; what is verified is so only with AD.
func FuzzReply(f *testing.F) {
	q, err := newQuestion(certbind.TLSAOwner("alpha.example.com"), typeTLSA, 1)
	if err != nil {
		f.Fatal(err)
	}
	asked := &dnsmessage.Message{Header: dnsmessage.Header{ID: 1}, Questions: []dnsmessage.Question{q.Question}}
	f.Add(answer(asked))
	f.Add(answer(asked, func(m *dnsmessage.Message) {
		var h dnsmessage.ResourceHeader
		h.SetEDNS0(1232, 0, true)
		m.RCode, m.Answers = dnsmessage.RCodeNameError, nil
		m.Authorities = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: 9},
			Body: &dnsmessage.SOAResource{NS: q.Name, MBox: q.Name, MinTTL: 5}}}
		m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{Options: []dnsmessage.Option{{Code: optionEDE, Data: []byte("\x00\x06x")}}}}}
	}))
	f.Add(answer(asked, func(m *dnsmessage.Message) {
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET},
			Body: &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName("x.")}})
	}))
	f.Fuzz(func(t *testing.T, msg []byte) {
		is, _ := q.answeredBy(msg)
		got, err := q.read(msg)
		if err != nil {
			return
		}
		if got.ttl < 0 || got.ttl > MaxTTL {
			t.Errorf("for %v", got.ttl)
		}
		a := judge(got)
		if is && (a.Outcome == Secure) && (msg[3]&0x20 == 0 || msg[3]&0x0f != 0 && msg[3]&0x0f != 3) {
			t.Errorf("%x is verified", msg)
		}
		if _, err := ParseAnswer((&Answer{Outcome: Bogus, Detail: got.why}).Marshal()); err != nil {
			t.Error(err)
		}
	})
}

func FuzzResolvConf(f *testing.F) {
	f.Add("nameserver 127.0.0.53\noptions edns0 trust-ad\n")
	f.Add("options trust-ad\nnameserver ::1%lo")
	f.Fuzz(func(t *testing.T, text string) {
		addr, err := readConf(strings.NewReader(text))
		if err == nil && addr.Addr().IsLoopback() && !strings.Contains(text, "trust-ad") {
			t.Errorf("%q is believed: %v", text, addr)
		}
	})
}
