package policy

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/names"
)

// reference judges as docs/policy.md says it, from the one form of each statement, line by line and without an index. It
// shares nothing with what it is compared to but the splitting of a peer and the encoding of groups.
type reference struct{ denied, rules []string }

func (p *reference) judge(c *Connection) (v Verdict, decided int) {
	if n := firstLine(p.denied, c, append([]string{c.Peer.Machine}, c.Peer.Names...)); n > 0 {
		return Verdict{Denied: true}, n
	}
	if p.rules == nil {
		return Verdict{Allowed: true}, 0
	}
	permissive := false
	for _, line := range p.rules {
		w := strings.Fields(line + " .")
		if w[0] == "mode" {
			permissive = w[1] == "permissive"
		}
		if w[0] == "default" && w[1] == c.Direction.String() {
			v.Allowed = w[2] == "allow"
		}
	}
	n := firstLine(p.rules, c, []string{c.Peer.Machine})
	if n > 0 {
		v.Allowed = strings.HasPrefix(p.rules[n-1], "allow ")
	}
	if !v.Allowed && permissive {
		v.Allowed, v.Would = true, true
	}
	return v, n
}

// firstLine returns the number of the first rule that matches, 0 for none.
func firstLine(lines []string, c *Connection, machines []string) int {
	sets := map[string][]string{}
	for i, line := range lines {
		w := strings.Fields(line)
		if len(w) > 0 && w[0] == "define" {
			sets[w[1]] = w[2:]
		}
		if len(w) == 0 || w[0] != "allow" && w[0] != "deny" || w[1] != "any" && w[1] != c.Direction.String() {
			continue
		}
		user, machine := names.SplitAccount(w[3])
		if matches(sets, w[2], c.Account, "", c.Groups) && matches(sets, user, c.Peer.Account, c.Account, c.Peer.Groups) &&
			slices.ContainsFunc(machines, func(m string) bool { return matches(sets, machine, m, "", nil) }) &&
			!slices.ContainsFunc(w[4:], func(condition string) bool { return !holds(condition, c) }) {
			return i + 1
		}
	}
	return 0
}

func matches(sets map[string][]string, pattern, name, local string, groups []string) bool {
	switch {
	case pattern == "*":
		return true
	case pattern == "=":
		return name == local
	case pattern[0] == '%':
		return slices.ContainsFunc(groups, func(g string) bool { return "%"+names.EncodeGroups([]string{g}) == pattern })
	case pattern[0] == '$':
		return slices.ContainsFunc(sets[pattern[1:]], func(m string) bool { return matches(nil, m, name, "", nil) })
	case pattern[0] == '.':
		return len(name) > len(pattern) && name[len(name)-len(pattern):] == pattern
	}
	return name == pattern
}

func holds(condition string, c *Connection) bool {
	name, value, _ := strings.Cut(condition, "=")
	value = strings.Trim(value, `"`)
	sum := func(b [32]byte) string { return hex.EncodeToString(b[:]) }
	switch name {
	case "service":
		return c.Service == value || c.Service == "altsd-tcp/1:"+value
	case "eku":
		return slices.Contains(c.Peer.EKUs, value)
	case "key":
		return sum(c.Peer.Key) == value
	case "cert":
		serial, issuer, _ := strings.Cut(value, `:"`)
		return slices.Contains(c.Peer.Certificates, Certificate{serial, NameHash(issuer)})
	}
	return sum(c.Peer.CAKey) == value || c.Peer.CAName == NameHash(value)
}

// What rules and connections of a trial are made of: few of each, so that much matches.
var (
	someAccounts = []string{"a", "b", "root", "a@ad.example", `corp\a`, "wheel", "g"}
	someMachines = []string{"x", "m.x", "n.m.x", "y", "m.y", "mx"}
	someGroups   = []string{"wheel", "g", "a,wheel", "100%"}
	someServices = []string{"grpc", "6432"}
	someEKUs     = []string{"1.3.6.1.5.5.7.3.1", "1.3.6.1.4.1.32473.1.1"}
	someIssuers  = []string{"CN=a", "CN=b,O=x"} // without blanks, which the reference does not read
)

func one(r *rand.Rand, of []string) string { return of[r.IntN(len(of))] }

func some(r *rand.Rand, of []string) (list []string) {
	for _, s := range of {
		if r.IntN(3) == 0 {
			list = append(list, s)
		}
	}
	return list
}

func randomLines(r *rand.Rand, denied bool) (lines []string) {
	if !denied {
		lines = append(lines, one(r, []string{"mode enforcing", "mode permissive", "# no mode"}))
		lines = append(lines, one(r, []string{"default in allow", "default in deny", ""}), one(r, []string{"default out allow", ""}))
	}
	lines = append(lines, "define accounts "+strings.Join(append(some(r, someAccounts), "z"), " "),
		"define machines "+strings.Join(append(some(r, append(someMachines, ".x", ".m.x", ".y")), "z"), " "))
	for range r.IntN(30) {
		local, user, machine := one(r, someAccounts), one(r, someAccounts), one(r, someMachines)
		switch r.IntN(6) {
		case 0, 1:
			local = "*"
		case 2:
			local = "$accounts"
		case 3:
			local = "%" + names.EncodeGroups([]string{one(r, someGroups)})
		}
		switch r.IntN(6) {
		case 0:
			user = "*"
		case 1:
			user = "="
		case 2:
			user = "$accounts"
		case 3:
			user = "%" + names.EncodeGroups([]string{one(r, someGroups)})
		}
		switch r.IntN(6) {
		case 0:
			machine = "*"
		case 1:
			machine = "$machines"
		case 2, 3:
			machine = one(r, []string{".x", ".m.x", ".y", ".z"})
		}
		verdict := "deny"
		if !denied {
			verdict = one(r, []string{"deny", "allow"})
		}
		line := fmt.Sprintf("%s %s %s %s@%s", verdict, one(r, []string{"in", "out", "any"}), local, user, machine)
		if r.IntN(4) == 0 {
			line += " service=" + one(r, someServices)
		}
		if r.IntN(5) == 0 {
			line += " eku=" + one(r, someEKUs)
		}
		if r.IntN(5) == 0 {
			line += one(r, []string{fmt.Sprintf(" ca=%x", NameHash(one(r, someIssuers))), ` ca="` + one(r, someIssuers) + `"`})
		}
		if denied && r.IntN(4) == 0 {
			line += fmt.Sprintf(" key=%x", NameHash(one(r, someIssuers)))
		}
		if denied && r.IntN(4) == 0 {
			line += fmt.Sprintf(` cert=%x:"%s"`, 1+r.IntN(3), one(r, someIssuers))
		}
		lines = append(lines, line)
	}
	return lines
}

func randomConnection(r *rand.Rand) *Connection {
	c := &Connection{Direction: Direction(r.IntN(2)), Account: one(r, someAccounts), Groups: some(r, someGroups),
		Service: one(r, append(someServices, "altsd-tcp/1:6432", "altsd-tcp/1:"))}
	c.Peer = Peer{Account: one(r, someAccounts), Machine: one(r, someMachines), Groups: some(r, someGroups), EKUs: some(r, someEKUs),
		Key: NameHash(one(r, someIssuers)), CAKey: NameHash(one(r, someIssuers)), CAName: NameHash(one(r, someIssuers))}
	c.Peer.Names = append(some(r, someMachines), c.Peer.Machine)
	for range 1 + r.IntN(2) {
		c.Peer.Certificates = append(c.Peer.Certificates, Certificate{fmt.Sprint(1 + r.IntN(3)), NameHash(one(r, someIssuers))})
	}
	return c
}

// compare judges a connection both ways.
func compare(t *testing.T, d *Denied, r *Rules, c *Connection) Verdict {
	t.Helper()
	var ref reference
	lines := func(file string, n int) string { return fmt.Sprintf("%s:%d", file, n) }
	if d != nil {
		ref.denied = strings.Split(strings.TrimSuffix(d.String(), "\n"), "\n")
	}
	if r != nil {
		ref.rules = strings.Split(strings.TrimSuffix(r.String(), "\n"), "\n")
	}
	want, n := ref.judge(c)
	switch {
	case want.Denied:
		want.Rule = lines("d", n)
	case n > 0:
		want.Rule = lines("r", n)
	case r != nil:
		want.Rule = "default " + c.Direction.String()
	}
	got := New(d, r).Judge(c)
	if got != want {
		t.Fatalf("%+v\ndenied:\n%v\nrules:\n%v\n got %+v\nwant %+v", c, d, r, got, want)
	}
	return got
}

// again reads what a parse said in its one form, so that line numbers are those of statements.
func again(t *testing.T, denied, rules string) (*Denied, *Rules) {
	t.Helper()
	d, err := ParseDenied([]File{{"d", []byte(denied)}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := ParseRules([]File{{"r", []byte(rules)}})
	if err != nil {
		t.Fatal(err)
	}
	return d, r
}

// The index finds what reading line by line does.
func TestIndexAgainstReference(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	rounds := 150
	if testing.Short() {
		rounds = 100
	}
	seen := map[Verdict]int{}
	for range rounds {
		d, rs := again(t, strings.Join(randomLines(r, true), "\n"), strings.Join(randomLines(r, false), "\n"))
		d, rs = again(t, d.String(), rs.String())
		for range 20 {
			v := compare(t, d, rs, randomConnection(r))
			v.Rule, _, _ = strings.Cut(v.Rule, ":")
			seen[v]++
		}
		compare(t, nil, rs, randomConnection(r))
		compare(t, d, nil, randomConnection(r))
	}
	if len(seen) < 10 { // denied, and allow, deny, would be denied by a rule and by either default
		t.Errorf("not every kind of verdict was met: %v", seen)
	}
}

// Whatever text is read never fails otherwise than with a line, has one form, which reads as the same, and is judged as it
// stands there.
func FuzzRules(f *testing.F) {
	f.Add(issue, false, uint64(1))
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 20 {
		f.Add(strings.Join(randomLines(r, i%2 == 0), "\n"), i%2 == 0, uint64(i))
	}
	f.Add("deny any * *@* cert=00aB:\"CN=a b,O=\\,\" # x\r\n\ufeff", true, uint64(3))
	f.Fuzz(func(t *testing.T, text string, denied bool, seed uint64) {
		var form string
		if denied {
			d, err := ParseDenied([]File{{"d", []byte(text)}})
			if err != nil {
				located(t, err)
				return
			}
			form = d.String()
		} else {
			rs, err := ParseRules([]File{{"r", []byte(text)}})
			if err != nil {
				located(t, err)
				return
			}
			form = rs.String()
		}
		for line := range strings.Lines(form) {
			if len(line) > maxLine {
				t.Skip("the one form is longer than what may be read, with a usage in numbers or with quotes")
			}
		}
		// Blanks in quotes are for this program and not for the reference.
		random := rand.New(rand.NewPCG(seed, seed))
		if denied {
			d, _ := again(t, form, "")
			if d.String() != form {
				t.Fatalf("%q is %q, which is %q", text, form, d)
			}
			if !strings.Contains(form, `"`) {
				compare(t, d, nil, randomConnection(random))
			}
			return
		}
		_, rs := again(t, "", form)
		if rs.String() != form {
			t.Fatalf("%q is %q, which is %q", text, form, rs)
		}
		if !strings.Contains(form, `"`) {
			compare(t, nil, rs, randomConnection(random))
		}
		New(nil, rs).Lint(nil)
	})
}

func located(t *testing.T, err error) {
	t.Helper()
	text := err.Error()
	if !strings.HasPrefix(text, "d:") && !strings.HasPrefix(text, "r:") || strings.ContainsAny(text, "\n\x00\x1b") {
		t.Fatalf("%q", text)
	}
}
