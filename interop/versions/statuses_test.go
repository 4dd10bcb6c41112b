package versions

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// A trial makes a command end with a status that docs/upgrade.md has.
type trial struct {
	command string // with its program, where that is not shared-altsd
	status  int
	args    []string
}

// TestExitStatuses: each command has a row in the table of docs/upgrade.md, and ends by each status of that row, and by 2 for a
// mistake on the command line, in the last release as well.
func TestExitStatuses(t *testing.T) {
	was, is := releases(t)
	page, err := os.ReadFile(root + "/docs/upgrade.md")
	if err != nil {
		t.Fatal(err)
	}
	promised := map[string][]int{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z -]+)` \\|(.*)$").FindAllStringSubmatch(string(page), -1) {
		for _, status := range regexp.MustCompile(`\b([0-9]+) `).FindAllStringSubmatch(row[2], -1) {
			n, _ := strconv.Atoi(status[1])
			promised[row[1]] = append(promised[row[1]], n)
		}
	}
	s := newSite(t)
	m := s.machine("a.test").start(was)
	expired := s.write("expired.pem", testca.MustIssue(t, s.ca, testca.Leaf{Hosts: []string{"a.test"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}).PEM())
	leaf := testca.MustIssue(t, s.ca, testca.Leaf{Hosts: []string{"a.test"}})
	key, chain, denied := s.write("key.pem", leaf.KeyPEM), s.write("chain.pem", leaf.CertPEM), s.path("a.test.denied")
	s.write("policy/a.policy", []byte("allow in * *@a.test\n"))
	if err := os.Mkdir(s.path("lists"), 0o755); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	socket := []string{"--socket", m.socket}
	none := []string{"--socket", s.path("none")}
	with := func(list []string, more ...string) []string { return append(slices.Clone(list), more...) }
	trials := []trial{
		{"serve", 1, []string{"--credentials", s.path("none"), "--ca", s.path("ca.pem")}},
		{"check", 0, []string{"--credentials", s.path("a.test.pem"), "--ca", s.path("ca.pem")}},
		{"check", 1, []string{"--credentials", expired, "--ca", s.path("ca.pem")}},
		{"tlsa", 0, []string{"--credentials", s.path("a.test.pem")}},
		{"tlsa", 1, []string{"--credentials", s.path("none")}},
		{"status", 0, socket}, {"status", 1, none},
		{"reload", 0, socket}, {"reload", 1, none},
		{"fetch-crl", 0, []string{"--ca", s.path("ca.pem"), "--extract", s.path("a.test.pem"), "--certificates", s.path("extracted")}},
		{"fetch-crl", 1, []string{"--ca", s.path("ca.pem"), "--url", "http://127.0.0.1:1/none", "--into", s.path("lists")}},
		{"deny", 0, with(socket, "--denied", denied, "mallory@b.test")}, {"deny", 1, with(socket, "--denied", denied, "--remove", "nobody@c.test")},
		{"policy", 0, []string{"--policy", s.path("policy"), "--denied", denied, "test", "--in", "x@a.test", me()}},
		{"policy", 1, []string{"--policy", s.path("policy"), "--denied", denied, "test", "--in", "x@b.test", me()}},
		{"whoami", 0, socket}, {"whoami", 1, none},
		{"ping", 1, with(socket, "127.0.0.1:1")}, {"pong", 1, with(none, "127.0.0.1:0")},
		{"dev-ca", 0, []string{s.path("dev-RELEASE"), "a.test"}}, {"dev-ca", 1, []string{s.path("ca.pem") + "/x", "a.test"}},
		{"exec", 7, with(socket, "--", "sh", "-c", "exit 7")}, {"exec", 125, with(none, "--", "true")},
		{"exec", 126, with(socket, "--", "/etc")}, {"exec", 127, with(socket, "--", s.path("none"))},
		{"connect", 1, with(none, "x@a.test:1")}, {"connect", 7, with(socket, "--listen", "unix:x", "x@a.test:1", "--", "sh", "-c", "exit 7")},
		{"connect", 125, with(none, "--listen", "unix:x", "x@a.test:1", "--", "true")},
		{"connect", 126, with(socket, "--listen", "unix:x", "x@a.test:1", "--", "/etc")},
		{"connect", 127, with(socket, "--listen", "unix:x", "x@a.test:1", "--", s.path("none"))},
		{"listen", 1, with(socket, "--listen", taken.Addr().String(), "--allow", "*@a.test", "--service", "x", "--", "cat")},
		{"resolve", 1, []string{"--resolver", "127.99.0.9", "a.test"}},
		{"man", 0, nil}, {"completion", 0, []string{"bash"}},
		{"signer check", 0, []string{"--key", "file:" + key, "--certificates", chain}}, {"signer check", 1, []string{"--key", "file:" + key, "--certificates", expired}},
		{"signer serve", 1, []string{"--key", "file:" + key, "--certificates", expired, "--socket", s.path("signer.sock")}},
		{"signer request", 0, []string{"--key", "file:" + key, "a.test"}}, {"signer request", 1, []string{"--key", "file:" + s.path("none"), "a.test"}},
		{"signer man", 0, nil},
	}
	// By other tests of this folder: serve, listen and signer serve end with 0 where they are stopped, ping and pong where they did well,
	// connect where both ends were said; resolve in TestResolve of cmd/shared-altsd, demo in its own tests.
	elsewhere := map[string][]int{"serve": {0}, "listen": {0}, "signer serve": {0}, "ping": {0}, "pong": {0}, "connect": {0}, "resolve": {0}, "demo": {0, 1}}
	tried := map[string][]int{}
	for _, r := range both(t) {
		for _, c := range commands(t, r.program) {
			trials = append(trials, trial{c, 2, []string{"--no-such-flag"}})
		}
		for _, c := range commands(t, r.signer) {
			trials = append(trials, trial{"signer " + c, 2, []string{"--no-such-flag"}})
		}
	}
	for _, x := range trials {
		if promised[x.command] == nil {
			t.Errorf("docs/upgrade.md says nothing of the exit status of %s", x.command)
		}
		for _, r := range []*release{was, is} {
			program, command := r.program, x.command
			if name, signer := strings.CutPrefix(command, "signer "); signer {
				program, command = r.signer, name
			}
			args := []string{command}
			for _, arg := range x.args {
				args = append(args, strings.ReplaceAll(arg, "RELEASE", r.name))
			}
			if o := run(t, "", program, args...); o.code != x.status {
				t.Errorf("%s %v of %s: want exit status %d: %v", x.command, x.args, r.name, x.status, o)
			}
		}
		tried[x.command] = append(tried[x.command], x.status)
	}
	for command, statuses := range promised {
		for _, status := range statuses {
			if !slices.Contains(append(tried[command], elsewhere[command]...), status) {
				t.Errorf("docs/upgrade.md says that %s ends with %d, and no trial does", command, status)
			}
		}
		for _, status := range append(tried[command], elsewhere[command]...) {
			if status != 2 && status != 7 && !slices.Contains(statuses, status) {
				t.Errorf("%s ends with %d, and docs/upgrade.md does not say so", command, status)
			}
		}
	}
	// A stop is no failure.
	p, err := testprog.Start(exec.Command(is.signer, "serve", "--key", "file:"+key, "--certificates", chain, "--socket", s.path("signer.sock")))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	fmt.Printf("| exit statuses of the last release and today: %d trials each\n", len(trials))
}
