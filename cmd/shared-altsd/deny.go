package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/adminclient"
	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/daemon"
	"github.com/shared-altsd/shared-altsd/internal/denylist"
)

var denyCommand = &cli.Command{
	Name:    "deny",
	Args:    cli.Args{Text: "[PATTERN]"},
	Summary: "deny an account, a machine or a certificate at once, before all rules",
	About: `
Adds PATTERN to what is denied on this machine, has the daemon read it, and returns when it is in force. What is denied
here no rule of --policy allows, in either mode, and what is wrong with other files keeps it out of nothing. Only for root.

PATTERN is ACCOUNT@MACHINE, *@.DOMAIN, the full name of a machine (one of the names of its certificate), key=HEX, the
SHA-256 of a certificate's public key, or cert=SERIAL:"ISSUER", as the log has them; --cert takes these from a file. Exit
status 1, with the reason, if the daemon refuses it; the file is then as it was. Other files, of a whole fleet, are
denied.d/*.policy; the daemon takes a change of them within seconds.

  shared-altsd deny mallory@login2.example.com --reason INC-4711
  shared-altsd deny login2.example.com --direction in
  shared-altsd deny --cert stolen.pem
  shared-altsd deny --list
  shared-altsd deny --remove mallory@login2.example.com`,
	Setup: func() ([]cli.Option, func([]string) error) {
		d := new(denyFlags)
		return d.options(), d.run
	},
}

// denyFlags are what the flags of deny say.
type denyFlags struct {
	daemonFlags
	dir, reason, direction, account, cert string
	list, remove                          bool
}

func (d *denyFlags) options() []cli.Option {
	const what = "What is denied:"
	return append(d.daemonFlags.options(),
		cli.Option{Name: "reason", Group: what, Value: cli.Func("TEXT", func(v string) error { d.reason = v; return nil }),
			Help: "Why, for those who read the file and the log."},
		cli.Option{Name: "direction", Default: "any", Group: what, Value: cli.Choice(&d.direction, "in|out|any", "in", "out", "any"),
			Help: "in: the peer may not connect to this machine; out: this machine may not connect to it."},
		cli.Option{Name: "account", Default: "*", Group: what, Value: cli.String(&d.account, "LOCAL"),
			Help: "The account of this machine that may not talk to it; * for all."},
		cli.Option{Name: "cert", Group: what, Value: cli.File(&d.cert),
			Help: "PEM file with the certificate to deny, in the place of PATTERN: by its key, and a CA's by serial number and issuer."},
		cli.Option{Name: "list", Group: what, Value: cli.Switch(&d.list),
			Help: "Print what is denied, with numbers, and change nothing."},
		cli.Option{Name: "remove", Group: what, Value: cli.Switch(&d.remove),
			Help: "Let again what PATTERN denies, or the denial of that number in --list."},
		cli.Option{Name: "denied", Default: daemon.DefaultDeniedDir, Group: what,
			Value: cli.Func("DIR", func(v string) error { d.dir = v; return nil }).CompleteFiles(),
			Help:  "Directory of what is denied, that of the daemon's --denied."})
}

func (d *denyFlags) run(args []string) error {
	switch {
	case len(args) > 1:
		return cli.Usagef("one PATTERN at a time: %q is too much", args[1])
	case d.list && (len(args) > 0 || d.cert != "" || d.remove):
		return cli.Usagef("--list goes by itself")
	case d.list:
		return d.print(os.Stdout)
	case (len(args) == 1) == (d.cert != ""):
		return cli.Usagef("give PATTERN, such as mallory@login2.example.com, or --cert FILE")
	case d.remove && d.reason != "":
		return cli.Usagef("--reason goes with a denial: nothing is written where one is removed")
	}
	rule, n, err := d.rule(args)
	if err != nil {
		return err
	}
	f, err := denylist.Open(d.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	who := asked()
	if !f.There() {
		// A file that has been lost, and still denies: one that is made anew would lift what it denied.
		if _, err := d.admin().ReadDenied(who); refused(err) {
			return err
		}
	}
	data, changed := f.Data(), true
	var done []string
	if d.remove {
		gone := rule.Is
		if n > 0 {
			gone = func(i int, _ denylist.Entry) bool { return i == n }
		}
		var removed []string
		if data, removed = denylist.Remove(data, gone); len(removed) == 0 {
			return fmt.Errorf("nothing like it is denied by %s/%s ('shared-altsd deny --list' has what is; what a file of %s denies "+
				"is removed there)", d.dir, daemon.DeniedFile, daemon.DeniedMore)
		}
		for _, r := range removed {
			done = append(done, "removed:  "+r)
		}
	} else {
		remark := fmt.Sprintf("by %s at %s", who, time.Now().UTC().Format(time.RFC3339))
		if reason := denylist.Clean(d.reason); reason != "" {
			remark += ": " + reason
		}
		done = []string{"denied:   " + string(rule)}
		if data, changed = denylist.Add(data, rule, remark); !changed {
			done[0] += ", already"
		}
	}
	back := func() error { return nil }
	if changed {
		if back, err = f.Write(data); err != nil {
			return err
		}
	}
	state, err := d.enforce(data, who, back)
	if err == nil {
		_, err = fmt.Println(strings.Join(append(done, state), "\n"))
	}
	return err
}

// rule returns the rule that the command names, or, where one is removed by it, its number in --list.
func (d *denyFlags) rule(args []string) (rule denylist.Rule, n int, err error) {
	var pattern string
	switch {
	case d.cert == "":
		pattern = args[0]
	default:
		if pattern, err = certPattern(d.cert); err != nil {
			return "", 0, fmt.Errorf("--cert: %w", err)
		}
	}
	if n, err := strconv.Atoi(pattern); d.remove && err == nil && n > 0 {
		return "", n, nil
	}
	if rule, err = denylist.Pattern(pattern, d.direction, d.account); err != nil {
		err = cli.Usagef("%v", err)
	}
	return rule, 0, err
}

// enforce has the daemon read the file, which holds data, and says what is so then. It takes the change back if the daemon
// refuses.
func (d *denyFlags) enforce(data []byte, who string, back func() error) (state string, err error) {
	resp, err := d.admin().ReadDenied(who)
	if sum := sha256.Sum256(data); err == nil && !bytes.Equal(resp.Sha256, sum[:]) {
		if dir, _ := filepath.Abs(d.dir); dir == resp.Dir {
			return "", fmt.Errorf("somebody else wrote %s meanwhile, and what he wrote is in force: look ('shared-altsd deny --list'), "+
				"and deny again", daemon.DeniedFile)
		}
		err = adminclient.Refused{Err: fmt.Errorf("the daemon reads another file, in %s: give --denied %s", resp.Dir, resp.Dir)}
	}
	switch {
	case err == nil:
		return fmt.Sprintf("in force: %d denials, by the daemon", resp.Entries), nil
	case adminclient.NoDaemon(err):
		return fmt.Sprintf("written:  no daemon runs here (%v); the next one begins with it", err), nil
	case refused(err):
		if e := back(); e != nil {
			return "", fmt.Errorf("%w; and %s could not be put back: %w", err, daemon.DeniedFile, e)
		}
		return "", fmt.Errorf("%w; %s is as it was", err, daemon.DeniedFile)
	}
	return "", fmt.Errorf("%s is written, and a daemon that runs reads it by itself within seconds, but whether it is in force "+
		"by now is not known (see 'shared-altsd status', or its log): %w", daemon.DeniedFile, err)
}

// refused reports whether the daemon has refused what it read.
func refused(err error) bool {
	_, is := err.(adminclient.Refused)
	return is
}

// print prints what is denied.
func (d *denyFlags) print(w io.Writer) error {
	files, err := daemon.ReadDenied(d.dir)
	if err != nil {
		return err
	}
	for _, f := range files.Files {
		for i, e := range denylist.Entries(f.Data) {
			where := strconv.Itoa(i + 1)
			if f.Name != daemon.DeniedFile {
				where = fmt.Sprintf("%s:%d", f.Name, e.Line)
			}
			if _, err := fmt.Fprintf(w, "%-4s %s\n", where, e.Text); err != nil {
				return err
			}
		}
	}
	return nil
}

// certPattern returns the pattern of the first certificate of a PEM file: its key, of which whoever has it may make others, where
// DNS vouches for the key; of an intermediate CA, which is nobody's own, serial number and issuer.
func certPattern(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return "", fmt.Errorf("%s holds no certificate in PEM", path)
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return "", fmt.Errorf("%s: %w", path, err)
		}
		if c.IsCA && !bytes.Equal(c.RawIssuer, c.RawSubject) {
			return fmt.Sprintf(`cert=%x:"%s"`, c.SerialNumber, c.Issuer), nil
		}
		return fmt.Sprintf("key=%x", sha256.Sum256(c.RawSubjectPublicKeyInfo)), nil
	}
}

// asked returns who denies: the account, and, by the caller's own word, the one behind sudo or of the login.
func asked() string {
	name := func(uid string) string {
		if u, err := user.LookupId(uid); err == nil {
			return u.Username
		}
		return "uid " + uid
	}
	who := name(strconv.Itoa(os.Geteuid()))
	login, _ := os.ReadFile("/proc/self/loginuid")
	const none = "4294967295"
	behind := os.Getenv("SUDO_USER")
	if uid := strings.TrimSpace(string(login)); behind == "" && uid != "" && uid != none {
		behind = name(uid)
	}
	if behind != "" && behind != who {
		who += " for " + behind
	}
	return denylist.Clean(who)
}
