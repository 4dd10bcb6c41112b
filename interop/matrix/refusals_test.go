package matrix

import (
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shared-altsd/shared-altsd/internal/testnet"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// A refusalCase is one that each library's user sees in its own way.
type refusalCase struct {
	name string
	// slow: it takes a deadline's time, and is part of make interop-all alone.
	slow bool
	// ended: the client's daemon has ended since the client was started.
	ended    bool
	client   func(w *world) *daemon
	server   func(t *testing.T, w *world) (address string)
	accounts func(w *world, k *kind) string
	// not says which libraries do not come that far.
	not func(*kind) bool
	// says is in the error of every library, but Envoy, which hides all.
	says string
}

func serverIn(machine func(*world) *daemon) func(t *testing.T, w *world) string {
	return func(t *testing.T, w *world) string { return serverOn(t, w, goOwn, machine(w)) }
}

func alpha(w *world) *daemon { return w.alpha }
func beta(w *world) *daemon  { return w.beta }
func gamma(w *world) *daemon { return w.gamma }
func delta(w *world) *daemon { return w.delta }

// serverAt returns the right target on a machine.
func serverAt(machine func(*world) *daemon) func(*world, *kind) string {
	return func(w *world, _ *kind) string { return w.server.on(machine(w)) }
}

// judgesAccounts: the library tells its daemon no accounts, or none that are not of their form.
func judgesAccounts(k *kind) bool { return k.machinesOnly || k.comparesItself || k == goOwn }

var refusalCases = []refusalCase{
	{name: "the server is another account", client: alpha, server: serverIn(beta), says: "(target_mismatch)",
		accounts: func(w *world, k *kind) string { return k.wrongTarget(w) }},
	{name: "no account named, and the server's machine has not the name that was dialled", client: alpha, server: serverIn(beta),
		says: "(target_mismatch)", accounts: func(*world, *kind) string { return "" }},
	{name: "this machine does not trust the server's CA", client: alpha, server: serverIn(gamma), says: "(unknown_ca)",
		accounts: serverAt(gamma)},
	{name: "the server's machine does not trust this one's CA", client: gamma, server: serverIn(beta), says: "(unknown_ca)",
		accounts: serverAt(beta)},
	{name: "the server's certificate has expired", client: alpha, server: serverIn(delta), says: "(own_certificate)",
		accounts: serverAt(delta)},
	{name: "this machine's certificate has expired", client: delta, server: serverIn(beta), says: "(own_certificate)",
		accounts: serverAt(beta)},
	{name: "the application names an account without a machine", not: judgesAccounts, client: alpha, server: serverIn(beta),
		says: "(bad_request)", accounts: func(w *world, _ *kind) string { return w.server.name }},
	{name: "this machine's daemon has ended", ended: true, client: alpha, server: serverIn(beta), accounts: serverAt(beta)},
	{name: "the server speaks TLS", client: alpha, server: tlsServer, says: "(malformed)", accounts: serverAt(beta)},
	{name: "the server hangs up", client: alpha, server: func(t *testing.T, w *world) string {
		return strangeServer(t, func(c net.Conn) { c.Read(make([]byte, 8)) })
	}, accounts: serverAt(beta)},
	{name: "the server is silent", slow: true, client: alpha, server: func(t *testing.T, w *world) string {
		return strangeServer(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	}, accounts: serverAt(beta)},
	{name: "the server goes on when the daemon's time is over", slow: true, client: alpha, says: "(timed_out)",
		server: func(t *testing.T, w *world) string {
			return strangeServer(t, func(c net.Conn) {
				c.Read(make([]byte, 64<<10))
				io.WriteString(c, "salt\x01\x02\x08\x00 a beginning")
				time.Sleep(12 * time.Second)
				io.WriteString(c, " and no end")
				io.Copy(io.Discard, c)
			})
		}, accounts: serverAt(beta)},
}

// strangeServer is a server that is no server of gRPC.
func strangeServer(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go testnet.ServeEach(l, serve)
	return l.Addr().String()
}

// tlsServer answers as servers of TLS do who read all that came: by the alert that the version is not one of theirs.
func tlsServer(t *testing.T, w *world) string {
	t.Helper()
	return strangeServer(t, func(c net.Conn) {
		c.Read(make([]byte, 64<<10))
		c.Write([]byte{21, 3, 1, 0, 2, 2, 70})
		c.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, c)
	})
}

// seen is what the user of a library sees of a refusal.
type seen struct {
	what string // the case's name
	kind string
	code codes.Code
	text string
	time string
}

// TestRefusals has the users of all libraries see the same refusals, and docs/refusals.md say what they see.
func TestRefusals(t *testing.T) {
	w := theWorld(t)
	for _, k := range kinds() {
		k.need(t, w)
	}
	var mu sync.Mutex
	var all []seen
	t.Run("cases", func(t *testing.T) {
		for _, c := range refusalCases {
			if c.slow && !everything {
				continue
			}
			t.Run(c.name, func(t *testing.T) {
				if c.slow {
					t.Parallel()
				}
				address := c.server(t, w)
				for _, k := range kinds() {
					if c.not != nil && c.not(k) {
						continue
					}
					t.Run(k.name, func(t *testing.T) {
						t.Parallel()
						s := c.see(t, w, k, address)
						mu.Lock()
						defer mu.Unlock()
						all = append(all, s)
					})
				}
			})
		}
	})
	var rows []seen
	for _, c := range refusalCases {
		for _, k := range kinds() {
			for _, s := range all {
				if s.what == c.name && s.kind == k.name {
					rows = append(rows, s)
				}
			}
		}
	}
	compareRefusals(t, rows)
}

// see has a client of the kind call.
func (c *refusalCase) see(t *testing.T, w *world, k *kind, address string) seen {
	t.Helper()
	d, accounts := c.client(w), c.accounts(w, k)
	if k.comparesItself && accounts != "" {
		d = d.forEnvoy(t, w)
	} else if c.ended {
		d = d.variant(t)
	}
	p := clientOf(t, w, k, d, address, accounts)
	if c.ended {
		p.Ask("new") // so that it has begun
		if err := d.run.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	var answer string
	took := testprog.Patience
	told := func() bool { return k.comparesItself || strings.Contains(answer, c.says) }
	for range 3 { // the quickest counts, as in refused; and gRPC 1.51 may have failed to connect (cpp/peer.cc)
		begun := time.Now()
		answer = p.Ask("greet")
		if took = min(took, time.Since(begun)); c.slow || took < refusalTime && told() {
			break
		}
		p.Ask("new")
	}
	s := seen{what: c.name, kind: k.name, time: class(took)}
	code, text, _ := strings.Cut(strings.TrimPrefix(answer, "error "), " ")
	if _, err := fmt.Sscan(code, &s.code); !strings.HasPrefix(answer, "error ") || err != nil {
		t.Errorf("%q is no error", answer)
	}
	if !told() {
		t.Errorf("%q does not say %q", answer, c.says)
	}
	s.text = w.general(text)
	return s
}

// class returns a time as a user notices it: the deadline that ended it, if one did.
func class(d time.Duration) string {
	for _, deadline := range []time.Duration{60 * time.Second, 20 * time.Second, 10 * time.Second, 5 * time.Second} {
		if d > deadline-100*time.Millisecond {
			return fmt.Sprintf("%.0f s", deadline.Seconds())
		}
	}
	return "at once"
}

var particular = []struct {
	text *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`handshake [0-9a-f]{8,}`), "handshake ID"},
	{regexp.MustCompile(`127\.0\.0\.1(:|%3A)\d+`), "ADDRESS"},
	{regexp.MustCompile(`(/127\.0\.0\.1|\[::1\]|localhost/127\.0\.0\.1):\d+`), "ADDRESS"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\dZ?`), "TIME"},
	{regexp.MustCompile(`\b\d+(\.\d+)?(s| seconds)\b`), "N s"},
	{regexp.MustCompile(`=\d+(ns)?\b`), "=N"},
	{regexp.MustCompile(`DIR/\S*socket`), "SOCKET"},
	// Which end of a connection notices first is chance.
	{regexp.MustCompile(`(local|remote) connection failure`), "local (or remote) connection failure"},
	{regexp.MustCompile(`code = Unavailable desc = (write|read|connection|error)(\\"|[^"])*`), "code = Unavailable desc = (how the connection ended)"},
	{regexp.MustCompile(`shared-altsd: (this machine's|the peer's) daemon refused: .* \(\w+\)(; handshake ID)?`), "shared-altsd: $1 daemon refused: TEXT"},
}

// general takes out of an error what is of this run alone.
func (w *world) general(text string) string {
	text = strings.NewReplacer(w.dir, "DIR", w.caller.on(w.alpha), "alice@alpha.example.com", w.caller.on(w.gamma), "alice@gamma.example.com",
		w.server.on(w.beta), "greeter@beta.example.com", w.other+"@beta.test", "bob@beta.example.com",
		".test", ".example.com", w.server.name+"@", "greeter@", w.caller.name+"@", "alice@").Replace(text)
	for _, p := range particular {
		text = p.text.ReplaceAllString(text, p.with)
	}
	return text
}

func (s seen) row() string {
	return fmt.Sprintf("%v | %s | %s", s.code, strings.ReplaceAll(s.text, "|", `\|`), s.time)
}
