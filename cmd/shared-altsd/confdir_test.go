package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// TestRule67Reload: a reload that is asked for brings into force what the config file and those beside it say of CAs, rules and
// lists, all of it or nothing; nothing of it comes or goes by itself, and a file that is broken names itself and its line.
func TestRule67Reload(t *testing.T) {
	dir := testprog.Dir(t)
	ca, other := newCA(t, testca.Options{}), newCA(t, testca.Options{})
	path := func(name string) string { return filepath.Join(dir, name) }
	put := func(name, text string) { t.Helper(); write(t, path(name), []byte(text)) }
	remove := func(name string) {
		t.Helper()
		if err := os.Remove(path(name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, sub := range []string{"conf.d", "rules"} {
		if err := os.Mkdir(path(sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	put("ca.pem", string(ca.PEM()))
	put("other.pem", string(other.PEM()))
	put("a.pem", string(issue(t, ca, testca.Leaf{Hosts: []string{"a.test"}}).PEM()))
	put("b.pem", string(issue(t, other, testca.Leaf{Hosts: []string{"b.test"}}).PEM()))
	put("both.pem", string(ca.PEM())+string(other.PEM()))
	put("rules/10.policy", "allow in nobody nobody@a.test\n")
	put("shared-altsd.conf", fmt.Sprintf("credentials = %s\nca = %s\n", path("a.pem"), path("ca.pem")))
	a := start(t, "--config", path("shared-altsd.conf"))
	b := start(t, "--credentials", path("b.pem"), "--ca", path("both.pem"))
	talks := func(what string, want string) {
		t.Helper()
		got := "yes"
		if _, _, err := talk(t, b.socket, a.socket); err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	reload := func(what string, code int, want string) {
		t.Helper()
		got, out, stderr := altsd(t, "reload", "--socket", a.socket)
		if got != code || !strings.Contains(out+stderr, want) {
			t.Errorf("%s: exit status %d, want %q: %s%s", what, got, want, out, stderr)
		}
	}
	talks("a CA that is not known", "unknown_ca")
	put("conf.d/10-ca.conf", "ca = b.test="+path("other.pem")+"\n")
	reload("a CA more", 0, "changed:  configuration: ca")
	talks("a CA more", "yes")

	put("conf.d/20-rules.conf", "policy = "+path("rules")+"\nlog-level = debug\n")
	reload("rules", 0, "note:     in force after a restart: log-level")
	talks("rules", "denied_by_policy")
	a.log.waitAfter(t, 0, "settings changed that come into force at the next start")

	// Nor does a value that a template left out, which is not "no rules".
	for _, name := range []string{"policy", "denied", "state-dir"} {
		put("conf.d/40-empty.conf", name+" =\n")
		reload(name+" without a value", 1, path("conf.d/40-empty.conf")+":1: "+name+": empty: give a value")
	}
	remove("conf.d/40-empty.conf")

	// Neither does what a broken file leaves out.
	put("conf.d/20-rules.conf", "policy = "+path("rules")+"\nlog-levle = debug\n")
	remove("conf.d/10-ca.conf")
	reload("a mistake", 1, path("conf.d/20-rules.conf")+`:2: unknown name "log-levle"`)
	if code, out, _ := altsd(t, "status", "--socket", a.socket); code != 0 || !strings.Contains(out, "20-rules.conf:2") {
		t.Errorf("status: exit status %d: %s", code, out)
	}
	if code, _, stderr := altsd(t, "check", "--config", path("shared-altsd.conf")); code != 2 || !strings.Contains(stderr, "20-rules.conf:2") {
		t.Errorf("check: exit status %d: %s", code, stderr)
	}
	talks("the other rules and CAs", "denied_by_policy")
	remove("conf.d/20-rules.conf")
	put("conf.d/30-new.conf", "require-eku = 1.2.3\n")
	if outcome := a.hangup(); strings.Contains(outcome, "refused") {
		t.Error(outcome)
	}
	talks("what came and went", "certificate_unacceptable")
	a.log.waitAfter(t, 0, "policy: none, so that all may")
}
