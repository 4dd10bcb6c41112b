package names

import (
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestAccount(t *testing.T) {
	for in, want := range map[string][3]string{
		"bob@beta":             {"bob@beta", "bob", "beta"},
		"BOB@Beta.Example.COM": {"bob@beta.example.com", "bob", "beta.example.com"},
		"eve@CORP@beta":        {"eve@corp@beta", "eve@corp", "beta"},
		"\u212aelvin@beta":     {"\u212aelvin@beta", "\u212aelvin", "beta"}, // a Kelvin sign is no k
		"*@*.EXAMPLE.com":      {"*@*.example.com", "*", "*.example.com"},
		`EXAMPLE\Alice@A.b`:    {`example\alice@a.b`, `example\alice`, "a.b"},
	} {
		account, user, machine, err := Account(in)
		if got := [3]string{account, user, machine}; err != nil || got != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, bad := range []string{"", "bob", "@", "@beta", "bob@"} {
		if account, _, _, err := Account(bad); err == nil || account != "" {
			t.Errorf("%q: %q, %v", bad, account, err)
		}
	}
	if got := Machine("Beta.Test"); got != "beta.test" {
		t.Error(got)
	}
}

func TestGroups(t *testing.T) {
	for encoded, want := range map[string][]string{
		"wheel":                    {"wheel"},
		"adm,wheel":                {"adm", "wheel"},
		"domain%20users":           {"domain users"},
		"a%2Cwheel":                {"a,wheel"}, // one group, not two
		"%20wheel,a%20wheel":       {" wheel", "a wheel"},
		"dom%C3%A4nen-benutzer":    {"domänen-benutzer"},
		`corp\domain%20users,x@y`:  {`corp\domain users`, "x@y"},
		"100%25,r%26d":             {"100%", "r&d"},
		strings.Repeat("%21", 256): {strings.Repeat("!", 256)},
	} {
		got, err := DecodeGroups(encoded)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v", encoded, got, err)
		}
		slices.Reverse(want)
		if again := EncodeGroups(append(want, want[0])); again != encoded {
			t.Errorf("%q encodes as %q", want, again)
		}
	}
	for _, bad := range []string{"", ",", "a,", ",a", "a,,b", "b,a", "a,a", "Wheel", "a b", "a, b", "a%2cb", "a%2", "a%", "%", "%61", "%2D",
		"a%0A", "a%00", "a%7F", "a%C2%85", "a%FF", "%41", "%ED%A0%80", "-a", "@a", ".a", `\a`, "+a", "$a", "a\x00", "ä", "a:b", "a/b", "a=b",
		strings.Repeat("a", 257), strings.Repeat("%21", 257)} {
		if got, err := DecodeGroups(bad); err == nil {
			t.Errorf("%q: %q", bad, got)
		}
	}
}

// Whatever list is taken has one form, and reads the same by the percent-decoding that every language has.
func FuzzGroups(f *testing.F) {
	for _, s := range []string{"adm,wheel", "domain%20users", "a%2Cb,b", "%20", "a%2c", "dom%C3%A4nen"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, list string) {
		groups, err := DecodeGroups(list)
		if err != nil {
			return
		}
		if again := EncodeGroups(groups); again != list {
			t.Fatalf("%q is %q, which is %q", list, groups, again)
		}
		for i, entry := range strings.Split(list, ",") {
			if plain, err := url.PathUnescape(entry); err != nil || plain != groups[i] {
				t.Fatalf("%q is %q to others, %v", entry, plain, err)
			}
		}
		if strings.ContainsAny(list, " \t\r\n;\"'") {
			t.Fatalf("%q", list)
		}
	})
}
