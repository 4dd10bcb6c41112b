package e2e

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// A denial between any two messages is in time, by either local interface: who is denied gets no key, and, before message 3,
// does not learn who called.
func TestRule48AtEachStep(t *testing.T) {
	w := theWorld(t)
	r := w.ruled(t, "denying-late", "default in allow\ndefault out allow\n", "")
	deny := func(args ...string) {
		if code, out := r.deny(args...); code != 0 {
			t.Errorf("deny %q, %d: %s", args, code, out)
		}
	}
	for _, altscreds := range []bool{false, true} {
		addr := w.as(t, bob).do(t, order{Op: "listen", Socket: r.socket, Altscreds: altscreds}).Addr
		for _, pattern := range []string{"eve.test", "mallory@eve.test"} {
			g := w.goodClaim(t).rogue()
			g.payload = func(b []byte) []byte {
				deny(pattern)
				return b
			}
			if o := g.dial(addr); o.code != int(reason.DeniedByPolicy) || o.key != nil {
				t.Errorf("by %s before message 3, altscreds %v: %+v", pattern, altscreds, o)
			}
			deny("--remove", pattern)
		}
		if o := w.goodClaim(t).rogue().dial(addr); o.code != 0 {
			t.Errorf("let again, altscreds %v: %+v", altscreds, o)
		}

		call := func(g *rogue, got3 bool) {
			t.Helper()
			addr, done := g.listen(t)
			got := w.as(t, alice).do(t, order{Op: "call", Socket: r.socket, Addr: addr, Targets: []string{"mallory@eve.test"}, Altscreds: altscreds})
			wantError(t, got, codes.PermissionDenied, "has denied what would let alice talk to mallory@eve.test (out)")
			if o := <-done; o.got3 != got3 || (o.identity != nil) != got3 {
				t.Errorf("altscreds %v: %+v, want message 3: %v", altscreds, o, got3)
			}
		}
		g := w.goodClaim(t).rogue()
		g.send = func(typ byte, f []byte) []byte {
			if typ == frameStatus {
				deny("eve.test")
			}
			return f
		}
		call(g, true)
		call(w.goodClaim(t).rogue(), false)
		deny("--remove", "eve.test")
	}
}

// By which names a peer is denied, whatever else its certificate and its statement say.
func TestRule48NamesOfPeers(t *testing.T) {
	w := theWorld(t)
	r := w.ruled(t, "denying-names", "default in allow\ndefault out allow\ndeny in * %dba@*\n",
		"deny any * *@banned.test\ndeny any * *@.bad.test\ndeny any * eve@*\n")
	addr := w.as(t, bob).listen(t, r.daemon, 0)
	many := []string{"eve.test"}
	for i := range 300 {
		many = append(many, fmt.Sprintf("n%d.eve.test", i))
	}
	for _, c := range []struct {
		hosts  string
		change func(*claim)
		want   reason.Code
	}{
		{"eve.test", nil, reason.Accepted},
		{"eve.test BANNED.Test", nil, reason.DeniedByPolicy},
		{"eve.test banned.test.", nil, reason.DeniedByPolicy},
		{"eve.test x.y.BAD.test.", nil, reason.DeniedByPolicy},
		{"eve.test *.bad.test", nil, reason.DeniedByPolicy},
		{"eve.test bad.test xbad.test bad.test.example", nil, reason.Accepted},
		{"fine.test banned.test", machine1("fine.test"), reason.DeniedByPolicy},
		{strings.Join(many, " ") + " banned.test", nil, reason.DeniedByPolicy},
		{strings.Join(many, " "), nil, reason.Accepted},
		{"*.eve.test", machine1("x.eve.test"), reason.MachineNameMismatch},
		{"eve.test banned.test.", machine1("banned.test."), reason.MachineNameMismatch},
		{"eve.test BANNED.test", machine1("BANNED.test"), reason.MachineNameMismatch},
		{"eve.test", account1("eve"), reason.DeniedByPolicy},
		{"eve.test", account1("Eve"), reason.AccountUnacceptable},
		{"eve.test", account1("*"), reason.AccountUnacceptable},
		{"eve.test", attribute("groups", "dba"), reason.DeniedByPolicy},
		{"eve.test", attribute("groups", "%25dba,%2A,dbas"), reason.Accepted},
		{"eve.test", attribute("groups", "%64ba"), reason.AccountUnacceptable},
	} {
		claim := w.goodClaim(t)
		claim.issue(w.known, testca.Leaf{Hosts: strings.Fields(c.hosts)})
		if c.change != nil {
			c.change(claim)
		}
		if o := claim.rogue().dial(addr); o.code != int(c.want) {
			t.Errorf("%.100s as %q@%s: %d, want %v: %v", c.hosts, claim.Account, claim.Machine, o.code, c.want, o.err)
		}
	}
}
