// Package testlog holds the lines of the log to their schema, docs/log.md, and the schema to the code: tests alone import it.
package testlog

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// An Event is one kind of line, by its message.
type Event struct {
	Message string
	Levels  []string
	Keys    map[string]bool // true: in each such line
	Kept    bool            // the message is, from release to release
}

// A Section is what one program logs.
type Section struct {
	Name   string
	Events map[string]*Event
	Forms  map[string]string // of each key
	forms  map[string]*regexp.Regexp
}

// A Schema is what docs/log.md says, by the heading of each section.
type Schema struct {
	Sections map[string]*Section
	Text     string
}

var quoted = regexp.MustCompile("`([^`]+)`")

// words returns what a cell has in backquotes.
func words(cell string) (list []string) {
	for _, m := range quoted.FindAllStringSubmatch(cell, -1) {
		list = append(list, m[1])
	}
	return list
}

// Load reads the schema; root is the way to the repository's.
func Load(t testing.TB, root string) *Schema {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs", "log.md"))
	if err != nil {
		t.Fatal(err)
	}
	s := &Schema{Sections: map[string]*Section{}, Text: string(text)}
	forms := map[string]*regexp.Regexp{}
	var in *Section
	table := ""
	for line := range strings.Lines(s.Text) {
		if name, ok := strings.CutPrefix(line, "## "); ok {
			in = &Section{Name: strings.TrimSpace(name), Events: map[string]*Event{}, Forms: map[string]string{}, forms: forms}
			s.Sections[in.Name] = in
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		first := strings.TrimSpace(cells[0])
		switch {
		case !strings.HasPrefix(line, "|"):
			table = ""
		case table == "":
			table = first
		case strings.HasPrefix(first, "---"):
		case table == "form":
			forms[words(cells[0])[0]] = regexp.MustCompile("^(?:" + words(cells[2])[0] + ")$")
		case table == "key":
			keys, of := words(cells[0]), words(cells[1])
			for i, k := range keys {
				form := of[0]
				if len(of) > 1 {
					form = of[i]
				}
				if in.Forms[k] != "" || forms[form] == nil {
					t.Errorf("log.md, %s: the key %s twice, or of no form: %q", in.Name, k, form)
				}
				in.Forms[k] = form
			}
		case strings.HasSuffix(table, "event"):
			e := &Event{Message: words(cells[0])[0], Levels: strings.Split(strings.TrimSpace(cells[1]), ", "), Keys: map[string]bool{},
				Kept: table == "event"}
			for _, k := range words(cells[2]) {
				key, maybe := strings.CutSuffix(k, "?")
				e.Keys[key] = !maybe
			}
			if in.Events[e.Message] != nil {
				t.Errorf("log.md, %s: the event %q twice", in.Name, e.Message)
			}
			in.Events[e.Message] = e
		}
	}
	return s
}

// A Line is a line of the log.
type Line struct {
	Level, Message string
	Keys           []string
	Values         map[string]string
}

// ParseText reads a line of text.
func ParseText(line string) (*Line, error) {
	l := &Line{Values: map[string]string{}}
	for rest := line; rest != ""; rest = strings.TrimPrefix(rest, " ") {
		key, value, found := strings.Cut(rest, "=")
		if !found {
			return nil, fmt.Errorf("no key: %.200q", rest)
		}
		if strings.HasPrefix(value, `"`) {
			prefix, err := strconv.QuotedPrefix(value)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", key, err)
			}
			rest = value[len(prefix):]
			value, _ = strconv.Unquote(prefix)
		} else {
			end := strings.IndexByte(value+" ", ' ')
			value, rest = value[:end], value[end:]
		}
		switch key {
		case "time":
		case "level":
			l.Level = strings.ToLower(value)
		case "msg":
			l.Message = value
		default:
			if _, twice := l.Values[key]; twice {
				return nil, fmt.Errorf("the key %s twice", key)
			}
			l.Keys, l.Values[key] = append(l.Keys, key), value
		}
	}
	return l, nil
}

// ParseJSON reads a line of JSON. A duration in nanoseconds has the form of text then, as a list has.
func (s *Section) ParseJSON(line string) (*Line, error) {
	l := &Line{Values: map[string]string{}}
	all := map[string]any{}
	d := json.NewDecoder(strings.NewReader(line))
	d.UseNumber()
	if err := d.Decode(&all); err != nil {
		return nil, err
	}
	for key, value := range all {
		switch v := value.(type) {
		case json.Number:
			if value = v.String(); s.Forms[key] == "duration" {
				ns, err := v.Int64()
				if err != nil {
					return nil, err
				}
				value = time.Duration(ns).String()
			}
		case string:
			if s.Forms[key] == "number" || s.Forms[key] == "duration" && strings.Trim(v, "0123456789") == "" {
				return nil, fmt.Errorf("%s is a string: %q", key, v)
			}
		}
		switch key {
		case slog.TimeKey:
		case slog.LevelKey:
			l.Level = strings.ToLower(fmt.Sprint(value))
		case slog.MessageKey:
			l.Message = fmt.Sprint(value)
		default:
			l.Keys, l.Values[key] = append(l.Keys, key), fmt.Sprint(value)
		}
	}
	return l, nil
}

// Check returns what of a line is not as the section says.
func (s *Section) Check(l *Line) error {
	e := s.Events[l.Message]
	if e == nil {
		return fmt.Errorf("no such event in docs/log.md, %s: %q", s.Name, l.Message)
	}
	if !slices.Contains(e.Levels, l.Level) {
		return fmt.Errorf("%q has the level %s, in docs/log.md %v", l.Message, l.Level, e.Levels)
	}
	for key, value := range l.Values {
		if _, ok := e.Keys[key]; !ok {
			return fmt.Errorf("%q has the key %s, which docs/log.md has not", l.Message, key)
		}
		if form := s.forms[s.Forms[key]]; form == nil || !form.MatchString(value) {
			return fmt.Errorf("%q: %s=%q is not of the form %q", l.Message, key, value, s.Forms[key])
		}
	}
	for key, always := range e.Keys {
		if _, ok := l.Values[key]; always && !ok {
			return fmt.Errorf("%q has no %s", l.Message, key)
		}
	}
	return nil
}

// CheckText holds each line of a log to the section; what is in several lines is none.
func (s *Section) CheckText(t testing.TB, log string) {
	t.Helper()
	for line := range strings.Lines(log) {
		l, err := ParseText(strings.TrimSuffix(line, "\n"))
		if err == nil {
			err = s.Check(l)
		}
		if err != nil {
			t.Errorf("the log is not as documented: %v\n%.500s", err, line)
		}
	}
}
