package docs_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/systemd"
	"github.com/shared-altsd/shared-altsd/internal/testlog"
)

// loggers are the packages of each section of log.md.
var loggers = map[string][]string{
	"The daemon":           {"service", "certbind", "internal/daemon", "internal/dane", "internal/expiry"},
	"Forwards":             {"internal/forward", "internal/listen", "internal/connect", "internal/httpfwd", "internal/ident"},
	"shared-altsd resolve": {"internal/resolve"},
	"shared-altsd-signer":  {"internal/signer", "cmd/shared-altsd-signer"},
	"Companions":           {"internal/companion"},
}

// Rule 66: log.md has each event of the code with its levels and keys, and no other; and a form of each key.
func TestRule66SchemaOfTheLog(t *testing.T) {
	schema := testlog.Load(t, "..")
	known := []string{}
	for heading, folders := range loggers {
		known = append(known, folders...)
		s := schema.Sections[heading]
		if s == nil {
			t.Fatalf("log.md has no section %q", heading)
		}
		code := testlog.ReadSource(t, "..", folders...)
		used := map[string]bool{}
		for message, e := range code {
			doc := s.Events[message]
			if doc == nil {
				t.Errorf("log.md, %s, has no event %q", heading, message)
				continue
			}
			if levels := slices.Sorted(slices.Values(doc.Levels)); !slices.Equal(levels, e.Levels) {
				t.Errorf("%q has the levels %v, in log.md %v", message, e.Levels, levels)
			}
			for key := range e.Keys {
				used[key] = true
				if _, ok := doc.Keys[key]; !ok {
					t.Errorf("%q has the key %s, which log.md has not", message, key)
				}
				if s.Forms[key] == "" {
					t.Errorf("log.md, %s, does not say what %s is", heading, key)
				}
				if !regexp.MustCompile(`^[a-z][a-z0-9_]*$`).MatchString(key) {
					t.Errorf("%q has the key %q, which is no name of a field", message, key)
				}
			}
			for key := range doc.Keys {
				if !e.Keys[key] {
					t.Errorf("log.md has the key %s of %q, which the code has not", key, message)
				}
			}
		}
		for message := range s.Events {
			if code[message] == nil {
				t.Errorf("log.md, %s, has the event %q, which is in no code", heading, message)
			}
		}
		for key := range s.Forms {
			if !used[key] {
				t.Errorf("log.md, %s, explains %s, which no event has", heading, key)
			}
		}
	}
	for folder := range packages(t) {
		if strings.HasPrefix(folder, "interop/") || strings.HasPrefix(folder, "deploy/") || strings.HasPrefix(folder, "internal/test") {
			continue
		}
		if events := testlog.ReadSource(t, "..", folder); len(events) > 0 && !slices.Contains(known, folder) {
			t.Errorf("%s logs, and belongs to no section of log.md: %v", folder, events)
		}
	}
}

// What fetch-crl writes begins as log.md says, and no field of the journal is named there that no key makes.
func TestOtherLinesAndFields(t *testing.T) {
	schema := testlog.Load(t, "..")
	code := read(t, "../internal/fetchcrl/fetchcrl.go")
	_, section, _ := strings.Cut(schema.Text, "\n## fetch-crl\n")
	section, _, _ = strings.Cut(section, "\n## ")
	lines := regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(section, -1)
	for _, m := range lines {
		if !strings.Contains(code, `("`+m[1]) {
			t.Errorf("fetch-crl has no line that begins with %q", m[1])
		}
	}
	if len(lines) == 0 {
		t.Error("no line of fetch-crl in log.md")
	}
	native := regexp.MustCompile(`what = "(.*)"`).FindStringSubmatch(read(t, "../internal/systemd/native.go"))
	if native == nil || !strings.Contains(schema.Text, "`"+native[1]+"`") || !strings.Contains(schema.Text, "`lost`") {
		t.Errorf("log.md does not have the event %q with its key lost", native)
	}
	fields := map[string]bool{"ALTSD_EVENT": true, "ALTSD_KEY": true}
	for _, s := range schema.Sections {
		for key := range s.Forms {
			fields[systemd.Field(key)] = true
		}
	}
	for _, name := range regexp.MustCompile(`ALTSD_[A-Z_]+`).FindAllString(schema.Text, -1) {
		if !fields[name] {
			t.Errorf("log.md names the field %s, which no key makes", name)
		}
	}
}
