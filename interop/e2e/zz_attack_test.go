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

// E static
func TestZZGroupsStatic(t *testing.T) {
	w := theWorld(t)
	static, _ := testprog.Static()
	for _, n := range []int{300, 3000} {
		var b strings.Builder
		b.WriteString("default in allow\ndefault out allow\n")
		for i := range n { fmt.Fprintf(&b, "allow in %%grp%d x@y.test\n", i) }
		name := fmt.Sprintf("sgroups%d", n)
		flags, err := w.rules(name, b.String(), "")
		if err != nil { t.Fatal(err) }
		d, err := w.machine(name, w.known, testca.Leaf{}, append([]string{"--ca", filepath.Join(w.dir, "known.pem")}, flags...)...)
		if err != nil { t.Fatal(err) }
		d.program = static
		if err := d.start(); err != nil { t.Fatal(err) }
		begin := time.Now()
		addr := w.as(t, bob).listen(t, d, 0)
		got := w.as(t, alice).do(t, order{Op: "call", Socket: w.alpha.socket, Addr: addr, Targets: []string{bob.on(d)}})
		t.Logf("static, %d local groups: %v %s after %v", n, got.Code, got.Text, time.Since(begin))
		d.end()
	}
}

// role 2: names
func TestZZNames(t *testing.T) {
	w := theWorld(t)
	r := w.ruled(t, "zznames", "default in allow\ndefault out allow\ndeny in * %dba@*\ndeny in * *@*  service=6432\n", "deny any * *@banned.test\ndeny any * *@.bad.test\ndeny any * eve@*\n")
	addr := w.as(t, bob).listen(t, r.daemon, 0)
	many := func(last string) (l []string) {
		l = []string{"eve.test"}
		for i := range 300 { l = append(l, fmt.Sprintf("n%d.eve.test", i)) }
		return append(l, last)
	}
	for _, c := range []struct {
		name  string
		hosts []string
		mod   func(*claim)
		want  int // 24 denied, 0 let, -2 anything but 0
	}{
		{"good", []string{"eve.test"}, nil, 0},
		{"several", []string{"eve.test", "banned.test"}, nil, 24},
		{"several, caps", []string{"eve.test", "BANNED.Test"}, nil, 24},
		{"trailing dot", []string{"eve.test", "banned.test."}, nil, 24},
		{"below bad", []string{"eve.test", "x.y.BAD.test."}, nil, 24},
		{"bad itself", []string{"eve.test", "bad.test"}, nil, 0},
		{"not below", []string{"eve.test", "xbad.test"}, nil, 0},
		{"wildcard of bad", []string{"eve.test", "*.bad.test"}, nil, 24},
		{"wildcard of test", []string{"eve.test", "*.test"}, nil, 0},
		{"hidden last of 300", many("banned.test"), nil, 24},
		{"300 good", many("fine.test"), nil, 0},
		{"long", []string{"eve.test", long(20)}, nil, 0},
		{"two dots", []string{"eve.test", "banned.test.."}, nil, -2},
		{"under a name it has by wildcard", []string{"*.eve.test"}, machine1("x.eve.test"), -2},
		{"star machine", []string{"eve.test", "*.bad.test"}, machine1("*.bad.test"), -2},
		{"caps machine", []string{"eve.test", "banned.test"}, machine1("BANNED.test"), -2},
		{"dot machine", []string{"eve.test", "banned.test."}, machine1("banned.test."), -2},
		{"speaks as fine of two", []string{"fine.test", "banned.test"}, machine1("fine.test"), 24},
		{"account eve", []string{"eve.test"}, account1("eve"), 24},
		{"account Eve", []string{"eve.test"}, account1("Eve"), -2},
		{"account eve@x", []string{"eve.test"}, account1("eve@ad"), -2},
		{"account *", []string{"eve.test"}, account1("*"), -2},
		{"account =", []string{"eve.test"}, account1("="), -2},
		{"group dba", []string{"eve.test"}, attribute("groups", "dba"), 24},
		{"group dbas", []string{"eve.test"}, attribute("groups", "dbas"), 0},
		{"group %25dba", []string{"eve.test"}, attribute("groups", "%25dba"), 0},
		{"group *", []string{"eve.test"}, attribute("groups", "%2A"), 0},
		{"group DBA", []string{"eve.test"}, attribute("groups", "DBA"), -2},
		{"group %64ba", []string{"eve.test"}, attribute("groups", "%64ba"), -2},
		{"IP-like", []string{"eve.test", "10.0.0.1"}, machine1("10.0.0.1"), -2},
	} {
		cl := w.goodClaim(t)
		cl.issue(w.known, testca.Leaf{Hosts: c.hosts})
		if c.mod != nil { c.mod(cl) }
		mark := r.mark()
		o := cl.rogue().dial(addr)
		ok := o.code == c.want || c.want == -2 && o.code != 0
		_ = mark
		t.Logf("%-32s code %d", c.name, o.code)
		if !ok { t.Errorf("%s: code %d want %d, %v", c.name, o.code, c.want, o.err) }
	}
}

// role 1/2: a denial at each step
func TestZZSteps(t *testing.T) {
	w := theWorld(t)
	r := w.ruled(t, "zzsteps", "default in allow\ndefault out allow\n", "")
	addr := w.as(t, bob).listen(t, r.daemon, 0)
	at := w.as(t, bob).do(t, order{Op: "listen", Socket: r.socket, Altscreds: true})
	for _, a := range []string{addr, at.Addr} {
		for _, pattern := range []string{"eve.test", "mallory@eve.test"} {
			cl := w.goodClaim(t)
			g := cl.rogue()
			g.payload = func(b []byte) []byte {
				begin := time.Now()
				if code, out := r.deny(pattern); code != 0 { t.Error(out) }
				t.Logf("deny took %v", time.Since(begin))
				return b
			}
			o := g.dial(a)
			t.Logf("between 2 and 3: code %d %v key %v", o.code, o.err, o.key != nil)
			if o.code != 24 { t.Errorf("through: %+v", o) }
			r.deny("--remove", pattern)
			if o := w.goodClaim(t).rogue().dial(a); o.code != 0 { t.Errorf("lifted: %d %v", o.code, o.err) }
		}
	}
	// as a client: denied between message 3 and the status
	for _, alts := range []bool{false, true} {
		cl := w.goodClaim(t)
		g := cl.rogue()
		n := 0
		laddr, done := func() (string, <-chan outcome) {
			g.send = func(typ byte, f []byte) []byte {
				if typ == frameStatus {
					n++
					if code, out := r.deny("eve.test"); code != 0 { t.Error(out) }
				}
				return f
			}
			return g.listen(t)
		}()
		got := w.as(t, alice).do(t, order{Op: "call", Socket: r.socket, Addr: laddr, Targets: []string{"mallory@eve.test"}, Altscreds: alts})
		o := <-done
		t.Logf("before status: %v %s; rogue %+v %d", got.Code, got.Text, o.got3, n)
		if got.Code != codes.PermissionDenied || n != 1 || !strings.Contains(got.Text, "denied_by_policy") { t.Errorf("through") }
		// and now before message 3
		l2, done2 := w.goodClaim(t).rogue().listen(t)
		got = w.as(t, alice).do(t, order{Op: "call", Socket: r.socket, Addr: l2, Targets: []string{"mallory@eve.test"}, Altscreds: alts})
		o = <-done2
		if got.Code != codes.PermissionDenied || o.got3 || o.identity != nil { t.Errorf("message 3 went out: %+v", o) }
		r.deny("--remove", "eve.test")
	}
}

// load over a denial: no result after the denial is in force
func TestZZLoad(t *testing.T) {
	w := theWorld(t)
	r := w.ruled(t, "zzload", "default in allow\ndefault out allow\n", "")
	addr := w.as(t, bob).listen(t, r.daemon, 0)
	for i := range 4 {
		w.as(t, poolAccount(i)).do(t, order{Op: "load", Key: t.Name(), N: 3, Socket: w.alpha.socket, Addr: addr, Targets: []string{bob.on(r.daemon)}, Altscreds: i%2 == 0})
	}
	late, n := time.Duration(0), 0
	for range 10 {
		time.Sleep(300 * time.Millisecond)
		mark := len(strings.Split(r.said(), "\n"))
		code, out := r.deny("alpha.test")
		if code != 0 { t.Fatal(out) }
		time.Sleep(300 * time.Millisecond)
		var when time.Time
		accepted, refused := 0, 0
		for _, line := range strings.Split(r.said(), "\n")[mark-1:] {
			var l struct{ Time time.Time; Msg, Reason, Peer string }
			if json.Unmarshal([]byte(line), &l) != nil { continue }
			if l.Msg == "denied" { when = l.Time }
			if !when.IsZero() && l.Reason == "accepted" { accepted++; late = max(late, l.Time.Sub(when)) }
			if !when.IsZero() && l.Reason == "denied_by_policy" { refused++ }
		}
		n += accepted
		t.Logf("after the denial: %d accepted, %d refused (as logged); latest %v", accepted, refused, late)
		r.deny("--remove", "alpha.test")
	}
	for i := range 4 { w.as(t, poolAccount(i)).do(t, order{Op: "unload", Key: t.Name()}) }
	t.Logf("accepted after: %d, latest %v", n, late)
}
