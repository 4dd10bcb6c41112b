package main

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// rulesIn makes a directory of rules, and one of what is denied below it, and returns both.
func rulesIn(t *testing.T, rules, denied string) (dir, deniedDir string) {
	t.Helper()
	base := testprog.Dir(t)
	dir = filepath.Join(base, "policy.d")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "10-site.policy"), []byte(rules))
	write(t, filepath.Join(base, "denied.policy"), []byte(denied))
	return dir, base
}

// What files would say: the verdict, the line and its text, by the exit status too.
func TestPolicyTest(t *testing.T) {
	dir, denied := rulesIn(t, `default out allow
deny  any root  *@*                       # before the next
allow any *     =@.hpc.example.com
allow in  %ops  alice@alpha.example.com   service=6432
allow in  *     *@alpha.example.com       ca="CN=Example CA"
deny  in  *     %guests@alpha.example.com
allow in  %no-such-group *@*
`, "deny any * *@stolen.example.com # INC-4711\n")
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"bob@a.hpc.example.com bob --in --local-group=", 0, "in        allowed by 10-site.policy:3: allow any *     =@.hpc.example.com\n"},
		{"Bob@A.HPC.example.com BOB --local-group=", 0, "in        allowed by 10-site.policy:3: allow any *     =@.hpc.example.com\n" +
			"out       allowed by 10-site.policy:3: allow any *     =@.hpc.example.com\n"},
		{"root@a.hpc.example.com root --out", 1, "out       refused by 10-site.policy:2: deny  any root  *@*                       # before the next\n"},
		{"alice@beta.example.com bob --local-group=", 1, "in        refused by default in\nout       allowed by default out\n"},
		{"alice@alpha.example.com bob --local-group ops --in --service 6432", 0, "in        allowed by 10-site.policy:4: allow in  %ops  " +
			"alice@alpha.example.com   service=6432\ngroups    of the local account: %ops\n"},
		{"alice@alpha.example.com bob --local-group= --in --service 6432", 1, "in        refused by default in\n" +
			"          unless the peer's certificate is as in 10-site.policy:5: allow in  *     *@alpha.example.com       ca=\"CN=Example CA\"\n"},
		{"alice@alpha.example.com bob --local-group= --in --condition ca=CN=Another", 1, "refused by default in"},
		{"alice@alpha.example.com bob --local-group= --in --condition CA", 0, "in        allowed by 10-site.policy:5"},
		{"alice@alpha.example.com bob --local-group= --in --condition port=1", 2, "there is no condition \"port=\""},
		{"alice@alpha.example.com bob --local-group= --in --group Guests", 1, "refused by 10-site.policy:6"},
		{"bob@stolen.example.com bob --local-group= --denied DENIED", 1, "in        refused, denied at once by denied.policy:1: deny any * " +
			"*@stolen.example.com # INC-4711\nout       refused, denied at once by denied.policy:1"},
		{"bob@stolen.example.com " + me(t) + " --in --denied DENIED", 1, "denied at once"}, // with groups from the user database
		{"bob@stolen.example.com no-such-account-here", 2, `no account "no-such-account-here" in the user database`},
		{"bob@stolen.example.com bob --local-group Bad,Group", 2, `the group "Bad,Group": it holds a comma`},
		{"bob bob --local-group=", 2, `the peer "bob" is not ACCOUNT@MACHINE`},
		{"bob@stolen.example.com --in", 2, "write policy test PEER LOCAL"},
		{"bob@b.example.com bob --policy /no/such/dir", 2, "/no"},
	} {
		args := append([]string{"policy", "test"}, strings.Fields(strings.ReplaceAll(c.args, "DENIED", denied))...)
		if i := slices.Index(args, "CA"); i > 0 {
			args[i] = `ca="CN=Example CA"`
		}
		if !strings.Contains(c.args, "--policy") {
			args = append(args, "--policy", dir)
		}
		code, out, errs := altsd(t, args...)
		if code != c.code || !strings.Contains(out+errs, c.want) {
			t.Errorf("%s: exit status %d, %s%s\nwant %d, %s", c.args, code, out, errs, c.code, c.want)
		}
	}
	// What only the denials say is a question too.
	if code, out, _ := altsd(t, "policy", "test", "bob@b.example.com", "bob", "--denied", denied, "--in"); code != 0 ||
		out != "in        allowed: there are no rules\n" {
		t.Errorf("%d, %s", code, out)
	}
	write(t, filepath.Join(dir, "20.policy"), []byte("mode permissive\n"))
	if code, out, _ := altsd(t, "policy", "test", "bob@b.example.com", "bob", "--policy", dir, "--local-group=", "--in"); code != 0 ||
		out != "in        allowed, since the rules are permissive; it would be refused by default in\n" {
		t.Errorf("%d, %s", code, out)
	}
}

// check says of rules alone what is wrong with them, without a certificate.
func TestCheckPolicy(t *testing.T) {
	dir, denied := rulesIn(t, "default out allow\nallow any * *@.x\nallow in root *@a.x\nallow in %no-such-group *@b\ndeny any * *@c\n", "deny any * a@b\n")
	code, out, errs := altsd(t, "check", "--policy", dir, "--denied", denied)
	if want := "policy    4 rules, enforcing, default in deny, default out allow\ndenied    1 lines\n" +
		"warning   policy.d/10-site.policy:3: never reached: 10-site.policy:2 allows all of it; take it away, or put it before\n" +
		"warning   policy.d/10-site.policy:4: matches nobody: this machine's user database has no group \"no-such-group\"\n"; code != 0 || out != want {
		t.Errorf("%d, %s%s\nwant %s", code, out, errs, want)
	}
	// With a certificate, both.
	ca := newCA(t, testca.Options{})
	files := testprog.Dir(t)
	pem, caPEM := write(t, filepath.Join(files, "a.pem"), issue(t, ca, testca.Leaf{Hosts: []string{"a.test"}}).PEM()), write(t, filepath.Join(files, "ca.pem"), ca.PEM())
	code, out, errs = altsd(t, "check", "--credentials", pem, "--ca", caPEM, "--policy", dir)
	if code != 0 || !strings.Contains(out, "policy    4 rules") || !strings.Contains(out, "would accept this machine") {
		t.Errorf("%d, %s%s", code, out, errs)
	}
	write(t, filepath.Join(dir, "20.policy"), []byte("\nallow in * *@*.example.com\n"))
	for _, args := range [][]string{{"check", "--policy", dir}, {"check", "--policy", dir, "--credentials", pem, "--ca", caPEM}} {
		code, out, errs = altsd(t, args...)
		if code != 1 || out != "" || !strings.Contains(errs, "--policy: policy.d/20.policy:2: the peer's machine in \"*@*.example.com\": *. is not taken: write .example.com") {
			t.Errorf("%q: %d, %s%s", args, code, out, errs)
		}
	}
	code, out, errs = altsd(t, "check", "--denied", dir)
	if code != 1 || !strings.Contains(errs, "has neither denied.policy nor denied.d: nothing is denied there") {
		t.Errorf("%d, %s%s", code, out, errs)
	}
}

// What the policy in force would say, of the caller's own account to everybody, of all to root.
func TestPolicyTestOfDaemon(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be two accounts")
	}
	const name, group = "daemon", "daemon" // of every system
	attr, _ := ordinary(t, name)
	dir, denied := rulesIn(t, "default out allow\nallow in %"+group+" alice@a.example.com # for INC-1\nallow in "+name+
		" *@b.example.com eku=serverAuth # for INC-2\n", "deny any * mallory@* # for INC-3\n")
	p, _, _ := one(t, testca.Options{}, testca.Leaf{}, "--policy", dir, "--denied", denied)
	ask := func(attr *syscall.SysProcAttr, args ...string) (int, string) {
		t.Helper()
		cmd := exec.Command(program(t), append([]string{"policy", "test", "--socket", p.socket, "--daemon-uid", strconv.Itoa(os.Geteuid())}, args...)...)
		cmd.SysProcAttr = attr
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), string(out)
	}
	for _, c := range []struct {
		attr *syscall.SysProcAttr
		args string
		code int
		want string
	}{
		{nil, "alice@a.example.com " + name + " --in", 0, "in        allowed by 10-site.policy:2: allow in %" + group + " alice@a.example.com # for INC-1\n"},
		{nil, "alice@a.example.com " + name + " --in --local-group=", 1, "in        refused by default in\n"},
		{nil, "x@b.example.com " + name + " --in --local-group=", 1, "unless the peer's certificate is as in 10-site.policy:3: allow in " + name +
			" *@b.example.com eku=serverAuth # for INC-2\n"},
		{nil, "mallory@b.example.com " + name + " --out", 1, "out       refused, denied at once by denied.policy:1: deny any * mallory@* # for INC-3\n"},
		{nil, "alice@a.example.com no-such-account-here", 2, "no account \"no-such-account-here\""},
		{nil, "alice@* " + name, 2, "the peer's machine in \"alice@*\""},
		// The account itself learns the rule, and no remark of the administrator's.
		{attr, "alice@a.example.com " + name + " --in", 0, "in        allowed by 10-site.policy:2: allow in %" + group + " alice@a.example.com\n"},
		{attr, "x@b.example.com " + name, 1, "in        refused by default in\n          unless the peer's certificate is as in 10-site.policy:3: allow in " +
			name + " *@b.example.com eku=1.3.6.1.5.5.7.3.1\nout       allowed by default out\n"},
		{attr, "mallory@b.example.com " + name + " --out", 1, "out       refused, denied at once by denied.policy:1: deny any * mallory@*\n"},
		{attr, "alice@a.example.com " + me(t), 2, "you are " + name + ", and may ask of your own account alone"},
		{attr, "x@b.example.com " + name + " --in --local-group wheel", 2, "only root and the daemon's own account may say in which groups an account is"},
	} {
		if code, out := ask(c.attr, strings.Fields(c.args)...); code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%v %s: exit status %d, %s\nwant %d, %s", c.attr, c.args, code, out, c.code, c.want)
		}
	}
}

// Conditions are met by what a real peer's certificate has, as status and the log write it.
func TestConditionsOfPeers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may deny")
	}
	ca, named := newCA(t, testca.Options{}), newCA(t, testca.Options{Name: "Ex, ample CA + #1 <\u00fc>=\\;"})
	leaf := issue(t, named, testca.Leaf{Hosts: []string{"a.test", "other.test"}, EKUs: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		UnknownEKUs: []asn1.ObjectIdentifier{{1, 3, 6, 1, 4, 1, 32473, 1, 1}}})
	dir, denied := rulesIn(t, "default in allow\ndefault out allow\n", "")
	write(t, filepath.Join(denied, "a.pem"), leaf.PEM())
	p := start(t, "--credentials", filepath.Join(denied, "a.pem"), "--ca", write(t, filepath.Join(denied, "ca.pem"), append(ca.PEM(), named.PEM()...)),
		"--policy", dir, "--denied", denied, "--machine-name", "a.test")
	key := func(c *x509.Certificate) string { return fmt.Sprintf("%x", sha256.Sum256(c.RawSubjectPublicKeyInfo)) }
	_, status := asJSON(t, "status", "--socket", p.socket)
	certificate := status["certificate"].(map[string]any)
	for _, c := range []struct {
		condition string
		holds     bool
		denied    bool // a condition of what is denied alone
	}{
		{`ca="` + named.Cert.Subject.String() + `"`, true, false},
		{"ca=" + key(named.Cert), true, false},
		{"ca=" + key(ca.Cert), false, false},
		{`ca="CN=another"`, false, false},
		{"eku=clientAuth", true, false},
		{"eku=1.3.6.1.4.1.32473.1.1", true, false},
		{"eku=serverAuth", false, false},
		{"service=" + spoken[0], true, false},
		{"service=grpc", false, false},
		{"service=6432", false, false},
		{"key=" + key(leaf.Cert), true, true},
		{"key=" + key(named.Cert), false, true},
		{"other.test", true, true}, // by any of its names
		{"another.test", false, true},
		{fmt.Sprintf(`cert=%s:"%s"`, certificate["serial"], certificate["issuer"]), true, true},
		{fmt.Sprintf(`cert=%X:"%s"`, leaf.Cert.SerialNumber, leaf.Cert.Issuer), true, true},
		{fmt.Sprintf(`cert=%x:"%s"`, named.Cert.SerialNumber, named.Cert.Issuer), false, true}, // the trusted CA is none of the path
	} {
		let := c.holds
		if c.denied {
			let = !c.holds
			if code, out, errs := altsd(t, "deny", c.condition, "--socket", p.socket, "--denied", denied); code != 0 {
				t.Fatalf("%s: %s%s", c.condition, out, errs)
			}
		} else {
			write(t, filepath.Join(dir, "10-site.policy"), []byte("default out allow\nallow in * *@a.test "+c.condition+"\n"))
			if code, out, errs := altsd(t, "reload", "--socket", p.socket); code != 0 {
				t.Fatalf("%s: %s%s", c.condition, out, errs)
			}
		}
		if _, _, err := talk(t, p.socket, p.socket); (err == nil) != let || err != nil && !strings.Contains(err.Error(), "denied_by_policy") {
			t.Errorf("%s: %v", c.condition, err)
		}
		if c.denied {
			if code, out, errs := altsd(t, "deny", "--remove", "1", "--socket", p.socket, "--denied", denied); code != 0 {
				t.Fatalf("%s: %s%s", c.condition, out, errs)
			}
		} else {
			write(t, filepath.Join(dir, "10-site.policy"), []byte("default in allow\ndefault out allow\n"))
			if code, out, errs := altsd(t, "reload", "--socket", p.socket); code != 0 {
				t.Fatalf("%s: %s%s", c.condition, out, errs)
			}
		}
	}
}

// A denial that the daemon did not read is none: the file is as it was, but for what another wrote into it meanwhile.
func TestDenyOfAnotherFile(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may deny")
	}
	const before = "deny any * *@stolen.example.com\n"
	_, denied := rulesIn(t, "", before)
	_, other := rulesIn(t, "", before)
	p, _, _ := one(t, testca.Options{}, testca.Leaf{}, "--denied", denied)
	code, _, errs := altsd(t, "deny", "mallory@b.example.com", "--socket", p.socket, "--denied", other)
	data, err := os.ReadFile(filepath.Join(other, "denied.policy"))
	if code != 1 || !strings.Contains(errs, "the daemon reads another file, in "+denied+": give --denied "+denied) || err != nil || string(data) != before {
		t.Errorf("%d, %s; the file is %q, %v", code, errs, data, err)
	}
	d := &denyFlags{daemonFlags: daemonFlags{socket: p.socket, uid: os.Geteuid()}, dir: denied}
	_, err = d.enforce([]byte("deny any * mallory@b.example.com\n"), "root", func() error {
		t.Error("what another wrote was taken back")
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "somebody else wrote denied.policy meanwhile") {
		t.Error(err)
	}
}

// A denied.policy that is lost denies on, and what is denied next does not lift it.
func TestDenyWhereTheFileIsLost(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may deny")
	}
	ca := newCA(t, testca.Options{})
	_, denied := rulesIn(t, "", "deny any * mallory@b.test\n")
	p := start(t, "--credentials", write(t, filepath.Join(denied, "a.pem"), issue(t, ca, testca.Leaf{Hosts: []string{"a.test"}}).PEM()),
		"--ca", write(t, filepath.Join(denied, "ca.pem"), ca.PEM()), "--denied", denied)
	denies := func(account string, want bool) {
		t.Helper()
		code, out, errs := altsd(t, "policy", "test", account+"@b.test", "root", "--in", "--local-group", "", "--socket", p.socket)
		if (code == 1) != want {
			t.Errorf("%s, %d: %s%s", account, code, out, errs)
		}
	}
	file := filepath.Join(denied, "denied.policy")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := altsd(t, "deny", "eve@b.test", "--socket", p.socket, "--denied", denied); code != 1 ||
		!strings.Contains(errs, "denied.policy is gone, and denied somebody: put it back") {
		t.Errorf("%d: %s%s", code, out, errs)
	}
	if _, err := os.Lstat(file); err == nil {
		t.Error("deny has made the file anew")
	}
	denies("mallory", true)
	denies("eve", false)
	write(t, file, nil) // which lifts all
	if code, out, errs := altsd(t, "deny", "eve@b.test", "--socket", p.socket, "--denied", denied); code != 0 {
		t.Errorf("%d: %s%s", code, out, errs)
	}
	denies("mallory", false)
	denies("eve", true)
}

// deny --cert takes a certificate by its key: whoever has that may make others, with other serial numbers. Only an intermediate's
// own is nobody's at the end of a path.
func TestDenyCertPattern(t *testing.T) {
	ca := testca.MustCA(t, testca.Options{Name: "Example CA"})
	sub := testca.MustIntermediate(t, ca, testca.Options{Name: "below"})
	issued, self := testca.MustIssue(t, ca, testca.Leaf{}), testca.MustIssue(t, ca, testca.Leaf{SelfSigned: true})
	for name, c := range map[string]struct {
		pem  []byte
		want string
	}{
		"a machine's":     {issued.PEM(), fmt.Sprintf("key=%x", sha256.Sum256(issued.Cert.RawSubjectPublicKeyInfo))},
		"self-signed":     {self.PEM(), fmt.Sprintf("key=%x", sha256.Sum256(self.Cert.RawSubjectPublicKeyInfo))},
		"an intermediate": {sub.PEM(), fmt.Sprintf(`cert=%x:"CN=Example CA"`, sub.Cert.SerialNumber)},
	} {
		file := filepath.Join(t.TempDir(), "cert.pem")
		write(t, file, c.pem)
		if got, err := certPattern(file); got != c.want || err != nil {
			t.Errorf("%s: %s, %v, want %s", name, got, err, c.want)
		}
	}
}
