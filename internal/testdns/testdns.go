// Package testdns is a DNS of a test's own: a network namespace with a root zone, zones below it that are signed well, badly or not
// at all, Knot DNS that serves them, and Unbound that validates them, both from Debian. Nothing of it outlives the test.
package testdns

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// Where the servers are in the test's network.
const (
	Resolver      = "127.0.0.1:53" // validates
	Careless      = "127.0.0.3:53" // does not validate
	authoritative = "127.0.0.2:53"
)

// A Kind is how a zone is signed.
type Kind int

const (
	Signed      Kind = iota
	Unsigned         // and the root says so
	Expired          // its signatures are over
	NotYet           // they have not begun
	Forged           // its TLSA records were changed after they were signed
	ListedKey        // signed by a key that stands in the zone, for which the root vouches not
	Stripped         // the root says that it is signed, and it is not
	OtherParent      // signed, and the root vouches for another key
)

// A Zone is a zone and what is in it.
type Zone struct {
	Name string // example.com
	Kind Kind
	// Records are lines of a zone file, relative to the zone: "_shared-alts.alpha IN TLSA 3 1 1 ABCD". The TTL is one second but
	// where they say another one.
	Records []string
}

// A DNS is running servers.
type DNS struct {
	Network
	dir      string
	zones    []*zone // the root first
	serial   int
	knot     *testprog.Process
	resolver *testprog.Process
	careless *testprog.Process
	resolved *testprog.Process // nil without StartResolved
}

// Need skips a test without root or the programs.
func Need(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for a network of its own: run make test as root")
	}
	need(t, "knotd", "knotc", "unbound", "unbound-control", "dnssec-signzone", "dnssec-keygen")
}

// need skips a test without these programs.
func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%v: make test, as root, installs it on Debian", err)
		}
	}
}

// New starts servers with these zones, for as long as the test takes.
func New(t testing.TB, zones ...Zone) *DNS {
	t.Helper()
	Need(t)
	d := &DNS{dir: testprog.Dir(t)}
	if err := d.Network.open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, p := range []*testprog.Process{d.resolved, d.careless, d.resolver, d.knot} {
			if p != nil {
				p.Kill()
			}
		}
		if t.Failed() {
			t.Logf("knot:\n%s\nunbound:\n%s", d.knot.Log, d.resolver.Log)
		}
		d.Network.close()
	})
	d.zones = []*zone{{Zone: Zone{Name: "."}, dir: filepath.Join(d.dir, "root")}}
	for _, z := range zones {
		d.zones = append(d.zones, &zone{Zone: z, dir: filepath.Join(d.dir, z.Name)})
	}
	for _, z := range d.zones {
		if err := z.makeKeys(); err != nil {
			t.Fatal(err)
		}
	}
	d.sign(t, d.zones[1:]...) // the root has what comes of it
	d.sign(t, d.zones[0])
	d.configure(t)
	d.StartServer(t)
	d.StartResolver(t)
	d.careless = d.launch(t, Careless, "unbound", "-d", "-c", d.path("careless.conf"))
	return d
}

func (d *DNS) path(name string) string { return filepath.Join(d.dir, name) }

// Set replaces a zone's records and how it is signed, and has the resolvers forget what they know.
func (d *DNS) Set(t testing.TB, name string, kind Kind, records ...string) {
	t.Helper()
	i := slices.IndexFunc(d.zones, func(z *zone) bool { return z.Name == name })
	if i < 1 {
		t.Fatalf("there is no zone %s", name)
	}
	z := d.zones[i]
	delegation := z.delegation()
	z.Kind, z.Records = kind, records
	d.sign(t, z)
	changed := []string{name}
	if z.delegation() != delegation {
		d.sign(t, d.zones[0])
		changed = append(changed, ".")
	}
	d.run(t, append([]string{"knotc", "-s", d.path("knot.sock"), "-b", "zone-reload"}, changed...)...)
	d.Flush(t)
}

// Flush has the resolvers forget what they know.
func (d *DNS) Flush(t testing.TB) {
	t.Helper()
	for _, conf := range []string{"resolver.conf", "careless.conf"} {
		for _, what := range [][]string{{"flush_zone", "."}, {"flush_infra", "all"}} {
			d.run(t, append([]string{"unbound-control", "-c", d.path(conf)}, what...)...)
		}
	}
}

// StopResolver ends the resolver: nobody answers where it was.
func (d *DNS) StopResolver() { d.resolver.Kill() }

// StartResolver starts it again.
func (d *DNS) StartResolver(t testing.TB) {
	t.Helper()
	d.resolver = d.launch(t, Resolver, "unbound", "-d", "-c", d.path("resolver.conf"))
}

// ServeExpired has the resolver answer what is over when it cannot ask (RFC 8767), and say so. It forgets what it knows.
func (d *DNS) ServeExpired(t testing.TB) {
	t.Helper()
	d.StopResolver()
	conf, err := os.ReadFile(d.path("resolver.conf"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, d.path("resolver.conf"), string(conf)+"server:\n    serve-expired: yes\n    ede-serve-expired: yes\n")
	d.StartResolver(t)
}

// StopServer ends the server of the zones: the resolver gets no answer any more.
func (d *DNS) StopServer() { d.knot.Kill() }

// StartServer starts it again.
func (d *DNS) StartServer(t testing.TB) {
	t.Helper()
	d.knot = d.launch(t, authoritative, "knotd", "-c", d.path("knot.conf"))
}

// launch starts a server and returns when it answers at its address.
func (d *DNS) launch(t testing.TB, address string, argv ...string) *testprog.Process {
	t.Helper()
	p, err := d.Start(exec.Command(argv[0], argv[1:]...))
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(testprog.Patience); !d.answers(address); time.Sleep(10 * time.Millisecond) {
		select {
		case <-p.Ended:
			t.Fatalf("%q has ended:\n%s", argv, p.Log)
		default:
		}
		if time.Now().After(end) {
			p.Kill()
			t.Fatalf("%q does not answer:\n%s", argv, p.Log)
		}
	}
	return p
}

// answers reports whether somebody answers a question there.
func (d *DNS) answers(address string) bool {
	q := dnsmessage.Message{Header: dnsmessage.Header{ID: 1, RecursionDesired: true}, Questions: []dnsmessage.Question{
		{Name: dnsmessage.MustNewName("."), Type: dnsmessage.TypeSOA, Class: dnsmessage.ClassINET}}}
	b, err := q.Pack()
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c, err := d.Dial(ctx, "udp", address)
	if err != nil {
		return false
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Second))
	if _, err := c.Write(b); err != nil {
		return false
	}
	n, err := c.Read(make([]byte, 4096))
	return err == nil && n > 0
}

// run runs a command in the network to its end.
func (d *DNS) run(t testing.TB, argv ...string) {
	t.Helper()
	if err := d.Do(func() error { _, err := run("", argv...); return err }); err != nil {
		t.Fatal(err)
	}
}

// run runs a command in a directory and returns what it says.
func run(dir string, argv ...string) (string, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%q: %w\n%s%s", argv, err, out, errs.String())
	}
	return string(out), nil
}

// Hints is the file by which a resolver in the network finds the root, Anchor that by which it trusts it.
func (d *DNS) Hints() string  { return d.path("hints") }
func (d *DNS) Anchor() string { return d.zones[0].keyFile() }

// configure writes what the servers read.
func (d *DNS) configure(t testing.TB) {
	t.Helper()
	host := func(address string) string { h, _, _ := net.SplitHostPort(address); return h }
	var knot strings.Builder
	fmt.Fprintf(&knot, `server:
    listen: %s@53
    rundir: %[2]s
control:
    listen: %[2]s/knot.sock
log:
  - target: stderr
    any: info
database:
    storage: %[2]s/db
template:
  - id: default
    zonefile-load: whole
    journal-content: none
    semantic-checks: off
zone:
`, host(authoritative), d.dir)
	for _, z := range d.zones {
		fmt.Fprintf(&knot, "  - domain: %s\n    file: %s\n", z.Name, z.served())
	}
	write(t, d.path("knot.conf"), knot.String())
	write(t, d.Hints(), ". 3600 IN NS ns.root.\nns.root. 3600 IN A "+host(authoritative)+"\n")
	for name, address := range map[string]string{"resolver": Resolver, "careless": Careless} {
		modules := "iterator"
		if name == "resolver" {
			modules = "validator iterator"
		}
		write(t, d.path(name+".conf"), fmt.Sprintf(`server:
    interface: %s
    directory: %[2]s
    pidfile: ""
    username: ""
    chroot: ""
    use-syslog: no
    logfile: ""
    do-ip6: no
    do-not-query-localhost: no
    root-hints: %[2]s/hints
    trust-anchor-file: %[3]s
    module-config: %[4]q
    val-log-level: 2
    ede: yes
    num-threads: 1
remote-control:
    control-enable: yes
    control-use-cert: no
    control-interface: %[2]s/%[5]s.sock
`, host(address), d.dir, d.zones[0].keyFile(), modules, name))
	}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
