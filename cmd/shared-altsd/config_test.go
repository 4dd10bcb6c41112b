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

func TestConfigFile(t *testing.T) {
	data := "# comment\n\n  socket-mode = 0640   # trailing\nsocket=/a#b\nsocket = /c,uids=1-2\r\n" +
		"allow-domain-accounts = yes\nca = a.test=/x = y\n"
	settings, err := parseConfig([]byte(data), "f")
	if err != nil {
		t.Fatal(err)
	}
	if err := checkSettings(new(serveConfig).options(), settings); err != nil {
		t.Fatal(err)
	}
	line := []setting{{"socket-mode", "0600", "--socket-mode"}, {"log-level", "debug", "--log-level"}}
	c := new(serveConfig)
	if err := resolve(c.options(), line, settings); err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintln(c.socketMode, c.sockets, c.files.allowDomain, c.files.cas, c.logLevel, c.logFormat)
	want := "-rw------- [{/a#b []} {/c [{1 2}]}] true [{[a.test] /x = y}] debug text\n"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	// What the command line says of a repeatable flag replaces all that the file says of it.
	c = new(serveConfig)
	if err := resolve(c.options(), []setting{{"socket", "/d", "--socket"}}, settings); err != nil {
		t.Fatal(err)
	}
	if len(c.sockets) != 1 || c.sockets[0].path != "/d" {
		t.Errorf("sockets: %v", c.sockets)
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
		{strings.Repeat("#", maxConfigSize+1), "", "more than"},
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

// Whatever is in the file: no panic, an error names file and line, and what was read can be written and read again.
func FuzzConfig(f *testing.F) {
	for _, seed := range []string{"", "# c\n", "socket = /a\nsocket = /b,uids=1-2+4\n", "ca = a.test=/x\n",
		"log-level = info # x\r\n",
		"x", "= y", "=#", "\u00a0#x=1", "\xef\xbb\xbf\xef\xbb\xbf=", "\xef\xbb\xbfdrain-timeout = 5s",
		"publish-groups = a, b",
		"require-eku = 1.2.3", "socket-mode = 0660\nsocket-mode = 1"} {
		f.Add([]byte(seed))
	}
	position := regexp.MustCompile(`^f:[0-9]+: `)
	f.Fuzz(func(t *testing.T, data []byte) {
		settings, err := parseConfig(data, "f")
		if err != nil {
			if !position.MatchString(err.Error()) {
				t.Fatalf("no position in %q", err)
			}
			return
		}
		text := new(strings.Builder)
		text.WriteByte('\n') // a byte order mark counts at the start only
		for _, s := range settings {
			fmt.Fprintf(text, "%s=%s\n", s.name, s.value)
		}
		again, err := parseConfig([]byte(text.String()), "f")
		if err != nil || len(again) != len(settings) {
			t.Fatalf("written again: %d settings instead of %d, %v", len(again), len(settings), err)
		}
		for i, s := range settings {
			if again[i].name != s.name || again[i].value != s.value {
				t.Fatalf("written again: %q instead of %q", again[i], s)
			}
		}
		// A group is looked up in the system's database, which is not what is tested here.
		for _, s := range settings {
			if s.name == "socket-group" {
				return
			}
		}
		if err := checkSettings(new(serveConfig).options(), settings); err != nil && !position.MatchString(err.Error()) {
			t.Fatalf("no position in %q", err)
		}
	})
}
