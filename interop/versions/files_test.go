package versions

import (
	"encoding/asn1"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// steps is the way of a machine that upgrades, rolls back and upgrades again.
func steps(t testing.TB) []*release {
	was, is := releases(t)
	return []*release{was, is, was, is}
}

// config writes a file with every option of a command in the last release, and the files that it names. What it must not have
// with others stands there as a remark.
func (s *site) config(command string) (path string) {
	s.t.Helper()
	text, err := os.ReadFile("testdata/" + command + ".conf")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, o := range option.FindAllStringSubmatch(run(s.t, "", last.Get(s.t).program, command, "--help").out, -1) {
		if name := o[1]; name != "config" && name != "check" && !regexp.MustCompile(`(?m)^(# )?`+name+`( *=|$)`).Match(text) {
			s.t.Errorf("testdata/%s.conf does not have the last release's %s", command, name)
		}
	}
	leaf := testca.MustIssue(s.t, s.ca, testca.Leaf{Hosts: []string{"a.test"}, UnknownEKUs: []asn1.ObjectIdentifier{{1, 3, 6, 1, 4, 1, 32473, 1, 1}}})
	s.write("a.test.pem", leaf.PEM())
	s.write("list.crl", testca.MustCRL(s.t, s.ca, nil, testca.CRLOptions{}))
	s.write("other.pem", testca.MustCA(s.t, testca.Options{}).PEM())
	s.write("policy/10-site.policy", []byte(everyRule))
	for _, dir := range []string{"state", "lists", "run", "a.test.denied/denied.d"} {
		if err := os.MkdirAll(s.path(dir), 0o700); err != nil {
			s.t.Fatal(err)
		}
	}
	return s.write(command+".conf", []byte(strings.NewReplacer("DIR", s.dir, "UID", uid).Replace(string(text))))
}

// TestConfig: a file with every option of the last release serves both releases alike, one after the other, on one state
// directory and by one policy.
func TestConfig(t *testing.T) {
	s := newSite(t)
	m := &machine{site: s, name: "a.test", socket: s.path("a.test.sock"), flags: []string{"serve", "--config", s.config("serve")}}
	program := application{today.Get(t), false}
	for _, r := range steps(t) {
		if o := run(t, "", r.program, "check", "--config", s.path("serve.conf")); o.code != 0 {
			t.Errorf("%s: %v", r.name, o)
		}
		m.start(r)
		if got := program.call(m, m, program.serve(m)); got.Failed != 0 {
			t.Errorf("%s: %+v", r.name, got)
		}
		if o := m.tell(r, "status"); o.code != 0 || !strings.Contains(o.out, "rules, enforcing") || !strings.Contains(o.out, "keeps what is refused now") {
			t.Errorf("%s: %v", r.name, o)
		}
		if line := m.process.Log.All()[0]; !strings.HasPrefix(line, "{") {
			t.Errorf("%s logs %s, and not JSON", r.name, line)
		}
	}
}

// TestConfigOfOthers: the files of the other commands.
func TestConfigOfOthers(t *testing.T) {
	for _, test := range []struct {
		command string
		args    []string
		code    int
	}{
		{"listen", []string{"--check"}, 0},
		{"connect", []string{"--", "true"}, 0},
		{"resolve", []string{"a.test"}, 1}, // it asks, and nobody answers
	} {
		s := newSite(t)
		config := s.config(test.command)
		s.machine("a.test").start(today.Get(t))
		for _, r := range both(t) {
			if o := run(t, "", r.program, append([]string{test.command, "--config", config}, test.args...)...); o.code != test.code {
				t.Errorf("%s of %s: %v", test.command, r.name, o)
			}
		}
	}
}

// everyRule has each kind of line that docs/policy.md knows.
const everyRule = `# of the last release
define   compute  .cn.example.com n1.example.com
define   people   alice bob
default  in   deny
default  out  allow
mode     enforcing
deny     any  *         *@login2.hpc.example.com    # one machine
deny     in   nobody    *@*
allow    any  *         =@.hpc.example.com
allow    in   *         *@.test
allow    in   %root     $people@$compute
allow    in   postgres  %dba@.login.example.com     service=6432
allow    in   billing   web@.prod.example.com       eku=1.3.6.1.4.1.32473.1.1
allow    in   ledger    %domain%20users@.office.example.com  ca="CN=Office CA,O=Example"
`

// TestRule69Denied: each release reads alike what the other's policy and denials say.
func TestRule69Denied(t *testing.T) {
	s := newSite(t)
	policy := filepath.Dir(s.write("policy/10-site.policy", []byte(everyRule)))
	m := s.machine("a.test")
	deny := func(r *release, args ...string) {
		t.Helper()
		if o := run(t, "", r.program, append([]string{"deny", "--socket", m.socket, "--denied", s.path("a.test.denied")}, args...)...); o.code != 0 {
			t.Errorf("%s denies %v: %v", r.name, args, o)
		}
	}
	cert := s.write("stolen.pem", testca.MustIssue(t, s.ca, testca.Leaf{Hosts: []string{"b.test"}}).CertPEM)
	for i, r := range steps(t) {
		m.start(r)
		deny(r, fmt.Sprintf("mallory%d@n1.example.com", i))
		deny(r, "--cert", cert, "--reason", fmt.Sprintf("INC %d", i), "--direction", "in")
		m.stop()
		for _, reads := range both(t) {
			for j := range i + 1 {
				o := run(t, "", reads.program, "policy", "test", "--denied", s.path("a.test.denied"), "--policy", policy, fmt.Sprintf("mallory%d@n1.example.com", j), me())
				if o.code != 1 || !strings.Contains(o.out, "denied.policy") {
					t.Errorf("%s does not read what %s denied: %v", reads.name, r.name, o)
				}
			}
		}
	}
	for _, question := range [][]string{{"--in", "alice@n1.example.com", "root"}, {"--in", "eve@n1.example.com", "root"}, {"x@login2.hpc.example.com", "root"},
		{"root@login1.hpc.example.com", "root"}, {"--in", "bob@login1.hpc.example.com", "root"}, {"--service", "6432", "--group", "dba", "--in", "x@a.login.example.com", "postgres"},
		{"--in", "--condition", "eku=1.3.6.1.4.1.32473.1.1", "web@a.prod.example.com", "billing"}, {"--in", "web@a.prod.example.com", "billing"}} {
		var said [2]outcome
		for i, r := range both(t) {
			said[i] = run(t, "", r.program, append([]string{"policy", "--policy", policy, "--denied", s.path("a.test.denied"), "--local-group", "root", "test"}, question...)...)
		}
		if said[0] != said[1] || said[0].code > 1 {
			t.Errorf("%v: the last release says %v and today %v", question, said[0], said[1])
		}
	}
}

// TestRule69Marks: what one release remembers of the newest revocation list holds with the other as well, both ways.
func TestRule69Marks(t *testing.T) {
	s := newSite(t)
	if err := os.Mkdir(s.path("state"), 0o700); err != nil {
		t.Fatal(err)
	}
	list := func(number int64) {
		s.write("list.crl", testca.MustCRL(t, s.ca, nil, testca.CRLOptions{Number: big.NewInt(number)}))
	}
	m := s.machine("a.test", "--state-dir", s.path("state"), "--crl", s.path("list.crl"))
	program := application{today.Get(t), false}
	for i, r := range steps(t) {
		number := int64(10 + 10*i)
		list(number)
		m.start(r)
		if got := program.call(m, m, program.serve(m)); got.Failed != 0 {
			t.Fatalf("%s with list %d: %+v", r.name, number, got)
		}
		m.stop()
		// An older list in its place is refused by both.
		list(number - 5)
		for _, next := range both(t) {
			m.start(next)
			if got := program.call(m, m, program.serve(m)); got.Failed != 1 {
				t.Errorf("%s had list %d, and %s takes list %d: %+v", r.name, number, next.name, number-5, got)
			}
			m.stop()
		}
	}
}

// TestFetched: what one release has fetched is known to the other, which does not fetch it again.
func TestFetched(t *testing.T) {
	s := newSite(t)
	list := testca.MustCRL(t, s.ca, nil, testca.CRLOptions{})
	var whole, unchanged atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"one"`)
		if r.Header.Get("If-None-Match") == `"one"` {
			unchanged.Add(1)
			w.WriteHeader(http.StatusNotModified)
			return
		}
		whole.Add(1)
		w.Write(list)
	}))
	defer server.Close()
	config := s.config("serve")
	for i, r := range steps(t) {
		if o := run(t, "", r.program, "fetch-crl", "--config", config, "--url", server.URL+"/ca.crl", "--into", s.path("lists")); o.code != 0 {
			t.Errorf("step %d, %s: %v", i, r.name, o)
		}
	}
	if whole.Load() != 1 || unchanged.Load() != 3 {
		t.Errorf("the list was sent %d times, and not sent %d times: one release does not know what the other fetched", whole.Load(), unchanged.Load())
	}
	m := s.machine("a.test", "--crl", s.path("lists")+"/")
	for _, r := range both(t) {
		m.start(r)
		if o := m.tell(r, "status"); o.code != 0 || !strings.Contains(o.out, s.path("lists")) {
			t.Errorf("%s: %v", r.name, o)
		}
	}
}
