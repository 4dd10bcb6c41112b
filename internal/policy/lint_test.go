package policy

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestLint(t *testing.T) {
	const dir = "/etc/shared-altsd/policy.d/0.policy:"
	for text, want := range map[string][]string{
		"default in deny\ndefault out allow\nallow in * =@.x": nil,
		"default in deny\ndefault out deny":                   nil,
		issue: {"1: mode permissive: nothing is refused but what is denied at once; write mode enforcing when the log warns of nothing more " +
			"that should pass", "10: never reached: 0.policy:8 allows all of it; take it away, or put it before",
			"12: never reached: 0.policy:8 allows all of it; take it away, or put it before"},
		"": {"1: nothing is said of in: all that this machine's programs accept is refused; write default in deny if that is meant",
			"1: nothing is said of out: all that this machine's programs dial is refused; write default out deny if that is meant"},
		"default out allow\ndeny in * a@x\ndeny in * b@x": {
			"2: all that this machine's programs accept is refused: each rule for in says the same as its default, deny"},
		"default out allow\ndefault in allow\nallow any * a@x": {
			"1: all that this machine's programs dial is allowed: each rule for out says the same as its default, allow",
			"2: all that this machine's programs accept is allowed: each rule for in says the same as its default, allow"},
		"default out allow\ndeny in * *@*\nallow in * a@x": {"3: never reached: 0.policy:2 denies all of it; take it away, or put it before"},
		"default out allow\nallow in * a@x\nallow any * a@x\nallow in * a@x": {
			"1: all that this machine's programs dial is allowed: each rule for out says the same as its default, allow",
			"4: never reached: 0.policy:2 allows all of it; take it away, or put it before"},
		"allow in * a@x\ndeny out * a@x\nallow any * a@x\nallow out * b@x": {
			"3: never reached: 0.policy:1 allows all of it that comes in, 0.policy:2 denies all of it that goes out; take it away, or put it before"},
		"default out allow\ndefine s .x y\ndefine u\tz": {"2: $s stands in no rule", "3: $u stands in no rule",
			"1: nothing is said of in: all that this machine's programs accept is refused; write default in deny if that is meant"},
		"default out allow\nallow in %wheel *@*\nallow in %lost *@x\nallow in %lost *@y\nallow in * %lost@z": {
			"3: matches nobody: this machine's user database has no group \"lost\"",
			"4: matches nobody: this machine's user database has no group \"lost\""},
	} {
		got := map[string]bool{}
		for _, f := range rules(t, text).Lint(func(g string) bool { return g != "lost" }) {
			got[f.String()] = true
		}
		for _, w := range want {
			if !got[dir+w] {
				t.Errorf("%q: no %q in %v", text, w, got)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%q: %v, want %q", text, got, want)
		}
	}
	if f := rules(t, "default out allow\nallow in %lost *@*").Lint(nil); len(f) != 0 {
		t.Errorf("nobody was to be asked: %v", f)
	}
	if f := New(denied(t, "deny in a b@c", "deny any * b@.d\ndeny any a b@c.d\ndeny in x y@z"), nil).Lint(nil); len(f) != 1 ||
		f[0].String() != "/etc/shared-altsd/policy.d/1.policy:2: never reached: 1.policy:1 denies all of it; take it away, or put it before" {
		t.Errorf("denied: %v", f)
	}
	if f := (*Policy)(nil).Lint(nil); f != nil {
		t.Error(f)
	}
}

// What one rule matches that another does not, and what it does.
func TestCovers(t *testing.T) {
	const sets = "define s a b\ndefine big a b c\ndefine m x.d y\ndefine d .d y\n"
	key := fmt.Sprintf("%x", NameHash("k"))
	for _, c := range []struct {
		first, second string
		covers        bool
	}{
		{"in * *@*", "in a b@c", true},
		{"any * *@*", "in a b@c", true},
		{"in * *@*", "any a b@c", false},
		{"out * *@*", "in a b@c", false},
		{"in a *@*", "in * *@*", false},
		{"in * *@.d", "in * *@x.d", true},
		{"in * *@.d", "in * *@.x.d", true},
		{"in * *@.d", "in * *@d", false},
		{"in * *@.d", "in * *@xd", false},
		{"in * *@.x.d", "in * *@.d", false},
		{"in * *@x.d", "in * *@.x.d", false},
		{"in * *@$d", "in * *@$m", true},
		{"in * *@$m", "in * *@$d", false},
		{"in * *@$d", "in * *@.x.d", true},
		{"in * *@.d", "in * *@$m", false},
		{"in $big *@*", "in $s *@*", true},
		{"in $s *@*", "in $big *@*", false},
		{"in $s *@*", "in * *@*", false},
		{"in * =@*", "in * =@x", true},
		{"in * =@*", "in a a@x", true},
		{"in * =@*", "in a b@x", false},
		{"in * =@*", "in $s $s@x", false},
		{"in * a@*", "in a =@x", true},
		{"in * a@*", "in * =@x", false},
		{"in * $big@*", "in $s =@x", true},
		{"in * $s@*", "in $big =@x", false},
		{"in * %g@*", "in * %g@x", true},
		{"in * %g@*", "in * %h@x", false},
		{"in * %g@*", "in * g@x", false},
		{"in %g *@*", "in %g a@x", true},
		{"in %g =@*", "in %g =@x", true},
		{"in * %g@*", "in %g =@x", false},
		{"in * *@* service=a", "in * *@*", false},
		{"in * *@*", "in * *@* service=a", true},
		{"in * *@* service=a", "in * *@* service=a eku=1.2.3", true},
		{"in * *@* service=a", "in * *@* service=b", false},
		{"in * *@* ca=CN=a", "in * *@* ca=CN=a", true},
		{"in * *@* ca=CN=a", "in * *@* ca=CN=b", false},
		{"in * *@*", "in * *@* key=" + key, true},
		{"in * *@* key=" + key, "in * *@x key=" + key, true},
		{"in * *@* key=" + key, "in * *@x", false},
		{"in * *@* cert=1:CN=a", "in * *@x cert=01:CN=a", true},
		{"in * *@* cert=1:CN=a", "in * *@x cert=1:CN=b", false},
		{"in * *@* cert=1:CN=a", "in * *@x cert=1:CN=a key=" + key, true},
		{"in * *@* key=" + key, "in * *@x cert=1:CN=a key=" + key, true},
	} {
		found := 0
		for _, f := range New(denied(t, sets+"deny "+c.first+"\ndeny "+c.second), nil).Lint(nil) {
			if strings.Contains(f.Text, "never reached") {
				found++
			}
		}
		if found != map[bool]int{true: 1}[c.covers] {
			t.Errorf("%s, then %s: %d", c.first, c.second, found)
		}
	}
}

// What is said to be never reached decides about no connection.
func TestLintClaimsNothingFalse(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	claims := 0
	for range 120 {
		d, rs := again(t, strings.Join(randomLines(r, true), "\n"), strings.Join(randomLines(r, false), "\n"))
		p := New(d, rs)
		never := map[string]bool{}
		for _, f := range p.Lint(nil) {
			if strings.HasPrefix(f.Text, "never reached") {
				never[fmt.Sprintf("%s:%d", f.File, f.Line)] = true
				claims++
			}
		}
		for range 200 {
			c := randomConnection(r)
			for _, p := range []*Policy{p, New(nil, rs)} {
				if v := p.Judge(c); never[v.Rule] {
					t.Fatalf("%v was said to be never reached:\n%v\n%v\n%+v", v, d, rs, c)
				}
			}
		}
	}
	if claims < 100 {
		t.Errorf("%d claims: too few to have shown anything", claims)
	}
}
