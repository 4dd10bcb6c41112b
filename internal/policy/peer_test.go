package policy

import (
	"strings"
	"testing"
)

func TestPeerPattern(t *testing.T) {
	peer := func(account string) *Peer {
		user, machine, _ := strings.Cut(account, "@")
		return &Peer{Account: user, Machine: machine, Groups: []string{"wheel", "domain users"}}
	}
	for _, c := range []struct {
		pattern, local, peer string
		want                 bool
	}{
		{"alice@alpha.example.com", "pg", "alice@alpha.example.com", true}, {"ALICE@Alpha.example.com", "pg", "alice@alpha.example.com", true},
		{"alice@alpha.example.com", "pg", "alice@beta.example.com", false}, {"alice@alpha.example.com", "pg", "alice2@alpha.example.com", false},
		{"*@.example.com", "pg", "bob@a.example.com", true}, {"*@.example.com", "pg", "bob@a.b.example.com", true},
		{"*@.example.com", "pg", "bob@example.com", false}, {"*@.example.com", "pg", "bob@aexample.com", false},
		{"=@*", "alice", "alice@x.org", true}, {"=@*", "pg", "alice@x.org", false}, {"=@x.org", "alice", "alice@y.org", false},
		{"%wheel@*", "pg", "bob@x.org", true}, {"%wheels@*", "pg", "bob@x.org", false}, {"%domain%20users@x.org", "pg", "bob@x.org", true},
		{"*@*", "pg", "bob@x.org", true}, {"*@*", "pg", "@x.org", false}, {"*@*", "pg", "bob@", false}, {"*@*", "", "bob@x.org", false},
		{"postgres@alpha.example.com", "postgres", "postgres@beta.example.com", false}, {"bob@x.org", "pg", "bob@x.org.", true},
	} {
		p, err := ParsePeer(c.pattern)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		if got := p.Matches(c.local, peer(c.peer)); got != c.want {
			t.Errorf("%s of %s: %s: %v", c.pattern, c.local, c.peer, got)
		}
		if again, err := ParsePeer(p.String()); err != nil || again != p {
			t.Errorf("%s is written %q: %v", c.pattern, p, err)
		}
	}
}

func TestPeerPatternMistakes(t *testing.T) {
	for text, cure := range map[string]string{
		"": "USER@MACHINE", "alice": "alice@*", "*": "*@*", "$admins@*": "each of its members", "alice@$hosts": "each of its members",
		"alice@": "nothing on one side", "@x.org": "nothing on one side", "alice@*.example.com": ".example.com", "a b@x": "white space",
		"alice@192.0.2.0/24": "only names", "alice@=": "before the @", "alice@%wheel": "before the @", "a*@x.org": "no patterns within names",
		"alice@x.org bob@x.org": "one USER@MACHINE at a time",
	} {
		if p, err := ParsePeer(text); err == nil || !strings.Contains(err.Error(), cure) {
			t.Errorf("%q: %v, %v", text, p, err)
		}
	}
}
