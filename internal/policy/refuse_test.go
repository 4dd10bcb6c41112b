package policy

import (
	"fmt"
	"strings"
	"testing"
)

// Each mistake is told with its line, what is wrong and the cure.
func TestRefusals(t *testing.T) {
	key := strings.Repeat("ab", 32)
	for text, want := range map[string]string{
		"permit in * *@*": `"permit" begins no line: begin with allow or deny, with define for a set, or with mode or default`,
		"ALLOW in * *@*":  `"ALLOW": write it in lower case, allow`,
		"+ : root : ALL":  `"+" begins no line`,

		"mode":                                  `mode is "": write mode permissive, or mode enforcing`,
		"mode off":                              `mode is "off": write mode permissive, or mode enforcing`,
		"mode enforcing\nmode enforcing":        `the mode stands in /etc/shared-altsd/policy.d/0.policy:1 already: say it once`,
		"default deny":                          `default is "deny": write default in deny, default out allow`,
		"default any deny":                      `default is "any deny": write default in deny`,
		"default in permit":                     `default is "in permit": write default in deny`,
		"default in deny\ndefault in allow":     `default in stands in /etc/shared-altsd/policy.d/0.policy:1 already: say it once`,
		"define":                                `define has no name or no members: write define NAME MEMBER...`,
		"define a":                              `define has no name or no members: write define NAME MEMBER...`,
		"define $a b":                           `"$a": write the name without $ where it is defined, and with $ where it is used`,
		"define 1 b":                            `"1" cannot name a set: write letters of ASCII`,
		"define a@b c":                          `"a@b" cannot name a set`,
		"define a b\ndefine A c":                `$a stands in /etc/shared-altsd/policy.d/0.policy:1 already: give this one another name`,
		"define a b c b":                        `the member "b" stands in $a twice`,
		"define a b\ndefine c $a":               `the member "$a" of $c: sets do not hold others: name the members themselves`,
		"define a %wheel":                       `the member "%wheel" of $a: a set has names alone, no groups: write a rule for the group`,
		"define a *":                            `the member "*" of $a: a set has names alone: write it in the rule`,
		"define a *.example.com":                `the member "*.example.com" of $a: *. is not taken: write .example.com, which is every name below example.com`,
		"define a n[0-9]":                       `the member "n[0-9]" of $a: it holds '[', and there are no patterns within names`,
		"define a bob_ .example.com":            `the members of $a are neither all accounts (".example.com" is none) nor all machines ("bob_" is none)`,
		"allow in * $a@*":                       `the peer's account in "$a@*": there is no set $a before this line: write define a MEMBER..., in a line or a file before`,
		"define a .x\nallow in * $a@*":          `the peer's account in "$a@*": the set defined in /etc/shared-altsd/policy.d/0.policy:1 holds machines (".x" is no account): put it behind the @`,
		"define a bob_\nallow in * *@$a":        `the peer's machine in "*@$a": the set defined in /etc/shared-altsd/policy.d/0.policy:1 holds accounts ("bob_" is no machine): put it before the @`,
		"define a .x\nallow in $a *@*":          `the local account "$a": the set defined in /etc/shared-altsd/policy.d/0.policy:1 holds machines`,
		"allow":                                 `the rule has 1 words: write allow|deny in|out|any LOCAL USER@MACHINE [CONDITION=VALUE]...`,
		"allow in *":                            `the rule has 3 words: write`,
		"allow both * *@*":                      `the direction is "both": write in (this machine's programs accept), out (they dial) or any`,
		"allow in = *@*":                        `= stands for the local account in the peer's place: as the local account write * or a name`,
		"allow in .example.com *@*":             `the local account ".example.com": a domain stands behind the @: write the peer as *@.example.com`,
		"allow in alice,bob *@*":                `the local account "alice,bob": it holds ',': for several accounts write a set`,
		"allow in !root *@*":                    `the local account "!root": it holds '!': for several accounts write a set (define NAME ACCOUNT..., then $NAME), and for all but some a deny line before`,
		"allow in a* *@*":                       `the local account "a*": it holds '*', and there are no patterns within names and no regular expressions`,
		`allow in "alice" *@*`:                  `the local account "\"alice\"": quotes belong to the values of conditions`,
		"allow in älice *@*":                    `the local account "älice": it holds U+00E4, and names are plain ASCII`,
		"allow in -x *@*":                       `the local account "-x": it can be no account: an account name must begin with`,
		"allow in * *":                          `the peer "*" has no @: write USER@MACHINE, as in *@*; *@* is everybody`,
		"allow in * alice":                      `the peer "alice" has no @: write USER@MACHINE, as in alice@*`,
		"allow in * a.example.com":              `the peer "a.example.com" has no @: write USER@MACHINE, as in *@a.example.com`,
		"allow in * .example.com":               `the peer ".example.com" has no @: write USER@MACHINE, as in *@.example.com`,
		"allow in * %wheel":                     `the peer "%wheel" has no @: write USER@MACHINE, as in %wheel@*`,
		"allow in * ~x":                         `the peer "~x" has no @: write USER@MACHINE, as in alice@.example.com`,
		"allow in * service=grpc":               `the peer "service=grpc" has no @: write the peer, USER@MACHINE, before the conditions`,
		"allow in * alice@":                     `the peer "alice@" has nothing on one side of its @`,
		"allow in * @b":                         `the peer "@b" has nothing on one side of its @`,
		"allow in * *@*.example.com":            `the peer's machine in "*@*.example.com": *. is not taken: write .example.com, which is every name below example.com`,
		"allow in * *@node*":                    `the peer's machine in "*@node*": it holds '*', and there are no patterns within names`,
		"allow in * *@~^n[0-9]+$":               `it holds '~', and there are no patterns within names and no regular expressions: write the whole name, .example.com for every machine below, * for all, or a set`,
		"allow in * ~.*@b":                      `the peer's account in "~.*@b": it holds '~'`,
		"allow in * *@a,b":                      `for several machines write a set (define NAME MACHINE..., then $NAME)`,
		"allow in * *@=":                        `the peer's machine in "*@=": = stands for an account, before the @`,
		"allow in * *@%wheel":                   `the peer's machine in "*@%wheel": a group is one of accounts, before the @`,
		"allow in * *@.":                        `a domain has a name behind its dot: write .example.com, or * for all machines`,
		"allow in * *@a.example.com.":           `write it without the dot at its end: a.example.com`,
		"allow in * *@.example.com.":            `write it without the dot at its end: .example.com`,
		"allow in * *@..x":                      `it can be no machine: a machine name has an empty label`,
		"allow in * *@10.0.0.1":                 `it can be no machine: the last label of a machine name is all digits`,
		"allow in * *@10.0.0.0/8":               `addresses and networks are not judged, only names that certificates prove`,
		"allow in * *@[::1]":                    `it holds '['`,
		"allow in * *@localhost":                `localhost, and any name under it, is not a machine name`,
		"allow in * *@bücher.example":           `names are plain ASCII: write a machine's as its certificate has it (xn--...)`,
		"allow in * %@b":                        `the peer's account in "%@b": a group's name has 0 bytes`,
		"allow in * %a,b@c":                     `it holds a comma: write a rule for each group, and a comma in a group's name as %2C`,
		"allow in * %dömain@c":                  `write it as the attribute groups has it, what is not of [a-z0-9_.$+-@\] as %XX: domain%20users`,
		"allow in * %a%61@c":                    `a byte of a group's name is encoded that stands for itself`,
		"allow in %@x *@*":                      `a group's name begins with one of`,
		"allow in * *@* grpc":                   `"grpc" is no condition: write NAME=VALUE of service=, eku= and ca=, a value with blanks in double quotes, and # before a remark`,
		"allow in * *@* INC-4711":               `# before a remark`,
		"allow in * *@* port=1":                 `there is no condition "port=": write service=, eku= and ca=`,
		"allow in * *@* Service=a":              `there is no condition "Service=": write service=, eku= and ca=`,
		"allow in * *@* service=":               `the condition "service=": a service is an application protocol, 1 to 64 visible characters`,
		`allow in * *@* service="a b"`:          `a service is an application protocol, 1 to 64 visible characters`,
		"allow in * *@* service=*":              `a service is named whole: leave the condition out for every service`,
		"allow in * *@* service=a service=b":    `the condition "service=b": it stands there twice: write a rule for each value`,
		"allow in * *@* eku=codeSigning":        `it is no extended key usage: write shared-altsd, serverAuth, clientAuth, or numbers joined by dots`,
		"allow in * *@* eku=1.03.6":             `it is no extended key usage`,
		"allow in * *@* eku=1.3.6 eku=1.3.7":    `it stands there twice`,
		"allow in * *@* ca=abcd":                `"abcd" is no part of a distinguished name: write it as status and the log have it, such as "CN=Example CA,O=Example"`,
		"allow in * *@* ca=CN=Example CA":       `"CA" is no condition: write NAME=VALUE of service=, eku= and ca=, a value with blanks in double quotes`,
		`allow in * *@* ca="CN = a, O = b"`:     `"CN = a" is no part of a distinguished name`,
		`allow in * *@* ca="CN=a, O=b"`:         `" O=b" is no part of a distinguished name`,
		`allow in * *@* ca="/CN=a/O=b"`:         `"/CN=a/O=b" is no part of a distinguished name`,
		`allow in * *@* ca="CN=a (serial 1f)"`:  `write it without (serial 1f), since the CA's successor has the same name`,
		`allow in * *@* ca="CN=a`:               `a quote (") is not closed: write both, as in ca="CN=Example CA"`,
		`allow in * *@* ca=CN=a ca=` + key:      `it stands there twice`,
		"allow in * *@* key=" + key:             `key= belongs to what is denied at once: 'shared-altsd deny' takes keys and certificates`,
		`deny in * *@* cert=1:CN=a`:             `cert= belongs to what is denied at once: 'shared-altsd deny' takes keys and certificates`,
		"allow in * *@* \x01":                   `the line holds U+0001, which cannot be seen: take it out`,
		"# \u202edeny":                          `the line holds U+202E, which cannot be seen: take it out`,
		"allow in * *@*\r\r\n":                  `the line holds U+000D`,
		"\xff\xfea\x00l\x00":                    `the line is not UTF-8: save the file as UTF-8`,
		"#\n\nallow in * *@* #" + long(maxLine): `the line has 4112 bytes, more than 4096 (65536 with define): write several rules, or a set`,
		"#\ndefine a" + long(maxDefine):         `the line has 65544 bytes, more than 65536: this is not the file that was meant`,
		"allow in * *@*\n\n# x\n  deny x":       `the rule has 2 words`,
	} {
		_, err := ParseRules(files(text))
		line := fmt.Sprintf("/etc/shared-altsd/policy.d/0.policy:%d: ", strings.Count(strings.TrimSuffix(text, "\n"), "\n")+1)
		if err == nil || !strings.HasPrefix(err.Error(), line) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.100q:\n got %v\nwant %s%s", text, err, line, want)
		} else if !strings.Contains(err.Error()[len(line):], ":") && !strings.Contains(err.Error(), "write") {
			t.Errorf("%.100q: no cure: %v", text, err)
		}
	}
}

func long(n int) string { return strings.Repeat(" x", n/2)[:n] }

func TestRefusalsOfDenied(t *testing.T) {
	key := strings.Repeat("ab", 32)
	for text, want := range map[string]string{
		"allow any * *@*":                              `allow belongs to the files of --policy: what is denied here no rule allows; take the deny line away`,
		"mode permissive":                              `mode belongs to the files of --policy: here stand deny and define alone, and what is denied here is denied in either mode`,
		"default in allow":                             `default belongs to the files of --policy`,
		"drop any * *@*":                               `"drop" begins no line: begin with deny, or with define for a set`,
		"deny any *":                                   `the rule has 3 words: write deny in|out|any LOCAL USER@MACHINE`,
		"deny any * *@* key=" + key[:62]:               `it is no key: write the SHA-256 of the certificate's public key (SubjectPublicKeyInfo), 64 hexadecimal digits`,
		"deny any * *@* key=" + key + "00":             `it is no key`,
		"deny any * *@* key=" + key + " key=" + key:    `it stands there twice`,
		"deny any * *@* cert=1a":                       `it names no issuer: write SERIAL:"ISSUER", as status and the log have them`,
		`deny any * *@* cert=0x1a:"CN=a"`:              `the serial number is not hexadecimal: write it as status and the log have it, without 0x and colons`,
		`deny any * *@* cert=:"CN=a"`:                  `the serial number is not hexadecimal`,
		`deny any * *@* cert=1a:2b:"CN=a"`:             `the issuer: "2b:CN=a" is no part of a distinguished name`,
		`deny any * *@* cert=1a:`:                      `the issuer: "" is no part of a distinguished name`,
		`deny any * *@* cert=1:"CN=a" cert=2:"CN=a"`:   `it stands there twice`,
		`deny any * *@* cert=1:"CN=` + issuer256 + `"`: `the log has cut the name short: deny the key (key=), or take the name from the certificate`,
		"deny any * *@* port=1":                        `there is no condition "port=": write service=, eku= and ca=, key= and cert=`,
	} {
		_, err := ParseDenied(files(text))
		const line = "/etc/shared-altsd/policy.d/0.policy:1: "
		if err == nil || !strings.HasPrefix(err.Error(), line) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.100q:\n got %v\nwant %s%s", text, err, line, want)
		}
	}
}

var issuer256 = strings.Repeat("x", 253) + "..."

// Whatever a file holds, what is kept of it is bounded.
func TestBounds(t *testing.T) {
	for name, c := range map[string]struct {
		text, want string
	}{
		"rules":   {strings.Repeat("allow in a b@c\n", maxRules+1), "0.policy:65537: there are more than 65536 rules"},
		"members": {members(), "the sets have more than 65536 members"},
		"groups":  {localGroups(maxGroups + 1), "0.policy:513: the rules name more than 256 groups of local accounts"},
		"bytes":   {strings.Repeat(strings.Repeat("#", 1023)+"\n", MaxBytes/1024) + "#", "the files have more than 16777216 bytes together"},
	} {
		if _, err := ParseRules(files(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ParseRules(files(strings.Repeat("allow in a b@c\n", maxRules))); err != nil {
		t.Error(err)
	}
	if _, err := ParseRules(files(localGroups(maxGroups))); err != nil {
		t.Error(err)
	}
	if _, err := ParseRules(files("define a"+long(maxDefine)[:maxDefine-100]+"\n", "")); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Error(err) // the length is taken
	}
}

// localGroups are two rules for each of n groups.
func localGroups(n int) string {
	var b strings.Builder
	for i := range 2 * n {
		fmt.Fprintf(&b, "allow in %%g%d %%p%d@c\n", i/2, i)
	}
	return b.String()
}

func members() string {
	var b strings.Builder
	for s := range 40 {
		fmt.Fprintf(&b, "define s%d", s)
		for m := range 2000 {
			fmt.Fprintf(&b, " n%d", m)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// All files are one text: what the first says stands for the others, and a mistake in the last refuses all.
func TestFilesAreOne(t *testing.T) {
	p := rules(t, "define a b", "allow in * $a@*", "default out allow")
	if v := p.Judge(conn("in", "x", "b@m")); v.Rule != "1.policy:1" || !v.Allowed {
		t.Errorf("%+v", v)
	}
	if r, err := ParseRules(files("allow in * a@b", "allow in * *", "x")); err == nil || r != nil || !strings.Contains(err.Error(), "/1.policy:1: ") {
		t.Errorf("%v %v", r, err)
	}
	if d, err := ParseDenied(files("deny in * a@b", "deny")); err == nil || d != nil {
		t.Errorf("%v %v", d, err)
	}
	if d, err := ParseDenied(nil); err != nil || New(d, nil).Judge(conn("in", "a", "b@c")) != (Verdict{Allowed: true}) {
		t.Errorf("nothing denied: %v", err)
	}
}
