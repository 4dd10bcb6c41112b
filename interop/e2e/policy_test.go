package e2e

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// A ruled machine is one with rules of its own, for a test that changes them.
type ruled struct {
	*daemon
	t   *testing.T
	dir string // of what is denied; the rules are in policy.d
}

func (w *world) ruled(t *testing.T, name, rules, denied string) *ruled {
	t.Helper()
	flags, err := w.rules(name, rules, denied)
	if err != nil {
		t.Fatal(err)
	}
	return &ruled{w.another(t, name, flags...), t, filepath.Join(w.dir, name+"-rules")}
}

// write puts a file of rules there, and waits until the daemon has said that it took it, or not.
func (r *ruled) write(name, text, said string) {
	r.t.Helper()
	mark := r.mark()
	path := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	testprog.Write(r.t, path, []byte(text))
	r.find(r.t, mark, said, func(l *record) bool { return strings.HasPrefix(l.Msg, said) })
}

// deny runs the command against the daemon.
func (r *ruled) deny(args ...string) (code int, out string) {
	r.t.Helper()
	code, stdout, stderr := testprog.Run(r.t, append([]string{"deny", "--denied", r.dir, "--socket", r.socket}, args...)...)
	return code, stdout + stderr
}

// wants checks what an account of alpha's, calling bob there, is told: "" that it may.
func (r *ruled) wants(when string, p *process, addr, text string) {
	r.t.Helper()
	got := p.do(r.t, order{Op: "call", Socket: r.world.alpha.socket, Addr: addr, Targets: []string{bob.on(r.daemon)}})
	switch {
	case text == "" && got.Code != codes.OK:
		r.t.Errorf("%s: %s is refused: %s", when, p.name, got.Text)
	case text != "":
		r.t.Log(when)
		wantError(r.t, got, codes.PermissionDenied, text, "(denied_by_policy)")
		for _, more := range []string{"policy:", "policy.d", "INC-", "by root", "bob"} {
			if strings.Contains(got.Text, more) {
				r.t.Errorf("%s: the peer learns more than the code: %s", when, got.Text)
			}
		}
	}
}

const byItsRules = "the peer's daemon refused: the rules of its administrator deny it"

// The rules of one machine, over their life: enforced, permissive, wrong, and what is denied before them.
func TestRule48Policy(t *testing.T) {
	w := theWorld(t)
	r := w.ruled(t, "ruled", "default in deny\ndefault out allow\nallow in bob alice@alpha.test service=grpc\n", "")
	addr := w.as(t, bob).listen(t, r.daemon, 0)
	eve := w.as(t, poolAccount(0))
	mark := r.mark()
	r.wants("allowed", w.as(t, alice), addr, "")
	r.wants("by default", eve, addr, byItsRules)
	r.find(t, mark, "the rule that let", func(l *record) bool { return l.Reason == "accepted" && l.Rule == "10-site.policy:3" && l.Would == "" })
	r.find(t, mark, "the default that refused", func(l *record) bool {
		return l.Reason == "denied_by_policy" && l.Rule == "default in" && !l.ByPeer && l.Peer == "user0@alpha.test"
	})

	mark = r.mark()
	r.write("policy.d/20-mode.policy", "mode permissive\ndeny in * user0@.test\n", "reloaded")
	r.wants("permissive", eve, addr, "")
	r.find(t, mark, "what would be refused", func(l *record) bool {
		return l.Reason == "accepted" && l.Rule == "20-mode.policy:2" && l.Would == "denied_by_policy" && l.Level == "WARN"
	})
	code, status, _ := testprog.Run(t, "status", "--socket", r.socket)
	if want := "1 by 20-mode.policy:2"; code != 0 || !strings.Contains(status, want) || !strings.Contains(status, "2 rules, permissive") ||
		!strings.Contains(status, "1: user0@alpha.test -> bob@ruled.test") {
		t.Errorf("status, %d:\n%s", code, status)
	}
	r.write("policy.d/20-mode.policy", "mode permissive\ndeny in * *.test\n", "reload refused")
	r.wants("a mistake leaves the old rules", eve, addr, "")
	if err := os.Remove(filepath.Join(r.dir, "policy.d/20-mode.policy")); err != nil {
		t.Fatal(err)
	}
	r.find(t, mark, "what changed", func(l *record) bool {
		return l.Msg == "reloaded" && strings.Contains(l.Changed, "policy: 1 rules, enforcing (was 2 rules, permissive)")
	})
	r.wants("enforced again", eve, addr, byItsRules)

	// Denied at once, though nothing else can be read any more.
	r.write("policy.d/10-site.policy", "nonsense\n", "reload refused")
	testprog.Write(t, filepath.Join(w.dir, "ruled.pem"), []byte("nonsense"))
	mark = r.mark()
	if code, out := r.deny("alice@alpha.test", "--reason", "INC-1\nand more"); code != 0 || !strings.Contains(out, "in force: 1 denials") {
		t.Errorf("deny, %d: %s", code, out)
	}
	r.wants("denied", w.as(t, alice), addr, byItsRules)
	r.find(t, mark, "who denied", func(l *record) bool {
		return l.Msg == "denied" && strings.Contains(l.Entry, "deny any * alice@alpha.test # by root") && strings.HasSuffix(l.Entry, ": INC-1 and more") &&
			strings.HasPrefix(l.By, "uid 0")
	})
	r.find(t, mark, "the denial", func(l *record) bool {
		return l.Reason == "denied_by_policy" && l.Rule == "denied.policy:2" && strings.Contains(l.Detail, "has denied what would let alice@alpha.test")
	})
	if code, out := r.deny("alice@alpha.test"); code != 0 || !strings.Contains(out, "already") {
		t.Errorf("deny twice, %d: %s", code, out)
	}
	if code, out := r.deny("--list"); code != 0 || strings.Count(out, "\n") != 1 || !strings.HasPrefix(out, "1    deny any * alice@alpha.test") {
		t.Errorf("list, %d: %s", code, out)
	}
	if code, out := r.deny("--remove", "1"); code != 0 || !strings.Contains(out, "removed:  deny any * alice@alpha.test") {
		t.Errorf("remove, %d: %s", code, out)
	}
	r.wants("let again", w.as(t, alice), addr, "")
	if code, out := r.deny("--remove", "alice@alpha.test"); code != 1 || !strings.Contains(out, "nothing like it is denied by") {
		t.Errorf("remove twice, %d: %s", code, out)
	}

	// By each kind of pattern. A denial of what alice is not leaves her alone.
	key := fmt.Sprintf("key=%x", sha256.Sum256(w.certificate(t, "alpha").RawSubjectPublicKeyInfo))
	for _, p := range [][]string{{"alpha.test"}, {".test"}, {"*@.test"}, {key}, {"--cert", filepath.Join(w.dir, "alpha.pem")},
		{"alice@alpha.test", "--direction", "in", "--account", "bob"}} {
		if code, out := r.deny(p...); code != 0 {
			t.Errorf("deny %q, %d: %s", p, code, out)
		}
		r.wants(fmt.Sprintf("by %q", p), w.as(t, alice), addr, byItsRules)
		last := p
		if p[0] != "--cert" {
			last = p[:1]
		}
		if code, out := r.deny(append([]string{"--remove"}, last...)...); code != 0 {
			t.Errorf("remove %q, %d: %s", p, code, out)
		}
	}
	for _, p := range [][]string{{"alice@beta.test"}, {"alice@alpha.test", "--direction", "out"}, {"alice@alpha.test", "--account", "root"}} {
		if code, out := r.deny(p...); code != 0 {
			t.Errorf("deny %q, %d: %s", p, code, out)
		}
	}
	r.wants("others are denied", w.as(t, alice), addr, "")

	// A fleet's file, and one with a mistake, which keeps deny from adding anything.
	r.write("denied.d/fleet.policy", "deny in * *@alpha.test\n", "denied")
	r.wants("by the fleet", w.as(t, alice), addr, byItsRules)
	r.write("denied.d/fleet.policy", "deny in * alpha.test\n", "what is denied was not read")
	r.wants("a mistake lifts nothing", w.as(t, alice), addr, byItsRules)
	before, _ := os.ReadFile(filepath.Join(r.dir, "denied.policy"))
	if code, out := r.deny("x@y.test"); code != 1 || !strings.Contains(out, "fleet.policy:1") {
		t.Errorf("deny beside a mistake, %d: %s", code, out)
	}
	if after, err := os.ReadFile(filepath.Join(r.dir, "denied.policy")); err != nil || string(after) != string(before) {
		t.Errorf("the file is not as it was: %q, %v", after, err)
	}
	code, status, _ = testprog.Run(t, "status", "--socket", r.socket)
	if code != 1 || !strings.Contains(status, "what is denied was not read") || !strings.Contains(status, "fleet.policy:1") {
		t.Errorf("status, %d:\n%s", code, status)
	}
	r.write("denied.d/fleet.policy", "", "denial lifted")
	r.wants("lifted", w.as(t, alice), addr, "")
}

// The client's own machine refuses before the server learns who called.
func TestRule48PolicyOut(t *testing.T) {
	w := theWorld(t)
	r := w.ruled(t, "ruled-out", "default in allow\ndefault out allow\ndeny out alice bob@beta.test\n", "")
	addr := w.as(t, bob).listen(t, w.beta, 0)
	call := func(a account, altscreds bool) report {
		return w.as(t, a).do(t, order{Op: "call", Socket: r.socket, Addr: addr, Targets: []string{"bob@beta.test"}, Altscreds: altscreds})
	}
	for _, altscreds := range []bool{false, true} {
		mark := w.beta.mark()
		wantError(t, call(alice, altscreds), codes.PermissionDenied, "this machine's daemon refused: the rules of this machine do not let alice "+
			"talk to bob@beta.test (out): 10-site.policy:3 (denied_by_policy)")
		l := w.beta.find(t, mark, "the call", func(l *record) bool { return l.Role == "responder" && l.Reason != "accepted" })
		if l != nil && l.Peer != "" {
			t.Errorf("the server learned who called: %+v", l)
		}
		if got := call(poolAccount(0), altscreds); got.Code != codes.OK {
			t.Errorf("another account: %s", got.Text)
		}
	}
	if code, out := r.deny("beta.test", "--direction", "out"); code != 0 {
		t.Errorf("deny, %d: %s", code, out)
	}
	wantError(t, call(poolAccount(0), false), codes.PermissionDenied, "has denied what would let user0 talk to bob@beta.test (out): denied.policy:2")
}

// Who is not root denies nobody, and without a daemon the file is written for the next.
func TestRule48Deny(t *testing.T) {
	w := theWorld(t)
	r := w.ruled(t, "denying", "default in allow\ndefault out allow\n", "")
	addr := w.as(t, bob).listen(t, r.daemon, 0)
	run := func(dir string) string {
		cmd := exec.Command(w.program, "deny", "alice@alpha.test", "--denied", dir, "--socket", r.socket)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: bob.uid, Gid: bob.uid}}
		out, err := cmd.CombinedOutput()
		if err == nil {
			t.Errorf("bob denies in %s: %s", dir, out)
		}
		return string(out)
	}
	if out := run(r.dir); !strings.Contains(out, "only root may deny") {
		t.Errorf("bob's deny: %s", out)
	}
	own := filepath.Join(testprog.Dir(t), "own")
	if err := os.Mkdir(own, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(own, int(bob.uid), int(bob.uid)); err != nil {
		t.Fatal(err)
	}
	if out := run(own); !strings.Contains(out, "only root and the daemon's own account may deny") {
		t.Errorf("bob's deny, of a directory of his: %s", out)
	}
	r.wants("after bob's", w.as(t, alice), addr, "")
	code, stdout, stderr := testprog.Run(t, "deny", "alice@alpha.test", "--denied", r.dir, "--socket", filepath.Join(w.dir, "none.socket"))
	if code != 0 || !strings.Contains(stdout, "no daemon runs here") {
		t.Errorf("without a daemon, %d: %s%s", code, stdout, stderr)
	}
	elsewhere := testprog.Dir(t)
	code, stdout, stderr = testprog.Run(t, "deny", "x@y.test", "--denied", elsewhere, "--socket", r.socket)
	if _, err := os.Lstat(filepath.Join(elsewhere, "denied.policy")); code != 1 || !strings.Contains(stderr, "give --denied "+r.dir) || err == nil {
		t.Errorf("in another directory, %d: %s%s", code, stdout, stderr)
	}
	r.wants("by the daemon's own poll, or by what that read", w.as(t, alice), addr, byItsRules)
}

// certificate returns that of a machine.
func (w *world) certificate(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(w.dir, name+".pem"))
	for block := (*pem.Block)(nil); err == nil; {
		if block, data = pem.Decode(data); block == nil {
			t.Fatal("no certificate")
		}
		if block.Type == "CERTIFICATE" {
			var c *x509.Certificate
			if c, err = x509.ParseCertificate(block.Bytes); err == nil {
				return c
			}
		}
	}
	t.Fatal(err)
	return nil
}
