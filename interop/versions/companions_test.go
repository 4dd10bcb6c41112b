package versions

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testdns"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// TestSigner: the signer of each release signs for the daemon of the other.
func TestSigner(t *testing.T) {
	was, is := releases(t)
	for _, pair := range [][2]*release{{was, is}, {is, was}, {was, was}} {
		signs, serves := pair[0], pair[1]
		s := newSite(t)
		leaf := testca.MustIssue(t, s.ca, testca.Leaf{Hosts: []string{"a.test"}})
		key, certificates := s.write("key.pem", leaf.KeyPEM), s.write("chain.pem", leaf.CertPEM)
		if o := run(t, "", signs.signer, "check", "--key", "file:"+key, "--certificates", certificates); o.code != 0 {
			t.Errorf("check of %s: %v", signs.name, o)
		}
		p, err := testprog.Start(exec.Command(signs.signer, "serve", "--key", "file:"+key, "--certificates", certificates,
			"--client", uid, "--socket", s.path("signer.sock")))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Kill)
		m := s.machine("a.test", "--key", "signer:"+s.path("signer.sock"), "--credentials", certificates)
		m.flags = without(m.flags, "--credentials", s.path("a.test.pem"))
		m.start(serves)
		program := application{is, false}
		if r := program.call(m, m, program.serve(m)); r.Failed != 0 || r.Peer != m.account() {
			t.Errorf("signer of %s, daemon of %s: %+v\n%s", signs.name, serves.name, r, p.Log)
		}
		m.stop()
	}
}

// without leaves the first place out at which the words stand in a row.
func without(list []string, a, b string) (rest []string) {
	for i := 0; i < len(list); i++ {
		if i+1 < len(list) && list[i] == a && list[i+1] == b {
			return append(rest, list[i+2:]...)
		}
		rest = append(rest, list[i])
	}
	return rest
}

// TestResolve: the companion of each release asks DNS for the daemon of the other.
func TestResolve(t *testing.T) {
	const account = 54343 // of the companion
	d := testdns.New(t, testdns.Zone{Name: "good.example"})
	was, is := releases(t)
	for _, pair := range [][2]*release{{was, is}, {is, was}} {
		asks, serves := pair[0], pair[1]
		s := newSite(t)
		a, b := s.machine("a.good.example"), s.machine("b.good.example")
		var records []string
		for _, m := range []*machine{a, b} {
			leaf := testca.MustIssue(t, s.ca, testca.Leaf{Hosts: []string{m.name}, SelfSigned: true})
			s.write(m.name+".pem", leaf.PEM())
			o := run(t, "", serves.program, "tlsa", "--credentials", s.path(m.name+".pem"))
			record, ok := last1(o.out)
			if o.code != 0 || !ok {
				t.Fatal(o)
			}
			records = append(records, record)
			m.flags = append(without(m.flags, "--ca", s.path("ca.pem")), "--ca", "good.example=dane", "--resolver-socket", s.path("run/socket"))
		}
		d.Set(t, "good.example", testdns.Signed, records...)
		d.Flush(t)
		if err := errors.Join(os.Mkdir(s.path("run"), 0o755), os.Chown(s.path("run"), account, account)); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(copied(t, s, asks.program), "resolve", "--resolver", testdns.Resolver, "--socket", s.path("run/socket"), "--client", uid)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: account, Gid: account}}
		p, err := d.Start(cmd)
		if err == nil {
			_, err = p.Told.WaitText(0, "READY=1")
		}
		if err != nil {
			t.Fatalf("the companion of %s: %v", asks.name, err)
		}
		t.Cleanup(p.Kill)
		a.start(serves)
		b.start(serves)
		program := application{is, false}
		if r := program.call(a, b, program.serve(b)); r.Failed != 0 || r.Peer != b.account() || r.SeenAs != a.account() {
			t.Errorf("resolve of %s, daemons of %s: %+v\n%s", asks.name, serves.name, r, p.Log)
		}
		if o := a.tell(is, "status"); o.code != 0 || !strings.Contains(o.out, "good.example") {
			t.Errorf("resolve of %s, daemon of %s: %v", asks.name, serves.name, o)
		}
		a.stop()
		b.stop()
		p.Kill()
	}
}

// last1 returns the last line that is neither empty nor a comment.
func last1(text string) (line string, ok bool) {
	for l := range strings.Lines(text) {
		if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, ";") {
			line, ok = l, true
		}
	}
	return line, ok
}

// copied puts a program where every account may run it: the cache is in its owner's home.
func copied(t *testing.T, s *site, program string) string {
	t.Helper()
	b, err := os.ReadFile(program)
	path := s.path("copied-" + filepath.Base(program))
	if err := errors.Join(err, os.WriteFile(path, b, 0o755)); err != nil {
		t.Fatal(err)
	}
	return path
}
