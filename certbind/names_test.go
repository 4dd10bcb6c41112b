package certbind

import (
	"strings"
	"testing"
)

func TestRule19ValidMachineName(t *testing.T) {
	label := strings.Repeat("l", 63)
	longest := label + "." + label + "." + label + "." + strings.Repeat("l", 61)
	for _, good := range []string{"a", "alpha", alpha, "a-b.c", "1.a", "1a.2b", "xn--bcher-kva.example", "3com.4u",
		"localhost.example.com",
		"notlocalhost", "10.0.0.1a", label, longest, "a.b-c-d.e", "x.1-1"} {
		if err := ValidMachineName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", ".", "a.", ".a", "a..b", "-a", "a-", "a.-b", "a-.b", "A", "a_b", "a b", "bücher",
		"*.a", "a*", "10.0.0.1",
		"1", "a.1", "::1", "[::1]", "localhost", "a.localhost", "a/b", "a\x00b", "a@b", label + "l", longest + "l",
		"a:80", "a%b"} {
		if err := ValidMachineName(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestRule17ValidAccount(t *testing.T) {
	for _, tc := range []struct {
		name          string
		plain, domain bool
	}{
		{"alice", true, true}, {"_svc", true, true}, {"0day", true, true}, {"a.b$c+d-e_f", true, true},
		{"host$", true, true},
		{strings.Repeat("a", 64), true, true}, {strings.Repeat("a", 65), false, true},
		{strings.Repeat("a", 128), false, true}, {strings.Repeat("a", 129), false, false},
		{"alice@corp", false, true}, {`corp\alice`, false, true}, {"@alice", false, false}, {`\alice`, false, false},
		{"", false, false}, {"Alice", false, false}, {"-a", false, false}, {".a", false, false}, {"$a", false, false},
		{"a b", false, false}, {"a\n", false, false}, {"a/b", false, false}, {"älice", false, false},
		{"a:b", false, false},
		{"a,b", false, false}, {"a\x00", false, false},
	} {
		if got := ValidAccount(tc.name, false) == nil; got != tc.plain {
			t.Errorf("%q: accepted %v", tc.name, got)
		}
		if got := ValidAccount(tc.name, true) == nil; got != tc.domain {
			t.Errorf("%q with domains: accepted %v", tc.name, got)
		}
	}
}

func TestAttributes(t *testing.T) {
	for _, tc := range []struct {
		name, value string
		ok          bool
	}{
		{"x", "", true}, {"x-y_1", " ~", true}, {"X", "", false}, {"1x", "", false}, {"_x", "", false},
		{"x y", "", false},
		{"x", "\x1f", false}, {"x", "\x7f", false}, {"x", "é", false},
		{"user", "alice", false}, {"machine", alpha, false}, {"users", "alice", true},
		{"uid", "0", true}, {"uid", "4294967295", true}, {"uid", "4294967296", false}, {"uid", "01", false},
		{"uid", "", false},
		{"uid", "-1", false}, {"uid", "+1", false}, {"uid", "1e3", false},
		{"socket", "blue-7.a", true}, {"socket", "", false}, {"socket", "Blue", false}, {"socket", "/run/s", false},
		{"socket", strings.Repeat("a", 64), true}, {"socket", strings.Repeat("a", 65), false},
		{"groups", "", false}, {"groups", "a", true}, {"groups", "a,b", true}, {"groups", "b,a", false},
		{"groups", "a,a", false},
		{"groups", "a,", false}, {"groups", "A", false}, {"groups", "a, b", false}, {"groups", "domain%20users", true},
		{"groups", "a%2Cwheel,wheel", true}, {"groups", "domain users", false}, {"groups", "%41", false}, {"groups", "a%0A", false},
		{"groups", "a%40b", false}, {"groups", "a%2c", false}, {"groups", "-a", false}, {"groups", "a%C2%85", false},
	} {
		if err := validAttributes([]Attribute{{tc.name, tc.value}}, false); (err == nil) != tc.ok {
			t.Errorf("%q=%q: %v", tc.name, tc.value, err)
		}
	}
	if err := validAttributes([]Attribute{{"groups", "staff@corp"}}, true); err != nil {
		t.Error(err)
	}
}
