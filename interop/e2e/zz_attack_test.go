package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

var _ = json.Unmarshal
var _ = os.Stat
var _ = exec.Command
var _ = filepath.Join
var _ = syscall.Kill
var _ = testprog.Path
var _ = codes.OK

func long(n int) string { return strings.Repeat(strings.Repeat("a", 10)+".", n) + "test" }


func counters(t *testing.T, socket string) (acc, ref int) {
	_, out, _ := testprog.Run(t, "status", "--socket", socket)
	for _, l := range strings.Split(out, "\n") {
		if strings.HasPrefix(l, "responder") { fmt.Sscanf(strings.TrimSpace(strings.TrimPrefix(l, "responder")), "%d accepted, %d failed", &acc, &ref) }
	}
	return
}

func TestZZLoad(t *testing.T) {
	w := theWorld(t)
	r := w.ruled(t, "zzload", "default in allow\ndefault out allow\n", "")
	addr := w.as(t, bob).listen(t, r.daemon, 0)
	at := w.as(t, bob).do(t, order{Op: "listen", Socket: r.socket, Altscreds: true})
	for i := range 4 {
		a := addr
		if i > 1 { a = at.Addr }
		w.as(t, poolAccount(i)).do(t, order{Op: "load", Key: t.Name(), N: 3, Socket: w.alpha.socket, Addr: a, Targets: []string{bob.on(r.daemon)}, Altscreds: i%2 == 0})
	}
	for range 8 {
		time.Sleep(300 * time.Millisecond)
		before, _ := counters(t, r.socket)
		pattern := []string{"alpha.test", ".test", "*@alpha.test"}[before%3]
		code, out := r.deny(pattern)
		if code != 0 { t.Fatal(out) }
		a1, r1 := counters(t, r.socket)
		time.Sleep(500 * time.Millisecond)
		a2, r2 := counters(t, r.socket)
		t.Logf("before %d; at the denial's end %d accepted; 0.5 s later %d accepted (+%d), refused +%d", before, a1, a2, a2-a1, r2-r1)
		if a2 != a1 { t.Error("late") }
		r.deny("--remove", pattern)
	}
	for i := range 4 { w.as(t, poolAccount(i)).do(t, order{Op: "unload", Key: t.Name()}) }
}

func TestZZBox(t *testing.T) {
	w := theWorld(t)
	static, _ := testprog.Static()
	socket := filepath.Join(w.dir, "zzbox-box.socket")
	flags, err := w.rules("zzbox", "default in allow\ndefault out allow\ndeny out greeter+ root@*  # secret remark\ndeny out alice root@* # not for the box\ndeny in %video *@*\n", "deny any greeter+ mallory@eve.test # secret\n")
	if err != nil { t.Fatal(err) }
	d, err := w.machine("zzbox", w.known, testca.Leaf{}, append(flags, "--ca", filepath.Join(w.dir, "known.pem"),
		"--socket", fmt.Sprintf("%s,uids=0-%d,account=Greeter+,label=blue", socket, nameless.uid))...)
	if err != nil { t.Fatal(err) }
	d.program, d.etc = static, w.users(t, "zzbox", "passwd: files\ngroup: files\n")
	if err := d.start(); err != nil { t.Fatal(err) }
	run := func(uid uint32, args ...string) string {
		cmd := exec.Command(w.program, args...)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.CombinedOutput()
		return fmt.Sprintf("%v: %s", err, out)
	}
	for _, uid := range []uint32{0, alice.uid, nameless.uid} {
		for _, args := range [][]string{
			{"policy", "test", "root@x.test", "greeter+", "--out"}, {"policy", "test", "root@x.test", "alice", "--out"}, {"policy", "test", "root@x.test", "root", "--out"},
			{"policy", "test", "mallory@eve.test", "greeter+", "--out"},
			{"policy", "test", "root@x.test", "greeter+", "--out", "--local-group", "video"},
			{"deny", "x@y.test", "--denied", filepath.Join(w.dir, "zzbox-rules")}, {"reload"}, {"status"}} {
			out := run(uid, append(args, "--socket", socket)...)
			t.Logf("uid %d %q: %.300s", uid, args, out)
		}
	}
	r := &ruled{d, t, filepath.Join(w.dir, "zzbox-rules")}
	addr := w.as(t, bob).listen(t, w.beta, 0)
	call := func(s string) report { return w.as(t, alice).do(t, order{Op: "call", Socket: s, Addr: addr, Targets: []string{bob.on(w.beta)}}) }
	t.Log(call(socket).Code)
	if code, out := r.deny("beta.test", "--account", "greeter+"); code != 0 { t.Error(out) }
	got := call(socket)
	t.Log(got.Code, got.Text, call(d.socket).Code)
	if got.Code != codes.PermissionDenied { t.Error("through") }
}
