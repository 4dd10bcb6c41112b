package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func files(texts ...string) (fs []File) {
	for i, text := range texts {
		fs = append(fs, File{fmt.Sprintf("/etc/shared-altsd/policy.d/%d.policy", i), []byte(text)})
	}
	return fs
}

func rules(t testing.TB, texts ...string) *Policy {
	t.Helper()
	r, err := ParseRules(files(texts...))
	if err != nil {
		t.Fatal(err)
	}
	return New(nil, r)
}

func denied(t testing.TB, texts ...string) *Denied {
	t.Helper()
	d, err := ParseDenied(files(texts...))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// conn is a connection of words: local groups behind "/", peer's groups behind a second "/".
func conn(way, local, peer string) *Connection {
	c := &Connection{Service: "grpc", Direction: In}
	if way == "out" {
		c.Direction = Out
	}
	account, groups, _ := strings.Cut(local, "/")
	c.Account, c.Groups = account, strings.FieldsFunc(groups, comma)
	peer, groups, _ = strings.Cut(peer, "/")
	at := strings.LastIndexByte(peer, '@')
	c.Peer = Peer{Account: peer[:at], Machine: peer[at+1:], Names: []string{peer[at+1:]}, Groups: strings.FieldsFunc(groups, comma)}
	return c
}

func comma(r rune) bool { return r == ',' }

// issue is the example of the issue that asked for policies.
const issue = `mode      permissive                        # would-be refusals: log line and counter; then enforcing
default   in deny
default   out allow
define    compute  .cn.hpc.example.com      # a leading dot: every name below
# verdict dir  local      peer                                   conditions
deny      any  *          *@login2.hpc.example.com               # INC-4711
deny      any  root       *@*                                    # before the next: = would let root pass
allow     any  *          =@.hpc.example.com                     # = the same account name
allow     in   postgres   %dba@.login.example.com                service=6432
allow     in   slurm      slurm@ctl.hpc.example.com
allow     in   greeter    alice@ad.example.com@alpha.example.com # the last @ divides
allow     in   munge      munge@$compute
`

func TestExample(t *testing.T) {
	p := rules(t, strings.Replace(issue, "permissive", "enforcing ", 1))
	pg := conn("in", "postgres", "eve@a.login.example.com/dba,users")
	pg.Service = "6432"
	for _, c := range []struct {
		c       *Connection
		allowed bool
		line    string
	}{
		{conn("in", "alice", "alice@login2.hpc.example.com"), false, "6"},
		{conn("out", "alice", "bob@login2.hpc.example.com"), false, "6"},
		{conn("in", "root", "root@a.hpc.example.com"), false, "7"},
		{conn("out", "root", "alice@elsewhere.example.org"), false, "7"},
		{conn("in", "alice", "alice@a.hpc.example.com"), true, "8"},
		{conn("out", "alice", "alice@b.a.hpc.example.com"), true, "8"},
		{conn("in", "alice", "alice@hpc.example.com"), false, "default in"}, // below, not itself
		{conn("in", "alice", "alice@xhpc.example.com"), false, "default in"},
		{conn("in", "alice", "bob@a.hpc.example.com"), false, "default in"},
		{pg, true, "9"},
		{conn("in", "postgres", "eve@a.login.example.com/dba"), false, "default in"}, // another service
		{conn("in", "postgres", "dba@a.login.example.com"), false, "default in"},
		{conn("in", "slurm", "slurm@ctl.hpc.example.com"), true, "8"},
		{conn("in", "greeter", "alice@ad.example.com@alpha.example.com"), true, "11"},
		{conn("in", "greeter", "alice@alpha.example.com"), false, "default in"},
		{conn("in", "munge", "munge@n1.cn.hpc.example.com"), true, "8"},
		{conn("in", "munge", "munge@cn.hpc.example.com"), true, "8"},
		{conn("out", "alice", "bob@elsewhere.example.org"), true, "default out"},
		{conn("in", "alice", "bob@elsewhere.example.org"), false, "default in"},
	} {
		want := Verdict{Allowed: c.allowed, Rule: c.line}
		if !strings.HasPrefix(c.line, "default") {
			want.Rule = "0.policy:" + c.line
		}
		if got := p.Judge(c.c); got != want {
			t.Errorf("%+v: %+v, want %+v", c.c, got, want)
		}
	}
}

// Whatever is not said is refused, and permissive mode says what would be.
func TestRule47FailsClosed(t *testing.T) {
	if v := (*Policy)(nil).Judge(conn("in", "a", "b@c")); v != (Verdict{Allowed: true}) {
		t.Errorf("no policy: %+v", v)
	}
	if v := New(nil, nil).Judge(conn("in", "a", "b@c")); v != (Verdict{Allowed: true}) {
		t.Errorf("neither: %+v", v)
	}
	for _, text := range []string{"", "# nothing\n", "define a b", "mode enforcing"} {
		for _, way := range []string{"in", "out"} {
			if v := rules(t, text).Judge(conn(way, "a", "a@c")); v != (Verdict{Rule: "default " + way}) {
				t.Errorf("%q: %+v", text, v)
			}
		}
	}
	if _, err := ParseRules(nil); err == nil {
		t.Error("a policy of no file is one")
	}
	p := rules(t, "mode permissive\ndeny any mallory *@*\nallow in * *@*")
	for _, c := range []struct {
		c    *Connection
		want Verdict
	}{
		{conn("in", "mallory", "a@b"), Verdict{Allowed: true, Would: true, Rule: "0.policy:2"}},
		{conn("in", "alice", "a@b"), Verdict{Allowed: true, Rule: "0.policy:3"}},
		{conn("out", "alice", "a@b"), Verdict{Allowed: true, Would: true, Rule: "default out"}},
	} {
		if got := p.Judge(c.c); got != c.want {
			t.Errorf("%+v: %+v, want %+v", c.c, got, c.want)
		}
	}
	// Nobody is not the same account as nobody.
	all := rules(t, "default in allow\nallow any * =@*\nallow any * *@*")
	for _, c := range []*Connection{{}, {Account: "a", Peer: Peer{Account: "a"}}, {Account: "a", Peer: Peer{Machine: "m"}},
		{Peer: Peer{Account: "a", Machine: "m"}}} {
		if v := all.Judge(c); v.Allowed || v.Would {
			t.Errorf("%+v: %+v", c, v)
		}
	}
}

// The first rule that matches decides, over files in their order.
func TestRule47FirstMatch(t *testing.T) {
	p := rules(t, "allow in * alice@*\ndeny in * *@*\n", "allow in * *@*\n")
	for peer, want := range map[string]Verdict{"alice@b": {Allowed: true, Rule: "0.policy:1"}, "bob@b": {Rule: "0.policy:2"}} {
		if got := p.Judge(conn("in", "a", peer)); got != want {
			t.Errorf("%s: %+v, want %+v", peer, got, want)
		}
	}
	p = rules(t, "deny in * bob@*\n", "allow in * *@*\n")
	for peer, want := range map[string]Verdict{"alice@b": {Allowed: true, Rule: "1.policy:1"}, "bob@b": {Rule: "0.policy:1"}} {
		if got := p.Judge(conn("in", "a", peer)); got != want {
			t.Errorf("%s: %+v, want %+v", peer, got, want)
		}
	}
}

// What is denied is denied in either mode, whatever the rules say, and without any.
func TestRule47DeniedFirst(t *testing.T) {
	key, issuer := NameHash("some key"), NameHash("CN=Example CA,O=Example")
	d := denied(t, fmt.Sprintf(`define stolen n1.example.com .cn.example.com
deny any * mallory@*
deny any * *@$stolen
deny any * *@* key=%x
deny any * *@* cert=00AB:"CN=Example CA,O=Example"
deny out root root@alpha.example.com service=6432
`, key))
	var none Verdict
	for _, r := range []string{"", "mode permissive\nallow any * *@*", "mode enforcing\nallow any * *@*", "default in allow"} {
		p := New(d, nil)
		if r != "" {
			p = New(d, rules(t, r).rules)
		}
		with := func(c *Connection, change func(*Connection)) *Connection { change(c); return c }
		alpha := func() *Connection { return conn("in", "root", "root@alpha.example.com") }
		for _, c := range []struct {
			c    *Connection
			line int
		}{
			{conn("in", "a", "mallory@b"), 2},
			{conn("out", "a", "mallory@b"), 2},
			{conn("in", "a", "b@n1.example.com"), 3},
			{conn("in", "a", "b@x.cn.example.com"), 3},
			{conn("in", "a", "b@cn.example.com"), 0},
			// By any name of the leaf, whichever its machine speaks by.
			{with(alpha(), func(c *Connection) { c.Peer.Names = []string{"alpha.example.com", "n1.example.com"} }), 3},
			{with(alpha(), func(c *Connection) { c.Peer.Names = []string{"n1.example.com.", "alpha.example.com"} }), 3},
			{with(alpha(), func(c *Connection) { c.Peer.Names = []string{"*.cn.example.com", "alpha.example.com"} }), 3},
			{with(alpha(), func(c *Connection) { c.Peer.Key = key }), 4},
			{with(alpha(), func(c *Connection) { c.Peer.Key = NameHash("another") }), 0},
			{with(alpha(), func(c *Connection) { c.Peer.Certificates = []Certificate{{"1", issuer}, {"ab", issuer}} }), 5},
			{with(alpha(), func(c *Connection) { c.Peer.Certificates = []Certificate{{"ab", NameHash("CN=Other")}} }), 0},
			{with(alpha(), func(c *Connection) { c.Direction, c.Service = Out, "6432" }), 6},
			{with(alpha(), func(c *Connection) { c.Direction, c.Service = Out, "grpc" }), 0},
			{with(alpha(), func(c *Connection) { c.Service = "6432" }), 0},
		} {
			got := p.Judge(c.c)
			want := Verdict{Denied: true, Rule: fmt.Sprintf("0.policy:%d", c.line)}
			if c.line == 0 && got.Denied || c.line != 0 && got != want || got == none {
				t.Errorf("%q, %+v: %+v, want line %d", r, c.c, got, c.line)
			}
		}
	}
	// The rules of a policy go by the name that the machine speaks by alone.
	c := conn("in", "a", "b@alpha.example.com")
	c.Peer.Names = []string{"alpha.example.com", "beta.example.com"}
	if v := rules(t, "allow in * *@beta.example.com").Judge(c); v.Allowed {
		t.Errorf("by another name of the leaf: %+v", v)
	}
}

// No name or group of a peer is taken for a pattern, or for another.
func TestRule47PeersWords(t *testing.T) {
	p := rules(t, `define admins alice corp\bob
allow in web $admins@*
allow in web %a%2Cwheel@*
allow in web %wheel@.trusted.example.com
allow in same =@*
allow in %ops bob@*
allow in dom alice@ad.example.com@m.example.com`)
	for _, c := range []struct {
		local, peer string
		groups      []string
		allowed     bool
	}{
		{"web", "alice@m", nil, true},
		{"web", `corp\bob@m`, nil, true},
		{"web", "bob@m", nil, false},
		{"web", "$admins@m", nil, false},
		{"web", "%wheel@m.trusted.example.com", nil, false},
		{"web", "wheel@m.trusted.example.com", nil, false},
		{"web", "*@m", nil, false},
		{"web", "=@m", nil, false},
		{"web", "x@.trusted.example.com", []string{"wheel"}, false}, // ".trusted.example.com" is no name below itself
		{"web", "x@m.trusted.example.com", []string{"wheel"}, true},
		{"web", "x@m.trusted.example.com", []string{"%wheel", "Wheel", "a", "wheels"}, false},
		{"web", "x@m", []string{"a,wheel"}, true},
		{"web", "x@m", []string{"a", "wheel"}, false},
		{"web", "x@m", []string{"a%2Cwheel"}, false},
		{"same", "same@m", nil, true},
		{"same", "=@m", nil, false},
		{"same", "same@ad.example.com@m", nil, false},
		{"same@ad.example.com", "same@m", nil, false},
		{"x/ops", "bob@m", nil, true},
		{"x", "bob@m", []string{"ops"}, false}, // the peer's groups are none of the local account's
		{"ops", "bob@m", nil, false},
		{"%ops", "bob@m", nil, false},
		{"dom", "alice@ad.example.com@m.example.com", nil, true},
		{"dom", "alice@m.example.com", nil, false},
		{"dom", "alice@ad.example.com", nil, false},
	} {
		cn := conn("in", c.local, c.peer)
		cn.Peer.Groups = c.groups
		if v := p.Judge(cn); v.Allowed != c.allowed {
			t.Errorf("%s %s %q: %+v", c.local, c.peer, c.groups, v)
		}
	}
	if got := p.LocalGroups(); !slices.Equal(got, []string{"ops"}) {
		t.Errorf("local groups %q", got)
	}
}

// Names count in lower case, wherever they stand; a rule is what its one form says.
func TestRule47NormalisedOnce(t *testing.T) {
	key := fmt.Sprintf("%X", NameHash("k"))
	for text, want := range map[string]string{
		"allow in Bob ALICE@Alpha.Example.COM":              "allow in bob alice@alpha.example.com",
		"  allow\tany   *  =@.HPC.example.com   # x":        "allow any * =@.hpc.example.com",
		"allow in %Domain%20Users %r%26d%2c@* service=GRPC": "allow in %domain%20users %r%26d%2C@* service=GRPC",
		"define A Bob alice@ad .X.example":                  "",
		"define A Bob n1\nallow in * $a@$A":                 "define a bob n1\nallow in * $a@$a",
		"allow in * a@b eku=serverAuth ca=" + key:           "allow in * a@b eku=1.3.6.1.5.5.7.3.1 ca=" + strings.ToLower(key),
		`allow in * a@b ca="CN=Example CA,O=A\, B"`:         `allow in * a@b ca="CN=Example CA,O=A\, B"`,
		"allow in * a@b service=a#b":                        "allow in * a@b service=a#b",
		"mode enforcing\r\ndefault in allow\r\n":            "mode enforcing\ndefault in allow",
		"\ufeffdefault in allow":                            "default in allow",
		`allow in EX\Bob ex\bob@b`:                          `allow in ex\bob ex\bob@b`,
	} {
		r, err := ParseRules(files(text))
		if want == "" {
			if err == nil {
				t.Errorf("%q is taken", text)
			}
			continue
		}
		if err != nil || strings.TrimSuffix(r.String(), "\n") != want {
			t.Errorf("%q: %q, %v; want %q", text, cmp.Or(r, &Rules{}).String(), err, want)
		}
	}
	p := rules(t, "mode permissive\ndefault out allow\nallow in Bob Alice@Alpha.example.COM")
	if p.Mode() != "permissive" || p.Default(In) != "deny" || p.Default(Out) != "allow" {
		t.Errorf("%q %q %q", p.Mode(), p.Default(In), p.Default(Out))
	}
	if n, d := p.Count(); n != 1 || d != 0 {
		t.Errorf("%d rules, %d denied", n, d)
	}
	if p := (*Policy)(nil); p.Mode() != "" || p.Default(In) != "" || p.LocalGroups() != nil {
		t.Error("no policy has something")
	}
}
