package versions

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestCommands: the commands of each release ask the daemon of the other.
func TestCommands(t *testing.T) {
	s := newSite(t)
	s.write("policy/site.policy", []byte("allow any * *@.test\n"))
	policy := []string{"--policy", s.path("policy")}
	said := map[string]map[string]bool{}
	for _, serves := range both(t) {
		m := s.machine("of-"+serves.name+".test", policy...).start(serves)
		for _, asks := range both(t) {
			ask := func(want string, command string, args ...string) string {
				t.Helper()
				o := m.tell(asks, command, args...)
				if o.code != 0 || !strings.Contains(o.out, want) {
					t.Errorf("%s %v of %s, daemon of %s: want %q: %v", command, args, asks.name, serves.name, want, o)
				}
				return o.out
			}
			ask("serving since", "status")
			ask(m.account(), "whoami")
			ask(m.name, "reload")
			ask("allow", "policy", "test", "alice@a.test", me())
			denied := "mallory-" + asks.name + "@a.test"
			ask("", "deny", "--denied", s.path(m.name+".denied"), "--reason", "INC-1", denied)
			ask("allowed by site.policy:1", "policy", "test", "--in", "alice@a.test", me())
			if o := m.tell(asks, "policy", "test", "--in", denied, me()); o.code != 1 {
				t.Errorf("%s denies, and the daemon of %s does not: %v", asks.name, serves.name, o)
			}
			ask(denied, "deny", "--denied", s.path(m.name+".denied"), "--list")
			ask("", "deny", "--denied", s.path(m.name+".denied"), "--remove", denied)
			said[asks.name+" asks "+serves.name] = jsonKeys(t, ask("{", "status", "--json"))
			said[asks.name+" asks "+serves.name+" whoami"] = jsonKeys(t, ask("{", "whoami", "--json"))
		}
		// A certificate that is renewed is handed over.
		if o := m.tell(m.release, "reload", "--credentials", s.path(m.name+".pem")); o.code != 0 {
			t.Error(o)
		}
	}
	for _, what := range []string{"", " whoami"} {
		for key := range said["last asks last"+what] {
			for _, pair := range []string{"today asks today", "today asks last", "last asks today"} {
				if !said[pair+what][key] {
					t.Errorf("status --json%s has %s in the last release, and not where %s", what, key, pair)
				}
			}
		}
	}
}

// jsonKeys are all keys of a text in JSON, with those above them.
func jsonKeys(t *testing.T, text string) map[string]bool {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	keys := map[string]bool{}
	var walk func(at string, v any)
	walk = func(at string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, inner := range v {
				keys[at+"."+k] = true
				walk(at+"."+k, inner)
			}
		case []any:
			for _, inner := range v {
				walk(at, inner)
			}
		}
	}
	walk("", v)
	return keys
}

// TestPing: ping and pong of both releases at daemons of both, and what ping says in JSON.
func TestPing(t *testing.T) {
	s := newSite(t)
	said := map[string]map[string]bool{}
	for _, accepts := range both(t) {
		to := s.machine("to-" + accepts.name + ".test").start(accepts)
		for _, answers := range both(t) {
			_, line := background(t, "listening", "sh", "-c", `exec "$@" >&2`, "sh", answers.program, "pong", "--socket", to.socket,
				"--daemon-uid", uid, "127.0.0.1:0")
			address := regexp.MustCompile(`127\.0\.0\.1:[0-9]+`).FindString(line)
			for _, dials := range both(t) {
				from := s.machine("from-" + dials.name + ".test").start(dials)
				for _, pings := range both(t) {
					o := from.tell(pings, "ping", "--daemon-uid", uid, "--json", "--target-account", to.account(), address)
					if o.code != 0 {
						t.Errorf("ping of %s, daemon of %s; pong of %s, daemon of %s: %v", pings.name, dials.name, answers.name, accepts.name, o)
					}
					said[pings.name] = jsonKeys(t, o.out)
				}
				from.stop()
			}
		}
		to.stop()
	}
	for key := range said["last"] {
		if !said["today"][key] {
			t.Errorf("ping --json has %s in the last release, and not today", key)
		}
	}
}

// TestReasons: each reason of a refusal has the name and the code that it had. docs/refusals.md is written by the code.
func TestReasons(t *testing.T) {
	was, is := releases(t)
	reasons := func(r *release) map[string]string {
		page, err := os.ReadFile(r.source + "/docs/refusals.md")
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]string{}
		for _, row := range regexp.MustCompile("(?m)^\\| (?:([0-9]+) )?\\| `([a-z_]+)` \\|").FindAllStringSubmatch(string(page), -1) {
			found[row[2]] = row[1]
		}
		return found
	}
	before, now := reasons(was), reasons(is)
	if len(before) < 29 {
		t.Errorf("only %d reasons of the last release were found", len(before))
	}
	for name, code := range before {
		if got, there := now[name]; !there || got != code {
			t.Errorf("the reason %s had the code %q, and now (%v) has %q", name, code, there, got)
		}
	}
}

// option finds the options of a command in its help: name, and whether it has a value.
var option = regexp.MustCompile(`(?m)^  --([a-z][a-z-]*)( .+)?$`)

// TestOptions: each command and option of the last release is there, on the command line and so in files of --config.
func TestOptions(t *testing.T) {
	was, is := releases(t)
	seen, meant := 0, gone(t, "option")
	for _, programs := range [][2]string{{was.program, is.program}, {was.signer, is.signer}} {
		for _, command := range commands(t, programs[0]) {
			options := func(program string) map[string]bool {
				found := map[string]bool{}
				for _, o := range option.FindAllStringSubmatch(run(t, "", program, command, "--help").out, -1) {
					found[o[1]] = o[2] != ""
				}
				return found
			}
			now := options(programs[1])
			for name, value := range options(programs[0]) {
				seen++
				has, there := now[name]
				if (!there || has != value) && !meant(command+" --"+name) {
					t.Errorf("%s --%s of the last release: there now %v, with a value then %v, now %v", command, name, there, value, has)
				}
			}
		}
	}
	if seen < 100 {
		t.Errorf("only %d options were found in the last release's help", seen)
	}
}

// commands are those that a program's help lists, between its usage and the next empty line.
func commands(t *testing.T, program string) (names []string) {
	t.Helper()
	help := run(t, "", program, "--help").out
	_, list, _ := strings.Cut(help, "usage: ")
	_, list, _ = strings.Cut(list, "\n\n")
	list, _, _ = strings.Cut(list, "\n\n")
	for line := range strings.Lines(list) {
		names = append(names, strings.Fields(line)[0])
	}
	if len(names) < 4 {
		t.Fatalf("%s: hardly a command in its help: %s", program, help)
	}
	return names
}
