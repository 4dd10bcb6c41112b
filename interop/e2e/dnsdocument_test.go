package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testdns"
	"github.com/shared-altsd/shared-altsd/internal/testdoc"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

const dnsDocument = "../../docs/dns.md"

// What docs/dns.md says that goes wrong is what the tests provoke.
func TestDNSDocumentRefusals(t *testing.T) {
	var b strings.Builder
	b.WriteString("| what is wrong | reason | the text of the daemon that refuses holds |\n|---|---|---|\n")
	for _, r := range dnsRefusals {
		fmt.Fprintf(&b, "| %s | `%s` | %s |\n", r.what, r.code, r.says)
	}
	for _, r := range dnsFailures {
		fmt.Fprintf(&b, "| %s | `%s` | %s |\n", r.what, r.code, r.says)
	}
	if anew := b.String(); testprog.Table(t, dnsDocument, "refusals", anew, *update) != anew {
		t.Errorf("%s is out of date; go test ./interop/e2e -run Document -update", dnsDocument)
	}
}

// A dnsRecipe is the commands of docs/dns.md, by the comments above them.
type dnsRecipe struct {
	dw    *dnsWorld
	dir   string
	steps map[string]string
	taken map[string]bool
	paths *strings.Replacer
}

func (dw *dnsWorld) recipe(dir string, paths ...string) *dnsRecipe {
	dw.t.Helper()
	r := &dnsRecipe{dw: dw, dir: dir, steps: map[string]string{}, taken: map[string]bool{}}
	name, fresh := "", true
	for line := range strings.Lines(strings.Join(testdoc.Blocks(dw.t, "docs/dns.md", "TestDNSDocument"), "\n")) {
		code, isCode := line, strings.TrimSpace(line) != ""
		if comment, found := strings.CutPrefix(code, "# "); isCode && fresh && found {
			name = strings.TrimSpace(comment)
		} else if isCode && name != "" {
			r.steps[name] += code
		} else if strings.TrimSpace(line) != "" {
			name = ""
		}
		fresh = !isCode
	}
	bin := filepath.Join(r.dir, "bin")
	for _, place := range []string{"bin", "etc/knot", "etc/unbound/unbound.conf.d", "etc/unbound", "var/lib/knot", "run/knot", "run/shared-altsd-resolve"} {
		if err := os.MkdirAll(filepath.Join(dir, place), 0o755); err != nil {
			dw.t.Fatal(err)
		}
		paths = append(paths, "/"+place+"/", filepath.Join(dir, place)+"/")
	}
	for name, script := range map[string]string{"hostname": "echo a.hpc.example.com", "chgrp": ":"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			dw.t.Fatal(err)
		}
	}
	if err := os.Symlink(dw.program, filepath.Join(bin, "shared-altsd")); err != nil {
		dw.t.Fatal(err)
	}
	r.paths = strings.NewReplacer(append(paths, "rundir: /run/knot", "rundir: "+filepath.Join(dir, "run/knot"), "storage: /var/lib/knot",
		"storage: "+filepath.Join(dir, "var/lib/knot"), "directory: /etc/unbound", "directory: "+filepath.Join(dir, "etc/unbound"))...)
	return r
}

// command returns one that runs a step, in the network of the servers.
func (r *dnsRecipe) command(step string) *exec.Cmd {
	r.dw.t.Helper()
	script, found := r.steps[step]
	if !found {
		r.dw.t.Fatalf("%s has no commands under %q", dnsDocument, step)
	}
	r.taken[step] = true
	return r.shell(script)
}

func (r *dnsRecipe) shell(script string) *exec.Cmd {
	cmd := exec.Command("bash", "-e", "-o", "pipefail", "-c", "H=a.hpc.example.com\n"+r.paths.Replace(script))
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(r.dir, "bin")+":/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin:/bin")
	return cmd
}

// run runs a step to its end, which must be a good one, and returns what it prints.
func (r *dnsRecipe) run(step string) string { r.dw.t.Helper(); return r.do(r.command(step)) }

func (r *dnsRecipe) do(cmd *exec.Cmd) (out string) {
	r.dw.t.Helper()
	if err := r.dw.Do(func() error {
		b, err := cmd.CombinedOutput()
		out = string(b)
		return err
	}); err != nil {
		r.dw.t.Fatalf("%s\n%v\n%s", cmd.Args[len(cmd.Args)-1], err, out)
	}
	return out
}

// serve runs a step that does not end, until the test does.
func (r *dnsRecipe) serve(cmd *exec.Cmd, ready func() bool) {
	r.dw.t.Helper()
	p, err := r.dw.Start(cmd)
	if err != nil {
		r.dw.t.Fatal(err)
	}
	r.dw.t.Cleanup(func() {
		p.Kill()
		if r.dw.t.Failed() {
			r.dw.t.Logf("%s\n%s", cmd.Args[len(cmd.Args)-1], p.Log)
		}
	})
	for end := time.Now().Add(testprog.Patience); !ready(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			r.dw.t.Fatalf("%s\nis not ready", cmd.Args[len(cmd.Args)-1])
		}
	}
}

// The commands of docs/dns.md do what it says: a zone on Knot, a resolver that has its key, a machine with a key of its own that
// publishes it, changes it, and one of the first shared-altsd that changes over.
func TestDNSDocument(t *testing.T) {
	t.Parallel()
	dw := newDNSWorld(t, testdns.Zone{Name: "good.example"})
	const server, resolver = "127.0.0.5", "127.0.0.6"
	dir := testprog.Dir(t)
	socket, companion := filepath.Join(dir, "socket"), filepath.Join(dir, "run/shared-altsd-resolve/socket")
	r := dw.recipe(dir, "192.0.2.53", server, "shared-altsd resolve --resolver 127.0.0.1 --socket", "exec shared-altsd resolve --resolver "+resolver+" --socket",
		"--resolver 127.0.0.1", "--resolver "+resolver, "shared-altsd serve", "exec shared-altsd serve --socket "+socket+" --resolver-socket "+companion,
		"shared-altsd check", "shared-altsd check --resolver-socket "+companion)
	says := func(out string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("no %q in %s", w, out)
			}
		}
	}
	exists := func(path string) func() bool { return func() bool { _, err := os.Stat(path); return err == nil } }
	answers := func(address string) func() bool {
		return func() bool {
			ask := exec.Command("dig", "+short", "+time=1", "+tries=1", "@"+address, "a.hpc.example.com", "A")
			return dw.Do(func() error { out, err := ask.Output(); return errors.Join(err, found(string(out), "192.0.2.1")) }) == nil
		}
	}
	check := func(file string) string {
		t.Helper()
		out := ""
		// What the resolver keeps of a record that is gone is over first.
		for end := time.Now().Add(testprog.Patience); !strings.Contains(out, "would accept this machine") && time.Now().Before(end); time.Sleep(time.Second) {
			r.do(r.shell("unbound-control -c /etc/unbound/unbound.conf flush_zone hpc.example.com"))
			out = r.do(r.shell("shared-altsd check --credentials " + file + " --ca hpc.example.com=dane || true"))
		}
		return out
	}

	r.run("on the name server: the zone")
	r.run("on the name server: a key for the machine a, which alone may change its record")
	r.run("on the name server: its configuration")
	r.serve(r.shell("exec knotd -c /etc/knot/knot.conf"), answers(server))
	says(r.run("on the name server, once it runs: what the parent zone needs"), "hpc.example.com. DS ")
	r.run("on each machine, where the zone's own key is the anchor: the resolver")
	r.do(r.shell(`keymgr -c /etc/knot/knot.conf hpc.example.com dnskey > /etc/unbound/hpc.key
cat > /etc/unbound/unbound.conf <<END
server:
    interface: ` + resolver + `
    directory: /etc/unbound
    pidfile: ""
    username: ""
    chroot: ""
    use-syslog: no
    do-not-query-localhost: no
    root-hints: ` + dw.Hints() + `
    trust-anchor-file: ` + dw.Anchor() + `
remote-control:
    control-enable: yes
    control-use-cert: no
    control-interface: /etc/unbound/control
include: /etc/unbound/unbound.conf.d/*.conf
END`))
	r.serve(r.shell("exec unbound -d -c /etc/unbound/unbound.conf"), answers(resolver))
	r.serve(r.command("on each machine: the companion"), exists(companion))

	r.run("on each machine: key and certificate")
	record := r.run("on each machine: what belongs into the zone")
	says(record, "\n_shared-alts.a.hpc.example.com. 3600 IN TLSA 3 1 1 ")
	r.run("on that machine: publish")
	says(strings.ToLower(r.run("on each machine: what DNS says")), strings.Fields(record)[len(strings.Fields(record))-1])
	r.serve(r.command("on each machine: the daemon"), exists(socket))
	says(r.run("on each machine: would a peer accept it?"), "vouches for this machine", "a peer with the same --ca would accept")
	r.run("on that machine: a new key, beside the old one")
	says(check("machine.pem"), "vouches for this machine", "of another certificate or key", "would accept this machine")
	r.run("on that machine, when all have seen it")
	says(check("machine.pem"), "vouches for this machine", "of another certificate or key", "would accept this machine")
	serial := strings.TrimPrefix(strings.TrimSpace(r.do(r.shell("openssl x509 -in next.pem -noout -serial"))), "serial=")
	for end := time.Now().Add(testprog.Patience); !strings.Contains(dw.shown("status", "--socket", socket), "serial "+strings.TrimLeft(strings.ToLower(serial), "0")); time.Sleep(time.Second) {
		if time.Now().After(end) {
			t.Fatalf("the daemon does not take the new key: %s", dw.shown("status", "--socket", socket))
		}
	}
	r.run("on that machine, when status shows the new certificate")
	if out := check("machine.pem"); strings.Contains(out, "of another") || !strings.Contains(out, "would accept this machine") {
		t.Errorf("at the end check says %s", out)
	}

	// As the first shared-altsd's instructions had its key and certificate made, and as its zones have it.
	r.do(r.shell(`openssl req -x509 -newkey rsa:4096 -noenc -subj "/CN=$H" -days 3650 -keyout old.key -out old.crt
cat old.key old.crt > old.pem
chmod 0600 old.pem
(echo server 192.0.2.53; shared-altsd tlsa --credentials old.pem --selector 0 --format nsupdate --replace) | nsupdate -k a.key`))
	says(check("old.pem"), "3 0 1", "would accept this machine as a.hpc.example.com")
	says(r.run("on a machine of the first shared-altsd: the file as it is"), "would accept this machine as a.hpc.example.com")
	r.run("on that machine: the same key, in a certificate with the machine's name where it belongs")
	both := r.run("on that machine: the records to have beside the old one")
	says(both, "3 1 1", "3 0 1")
	r.do(r.shell(`(echo server 192.0.2.53; shared-altsd tlsa --credentials new.pem --format nsupdate;
shared-altsd tlsa --credentials new.pem --selector 0 --format nsupdate) | nsupdate -k a.key`))
	says(check("new.pem"), "names     a.hpc.example.com", "3 1 1", "would accept this machine")
	says(check("old.pem"), "3 1 1", "would accept this machine")
	for step := range r.steps {
		if !r.taken[step] {
			t.Errorf("%s has %q, which was not run", dnsDocument, step)
		}
	}
}

// found is an error if text does not have the part.
func found(text, part string) error {
	if !strings.Contains(text, part) {
		return fmt.Errorf("no %s in %q", part, text)
	}
	return nil
}
