package policy

import (
	"fmt"
	"strings"
	"testing"
)

func TestTry(t *testing.T) {
	p := New(denied(t, "deny in bob *@* key="+strings.Repeat("ab", 32)+" # why\ndeny any eve *@*"), rules(t, `default out allow
allow in bob alice@* eku=serverAuth service=x
allow in bob alice@.test eku=serverAuth   # TLS hosts
deny  in bob alice@* ca="CN=a b"
deny  in bob carol@.test
allow in bob carol@* eku=1.2.3
deny  in Bob Alice@Alpha.test             # INC-1
allow in bob *@*`).rules)
	for _, c := range []struct {
		way, peer, local string
		want             string
	}{
		{"in", "alice@alpha.test", "bob", `{false 0.policy:7 false false} "deny  in Bob Alice@Alpha.test             # INC-1" ` +
			`"deny in bob alice@alpha.test" unless 0.policy:3`},
		{"in", "Alice@beta.example", "BOB", `{true 0.policy:8 false false} "allow in bob *@*" "allow in bob *@*" unless 0.policy:1 0.policy:4`},
		{"in", "carol@x.test", "bob", `{false 0.policy:5 false false} "deny  in bob carol@.test" "deny in bob carol@.test" unless`},
		{"out", "alice@alpha.test", "bob", `{true default out false false} "" "" unless`},
		{"in", "alice@alpha.test", "eve", `{false 0.policy:2 false true} "deny any eve *@*" "deny any eve *@*" unless`},
		{"in", "alice@alpha.test", "x", `{false default in false false} "" "" unless`},
	} {
		cn, err := Between(c.peer, c.local)
		if err != nil {
			t.Fatal(err)
		}
		if c.way == "out" {
			cn.Direction = Out
		}
		got := p.Try(cn)
		text := fmt.Sprintf("%v %q %q unless", got.Verdict, got.Line.Text, got.Line.Form)
		for _, l := range got.Unless {
			text += " " + l.Name
		}
		if text != c.want {
			t.Errorf("%s %s %s:\n got %s\nwant %s", c.way, c.peer, c.local, text, c.want)
		}
	}
	if got := (*Policy)(nil).Try(conn("in", "a", "b@c")); !got.Verdict.Allowed || got.Unless != nil {
		t.Errorf("%+v", got)
	}
}

// However many lines go by the certificate, a few are written out: whoever may ask may do so at any time.
func TestTryBounds(t *testing.T) {
	var text strings.Builder
	for i := range maxRules {
		fmt.Fprintf(&text, "deny any * *@* key=%x\n", NameHash(fmt.Sprint(i)))
	}
	p, c := New(denied(t, text.String()), nil), conn("in", "bob", "alice@alpha.test")
	if got := p.Try(c); len(got.Unless) != MaxUnless || got.More != maxRules-MaxUnless {
		t.Errorf("%d lines and %d more", len(got.Unless), got.More)
	}
	if n := testing.AllocsPerRun(3, func() { p.Try(c) }); n > 1000 {
		t.Errorf("%v allocations", n)
	}
}

// What is said to hold of a certificate decides.
func TestAssume(t *testing.T) {
	key := strings.Repeat("ab", 32)
	for i, condition := range []string{"service=6432", "eku=clientAuth", "ca=" + key, `ca="CN=a b,O=c"`, "key=" + key, `cert=0A:"CN=a b"`} {
		p := New(denied(t, "deny in * *@* "+condition), nil)
		c, err := Between("a@b", "c")
		if err != nil {
			t.Fatal(err)
		}
		c.Service = "grpc"
		before := p.Try(c)
		if err := c.Assume(condition); err != nil {
			t.Fatal(err)
		}
		if after := p.Try(c); !before.Verdict.Allowed || after.Verdict.Allowed || (len(before.Unless) == 1) != (i > 0) || after.Unless != nil {
			t.Errorf("%s: %+v, then %+v", condition, before, after)
		}
	}
	for _, bad := range []string{"", "grpc", "port=1", "ca=x", "eku="} {
		if err := new(Connection).Assume(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestBetween(t *testing.T) {
	if c, err := Between(`Alice@AD.example@Alpha.test`, `EX\Bob`); err != nil || c.Account != `ex\bob` || c.Peer.Account != "alice@ad.example" ||
		c.Peer.Machine != "alpha.test" || c.Peer.Names[0] != "alpha.test" {
		t.Errorf("%+v %v", c, err)
	}
	for _, c := range [][3]string{
		{"alice", "bob", `the peer "alice" is not ACCOUNT@MACHINE: write it as the log does, such as alice@alpha.example.com`},
		{"@m", "bob", "is not ACCOUNT@MACHINE"},
		{"*@m", "bob", `the peer's account in "*@m": it holds '*'`},
		{"a@.m", "bob", `the peer's machine in "a@.m": it is a domain, and one machine is judged`},
		{"a@*.m", "bob", `the peer's machine in "a@*.m": *. is not taken`},
		{"a@10.0.0.1", "bob", "all digits"},
		{"a@m", "", `the local account "": it can be no account: an account name is empty`},
		{"a@m", "$s", `the local account "$s": it can be no account`},
	} {
		if _, err := Between(c[0], c[1]); err == nil || !strings.Contains(err.Error(), c[2]) {
			t.Errorf("%q %q: %v, want %s", c[0], c[1], err, c[2])
		}
	}
	for written, want := range map[string]string{"%domain%20users": "domain users", "Wheel": "wheel", "a%2cb": "a,b"} {
		if got, err := Group(written); err != nil || got != want {
			t.Errorf("%q: %q, %v", written, got, err)
		}
	}
	for _, bad := range []string{"", "%", "a,b", "a b"} {
		if got, err := Group(bad); err == nil {
			t.Errorf("%q: %q", bad, got)
		}
	}
}
