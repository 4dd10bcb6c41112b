package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// A usage error is one line that names the flag and the cure, and exit status 2.
func TestUsageErrors(t *testing.T) {
	for _, tt := range []struct {
		args string
		want []string
	}{
		{"", []string{"no command", "serve"}},
		{"server", []string{`"server"`, "serve"}},
		{"--socket x serve", []string{"--socket", "command first"}},
		{"serve extra", []string{`"extra"`, "--help"}},
		{"serve -socket x", []string{"-socket", "two hyphens"}},
		{"serve --no-such-flag", []string{"--no-such-flag", "--help"}},
		{"serve --credential x", []string{"--credential", "did you mean --credentials?"}},
		{"serve --socket", []string{"--socket", "needs a value", "PATH"}},
		{"serve --credentials --ca x", []string{"--credentials", "needs a value"}},
		{"serve --credentials=", []string{"--credentials", "empty"}},
		{"serve --ca x", []string{"--credentials is missing", "dev-ca"}},
		{"serve --credentials x", []string{"--ca is missing"}},
		{"serve --credentials a --credentials b", []string{"--credentials", "twice"}},
		{"serve --socket @x", []string{"--socket", "abstract"}},
		{"serve --socket x", []string{"--socket", "absolute"}},
		{"serve --socket /a/../x", []string{"--socket", "write /x"}},
		{"serve --socket /a,uids=9-1", []string{"--socket", "N-M"}},
		{"serve --socket /a --socket /a,uids=1-2", []string{"--socket", "twice"}},
		{"serve --socket-mode 0999", []string{"--socket-mode", "octal"}},
		{"serve --socket-mode 4755", []string{"--socket-mode", "octal"}},
		{"serve --socket-group no-such-group-here", []string{"--socket-group", "groupadd"}},
		{"serve --secure-naming lax", []string{"--secure-naming", "strict"}},
		{"serve --server-accounts a,,b", []string{"--server-accounts"}},
		{"serve --server-accounts Al/ice", []string{"--server-accounts"}},
		{"serve --publish-groups wheel,-staff", []string{"--publish-groups"}},
		{"serve --machine-name localhost", []string{"--machine-name"}},
		{"serve --machine-name 192.0.2.1", []string{"--machine-name"}},
		{"serve --require-eku serverAuth", []string{"--require-eku", "OID"}},
		{"serve --require-eku 1.2", []string{"--require-eku", "OID"}},
		{"serve --ca system", []string{"--ca", "system"}},
		{"serve --ca Bad_Name=x", []string{"--ca"}},
		{"serve --handshake-timeout 20", []string{"--handshake-timeout", "90s"}},
		{"serve --handshake-timeout 1h", []string{"--handshake-timeout", "5m"}},
		{"serve --statement-lifetime 25h", []string{"--statement-lifetime", "23h"}},
		{"serve --drain-timeout -1s", []string{"--drain-timeout"}},
		{"serve --max-handshakes 0", []string{"--max-handshakes", "1 to"}},
		{"serve --min-version 2", []string{"--min-version", "1 to 1"}},
		{"serve --allow-domain-accounts=maybe", []string{"--allow-domain-accounts", "true"}},
		{"serve --log-level loud", []string{"--log-level", "debug"}},
		{"serve --log-format xml", []string{"--log-format", "json"}},
		{"check extra", []string{`"extra"`}},
		{"check --socket /x", []string{"--socket"}},
		{"resolve --resolver example.com", []string{"--resolver", "127.0.0.1:53"}},
		{"resolve --socket x", []string{"--socket", "absolute"}},
		{"resolve a.test b.test", []string{"more than one MACHINE"}},
		{"fetch-crl --ca x", []string{"--into is missing"}},
		{"fetch-crl --into /x", []string{"--ca is missing"}},
		{"fetch-crl --into /x --url file:///x", []string{"--url", "neither http nor https"}},
		{"fetch-crl --extract x", []string{"--certificates is missing"}},
		{"fetch-crl --max-size 1", []string{"--max-size", "1024 to"}},
		{"demo extra", []string{`"extra"`}},
		{"dev-ca /tmp/x", []string{"HOST", "DIR"}},
		{"dev-ca /tmp/x 192.0.2.1", []string{"IP address", "--ip HOST=192.0.2.1"}},
		{"dev-ca /tmp/x localhost", []string{"localhost"}},
		{"dev-ca /tmp/x a.test A.test", []string{"twice"}},
		{"dev-ca /tmp/x ca", []string{"another name"}},
		{"dev-ca /tmp/x a.test --ip 192.0.2.1", []string{"--ip", "HOST=ADDRESS"}},
		{"dev-ca /tmp/x a.test --ip b.test=192.0.2.1", []string{"--ip", "b.test"}},
	} {
		code, stdout, stderr := altsd(t, strings.Fields(tt.args)...)
		if code != 2 || stdout != "" || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: exit status %d, stdout %q, stderr %q", tt.args, code, stdout, stderr)
		}
		for _, want := range tt.want {
			if !strings.Contains(stderr, want) {
				t.Errorf("%q: no %q in %q", tt.args, want, stderr)
			}
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"-h"}, {"help"}} {
		code, out, stderr := altsd(t, args...)
		if code != 0 || stderr != "" {
			t.Errorf("%q: exit status %d, %q", args, code, stderr)
		}
		for _, c := range newProgram().Commands {
			if !strings.Contains(out, "\n  "+c.Name+" ") {
				t.Errorf("%q does not name %s", args, c.Name)
			}
		}
	}
	for _, c := range newProgram().Commands {
		_, out, _ := altsd(t, "help", c.Name)
		code, out2, stderr := altsd(t, c.Name, "--help")
		if code != 0 || stderr != "" || out != out2 {
			t.Errorf("%s --help: exit status %d, %q", c.Name, code, stderr)
		}
		for _, o := range allOptions(c) {
			if !strings.Contains(out, "\n  --"+o.Name) || o.Help == "" {
				t.Errorf("%s --help does not explain --%s", c.Name, o.Name)
			}
		}
		for _, line := range strings.Split(out, "\n") {
			if len(line) > 108 {
				t.Errorf("%s --help has a line of %d bytes: %s", c.Name, len(line), line)
			}
		}
	}
	code, out, _ := altsd(t, "--version")
	if code != 0 || !strings.HasPrefix(out, "shared-altsd ") || !strings.Contains(out, "go1.") {
		t.Errorf("--version: exit status %d, %q", code, out)
	}
}

// allOptions returns the options of a command with --config, where it has that.
func allOptions(c *cli.Command) []cli.Option {
	options, _ := c.Setup()
	if c.Config != nil {
		options = append(options, cli.Option{Name: "config", Help: c.Config.Help})
	}
	return options
}

// The names and the defaults of the table are sound: a default is a value that the option takes.
func TestOptionTables(t *testing.T) {
	for _, c := range newProgram().Commands {
		seen := map[string]bool{"help": true, "version": true}
		for _, o := range allOptions(c) {
			if seen[o.Name] {
				t.Errorf("%s has --%s twice", c.Name, o.Name)
			}
			seen[o.Name] = true
		}
		options, _ := c.Setup()
		if code, stderr := parse(options, nil); code != 0 {
			t.Errorf("the defaults of %s: %s", c.Name, stderr)
		}
	}
}

// parse sets options as a command of the program has them set, and gives the exit status and the error.
func parse(options []cli.Option, config *cli.ConfigFile, args ...string) (code int, stderr string) {
	c := &cli.Command{Name: "test", Config: config, Setup: func() ([]cli.Option, func([]string) error) {
		return options, func([]string) error { return nil }
	}}
	var errs strings.Builder
	p := &cli.Program{Name: "program", Commands: []*cli.Command{c}}
	return p.Run(append([]string{"test"}, args...), io.Discard, &errs), errs.String()
}

// What keeps the daemon from starting is one line and exit status 1, and no socket is touched.
func TestStartFailures(t *testing.T) {
	dir := testprog.Dir(t)
	ca := newCA(t, testca.Options{})
	good := issue(t, ca, testca.Leaf{Hosts: []string{"a.test"}})
	caFile := write(t, filepath.Join(dir, "ca.pem"), ca.PEM())
	file := func(name string, data []byte, mode os.FileMode) string {
		path := write(t, filepath.Join(dir, name), data)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	goodFile := file("good.pem", good.PEM(), 0o600)
	socket := filepath.Join(dir, "socket")
	for _, tt := range []struct{ name, credentials, key, ca, want string }{
		{"no file", filepath.Join(dir, "none.pem"), "", caFile, "give the right path"},
		{"a directory", dir, "", caFile, "not a plain file"},
		{"too large", file("large.pem", make([]byte, 1<<20+1), 0o600), "", caFile, "more than 1048576 bytes"},
		{"key for everybody", file("open.pem", good.PEM(), 0o644), "", caFile, "chmod 0600"},
		{"key apart for everybody", file("cert.pem", good.CertPEM, 0o644), file("open.key", good.KeyPEM, 0o604), caFile, "chmod 0600"},
		{"key written by group", file("group.pem", good.PEM(), 0o660), "", caFile, "chmod g-w"},
		{"certificate written by all", file("w.pem", good.CertPEM, 0o646), file("w.key", good.KeyPEM, 0o600), caFile, "chmod go-w"},
		{"no key", file("nokey.pem", good.CertPEM, 0o644), "", caFile, "--key"},
		{"not PEM", file("not.pem", []byte("hello"), 0o600), "", caFile, "not.pem"},
		{"CA written by all", goodFile, "", file("wca.pem", ca.PEM(), 0o666), "add CAs"},
		{"CA that is none", goodFile, "", goodFile, "only CA certificates"},
		{"two names", file("two.pem", issue(t, ca, testca.Leaf{Hosts: []string{"x.test", "y.test"}}).PEM(), 0o600), "", caFile, "--machine-name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := []string{"serve", "--socket", socket, "--credentials", tt.credentials, "--ca", tt.ca}
			if tt.key != "" {
				args = append(args, "--key", tt.key)
			}
			code, _, stderr := altsd(t, args...)
			if code != 1 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, tt.want) {
				t.Errorf("exit status %d, want %q in one line: %s", code, tt.want, stderr)
			}
			if _, err := os.Lstat(socket); err == nil {
				t.Error("there is a socket")
			}
		})
	}
}

// Each flag that internal/daemon names, in an error or as a cure, is one of serve or, where it says so, of reload, policy or tlsa.
func TestFlagsThatTheDaemonNames(t *testing.T) {
	files, err := filepath.Glob("../../internal/daemon/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no sources: %v", err)
	}
	flags := regexp.MustCompile(`--[a-z][a-z-]+`)
	options := slices.Concat(allOptions(serveCommand), allOptions(reloadCommand), allOptions(policyCommand), allOptions(tlsaCommand))
	seen := map[string]bool{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, flag := range flags.FindAllString(string(data), -1) {
			seen[flag] = true
			if !slices.ContainsFunc(options, func(o cli.Option) bool { return "--"+o.Name == flag }) {
				t.Errorf("%s names %s, which none of serve, reload, policy and tlsa has", file, flag)
			}
		}
	}
	if !seen["--credentials"] || !seen["--crl-stale-ok"] {
		t.Errorf("found only %v", seen)
	}
}

// The manual has every flag of serve with its default.
func TestOperationsManual(t *testing.T) {
	data, err := os.ReadFile("../../docs/operate.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range allOptions(serveCommand) {
		line := regexp.MustCompile("(?m)^\\| `--" + o.Name + "[` \\[].*$").FindString(string(data))
		if line == "" || !strings.Contains(line, o.Default) {
			t.Errorf("docs/operate.md has no line in its table for --%s, or not its default %q: %s", o.Name, o.Default, line)
		}
	}
}
