// Package denylist is what `shared-altsd deny` does with the file of what is denied: it reads, edits and lists it.
//
// An edit is made whole or not at all, by one at a time, and can be taken back.
package denylist

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/shared-altsd/shared-altsd/internal/policy"
)

// A Rule is what one denial says, without remarks, in the one form that it has.
type Rule string

// Pattern returns the rule that denies what is named as an administrator names it: alice@machine, a machine or .domain by
// itself, key=HEX or cert=SERIAL:"ISSUER".
func Pattern(arg, direction, account string) (Rule, error) {
	if strings.ContainsFunc(arg, func(r rune) bool { return !unicode.IsGraphic(r) }) {
		return "", fmt.Errorf("%.80q holds what cannot be seen: write it anew", arg)
	}
	name, value, _ := strings.Cut(arg, "=")
	peer := ""
	switch {
	case name == "key":
		peer = "*@* " + arg
	case name == "cert":
		serial, issuer, _ := strings.Cut(value, ":")
		if issuer = strings.TrimSuffix(strings.TrimPrefix(issuer, `"`), `"`); strings.Contains(issuer, `"`) {
			return "", errors.New(`an issuer with " in its name cannot be written: deny the key (key=)`)
		}
		peer = fmt.Sprintf(`*@* cert=%s:"%s"`, serial, issuer)
	case strings.Contains(arg, "@"):
		peer = arg
	case strings.Contains(arg, "."):
		peer = "*@" + arg
	default:
		return "", fmt.Errorf(`%.80q is no pattern: write ACCOUNT@MACHINE, *@.DOMAIN, a machine's full name, key=HEX or `+
			`cert=SERIAL:"ISSUER"`, arg)
	}
	if name != "key" && name != "cert" && strings.ContainsAny(arg, " \t\"") {
		return "", fmt.Errorf("%.80q holds a blank or a quote: give one pattern", arg)
	}
	if strings.ContainsAny(account, " \t\"#") { // which could end the rule before the pattern
		return "", fmt.Errorf("the local account %.80q holds a blank, a quote or #: give one name", account)
	}
	return parse(fmt.Sprintf("deny %s %s %s", direction, account, peer))
}

// parse returns the one rule that a line is.
func parse(line string) (Rule, error) {
	d, err := policy.ParseDenied([]policy.File{{Name: "PATTERN", Data: []byte(line)}})
	if err != nil {
		return "", errors.New(strings.TrimPrefix(err.Error(), "PATTERN:1: "))
	}
	rule := strings.TrimSuffix(d.String(), "\n")
	if !strings.HasPrefix(rule, "deny ") || strings.Contains(rule, "\n") {
		return "", fmt.Errorf("%.80q is not one denial", line)
	}
	return Rule(rule), nil
}

// peer returns what a rule says after the local account.
func (r Rule) peer() string {
	words := strings.SplitN(string(r), " ", 4)
	return words[len(words)-1]
}

// An Entry is a denial in a file.
type Entry struct {
	Line int // from 1
	Text string
	rule Rule
}

// Entries returns the denials in the text of a file.
func Entries(data []byte) (entries []Entry) {
	line := 0
	for text := range strings.Lines(string(data)) {
		line++
		if text = strings.TrimSpace(text); text == "" || text[0] == '#' {
			continue
		}
		rule, err := parse(text)
		if err != nil { // one that uses a set, or defines one
			rule = Rule(text)
		}
		entries = append(entries, Entry{line, text, rule})
	}
	return entries
}

// header begins a file that is made anew.
const header = "# What is denied on this machine before all rules: 'shared-altsd deny' edits it, docs/policy.md explains it.\n"

// Add returns the text with a rule and a remark in it, and whether that is another text: a rule that is there already is
// not written twice.
func Add(data []byte, rule Rule, remark string) (text []byte, changed bool) {
	for _, e := range Entries(data) {
		if e.rule == rule {
			return data, false
		}
	}
	var b strings.Builder
	b.Write(data)
	if len(data) == 0 {
		b.WriteString(header)
	} else if data[len(data)-1] != '\n' {
		b.WriteByte('\n')
	}
	b.WriteString(string(rule))
	if remark != "" {
		b.WriteString(" # " + remark)
	}
	b.WriteByte('\n')
	return []byte(b.String()), true
}

// Remove returns the text without the denials that gone says, and their texts.
func Remove(data []byte, gone func(n int, e Entry) bool) (text []byte, removed []string) {
	drop := make(map[int]bool)
	for i, e := range Entries(data) {
		if gone(i+1, e) {
			drop[e.Line] = true
			removed = append(removed, e.Text)
		}
	}
	line := 0
	for l := range strings.Lines(string(data)) {
		if line++; !drop[line] {
			text = append(text, l...)
		}
	}
	return text, removed
}

// Is returns what Remove takes: the denials of the peer, key or certificate that rule names, whatever their direction and
// account.
func (r Rule) Is(_ int, e Entry) bool {
	return e.rule.peer() == r.peer() && strings.HasPrefix(string(e.rule), "deny ")
}

// maxReason bounds a reason, bytes.
const maxReason = 200

// Clean returns a text as it can stand in a remark: one line of what can be seen, of bounded length.
func Clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxReason {
		s = strings.ToValidUTF8(s[:maxReason], "") + "..."
	}
	return s
}
