package main

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// configured returns what serve is set to by a config file with this text and by args, and serve's error.
func configured(text string, args ...string) (c *serveConfig, code int, stderr string) {
	c, config := new(serveConfig), configFile("")
	config.Read = func(string, int64) ([]byte, error) { return []byte(text), nil }
	code, stderr = parse(c.options(), config, append([]string{"--config", "f"}, args...)...)
	return c, code, stderr
}

func TestConfigFile(t *testing.T) {
	text := "# comment\n\n  socket-mode = 0640   # trailing\nsocket=/a#b\nsocket = /c,uids=1-2,account=A+,label=b\r\n" +
		"allow-domain-accounts = yes\nca = a.test=/x = y\n"
	c, code, stderr := configured(text, "--socket-mode", "0600", "--log-level", "debug")
	if code != 0 {
		t.Fatal(stderr)
	}
	got := fmt.Sprintln(c.SocketMode, c.Sockets, c.Files.AllowDomainAccounts, c.Files.CAs, c.logLevel, c.logFormat)
	want := "-rw------- [{/a#b {[]   }} {/c {[{1 2}] a+ b }}] true [{[a.test] /x = y}] debug text\n"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	// What the command line says of a repeatable flag replaces all that the file says of it.
	c, code, stderr = configured(text, "--socket", "/d")
	if code != 0 || len(c.Sockets) != 1 || c.Sockets[0].Path != "/d" {
		t.Errorf("sockets: %v %s", c.Sockets, stderr)
	}
}

func TestConfigFileErrors(t *testing.T) {
	dir := testprog.Dir(t)
	for _, tt := range []struct{ text, line, want string }{
		{"\nno-such-name = 1\n", ":2:", "--help"},
		{"sockets = /x\n", ":1:", "did you mean socket"},
		{"# ok\nlog-level = loud\n", ":2:", "debug"},
		{"log-level info\n", ":1:", "name = value"},
		{"crl-stale-ok\n", ":1:", "crl-stale-ok"},
		{"log-level = info\nlog-level = warn\n", ":2:", "twice"},
		{"config = /other\n", ":1:", "command line"},
		{"socket = @abstract\n", ":1:", "abstract"},
		{"credentials =\n", ":1:", "empty"},
		{"credentials = \x00\n", ":1:", "not a config file"},
		{"credentials = \xff\n", ":1:", "not a config file"},
		{strings.Repeat("#", 1<<20+1), "", "more than"},
	} {
		path := write(t, filepath.Join(dir, "config"), []byte(tt.text))
		// The mistake counts even where the command line overrides it.
		code, _, stderr := altsd(t, "serve", "--config", path, "--log-level", "info")
		wantCode := 2
		if tt.line == "" {
			wantCode = 1
		} else if !strings.Contains(stderr, path+tt.line) {
			t.Errorf("%.40q: no %s%s in %q", tt.text, path, tt.line, stderr)
		}
		if tt.text == "crl-stale-ok\n" {
			tt.want = "name = true"
		}
		if code != wantCode || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, tt.want) {
			t.Errorf("%.40q: exit status %d: %q", tt.text, code, stderr)
		}
	}
	code, _, stderr := altsd(t, "serve", "--config", filepath.Join(dir, "none"))
	if code != 1 || !strings.Contains(stderr, "--config") {
		t.Errorf("a missing config file: exit status %d: %s", code, stderr)
	}
}

// The file has its effect in the program, and the command line wins.
func TestConfigPrecedence(t *testing.T) {
	dir := testprog.Dir(t)
	ca := newCA(t, testca.Options{})
	leaf := issue(t, ca, testca.Leaf{Hosts: []string{"a.test", "b.test"}})
	config := write(t, filepath.Join(dir, "config"), fmt.Appendf(nil, "credentials = %s\nca = %s\nmachine-name = a.test\n",
		write(t, filepath.Join(dir, "a.pem"), leaf.PEM()), write(t, filepath.Join(dir, "ca.pem"), ca.PEM())))
	code, out, stderr := altsd(t, "check", "--config", config)
	if code != 0 || !strings.Contains(out, "machine   a.test\n") {
		t.Errorf("from the file: exit status %d: %s%s", code, out, stderr)
	}
	code, out, stderr = altsd(t, "check", "--config", config, "--machine-name", "b.test")
	if code != 0 || !strings.Contains(out, "machine   b.test\n") {
		t.Errorf("from the command line: exit status %d: %s%s", code, out, stderr)
	}
}

// Whatever the file gives serve's options: no panic, and an error names file and line.
func FuzzServeConfig(f *testing.F) {
	for _, seed := range []string{"", "socket = /a\nsocket = /b,uids=1-2+4\n", "ca = a.test=/x\n",
		"log-level = info # x\r\n", "drain-timeout = 5s", "publish-groups = Domain Users, b", "require-eku = 1.2.3", "socket-mode = 0660\nsocket-mode = 1",
		"metrics = unix:/a\nmachine-name = A.test"} {
		f.Add(seed)
	}
	position := regexp.MustCompile(`^program test: f:[0-9]+: `)
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "socket-group") {
			return // it is looked up in the system's database, which is not what is tested here
		}
		if _, code, stderr := configured(text); code != 0 && (code != 2 || !position.MatchString(stderr)) {
			t.Fatalf("exit status %d, no position in %q", code, stderr)
		}
	})
}
