package policy

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/shared-altsd/shared-altsd/internal/ascii"
)

// Bounds. A set of many members has a longer line than a rule.
const (
	MaxBytes   = 16 << 20 // of all files together
	maxLine    = 4 << 10
	maxDefine  = 64 << 10
	maxRules   = 1 << 16
	maxMembers = 1 << 16 // of all sets together
	maxSetName = 64
	maxGroups  = 256 // of local accounts: the user database is asked for each of them with each account
)

// A File is a text of rules and what to call it in messages.
type File struct {
	Name string
	Data []byte
}

// The words of the two modes.
const (
	enforcing  = "enforcing"
	permissive = "permissive"
)

func modeName(isPermissive bool) string {
	if isPermissive {
		return permissive
	}
	return enforcing
}

func verb(allow bool) string {
	if allow {
		return "allow"
	}
	return "deny"
}

// A place is a line of a file.
type place struct {
	file string
	line int
}

func (p place) String() string { return fmt.Sprintf("%s:%d", p.file, p.line) }

// statements are what files say beside rules.
type statements struct {
	files      []string // their names, in order
	mode       place    // where it is said, if it is
	permissive bool
	defaults   [2]place // where it is said, by direction, if it is
	allow      [2]bool  // the default, by direction
	sets       []*set
}

// written returns files as one, each statement in its one form.
func (s *statements) written(rules []rule) string {
	type line struct {
		place
		text string
	}
	var lines []line
	add := func(at place, format string, args ...any) {
		if at.line > 0 {
			lines = append(lines, line{at, fmt.Sprintf(format, args...) + "\n"})
		}
	}
	add(s.mode, "mode %s", modeName(s.permissive))
	for d, at := range s.defaults {
		add(at, "default %v %s", Direction(d), verb(s.allow[d]))
	}
	for _, set := range s.sets {
		add(set.place, "define %s %s", set.name, strings.Join(set.members, " "))
	}
	for i := range rules {
		add(rules[i].place, "%v", &rules[i])
	}
	order := s.order()
	slices.SortFunc(lines, func(a, b line) int { return order(a.place, b.place) })
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(l.text)
	}
	return b.String()
}

// order returns how places follow each other.
func (s *statements) order() func(a, b place) int {
	number := make(map[string]int)
	for i, f := range s.files {
		number[f] = i
	}
	return func(a, b place) int { return cmp.Or(number[a.file]-number[b.file], a.line-b.line) }
}

// A parser reads files of one kind.
type parser struct {
	denied bool
	statements
	rules   []rule
	known   map[string]*set
	members int             // of all sets
	groups  map[string]bool // of local accounts
}

// ParseRules reads the files of a policy, in order. An error names the line, what is wrong and the cure.
func ParseRules(files []File) (*Rules, error) {
	if len(files) == 0 {
		return nil, errors.New("there is no *.policy file, and without a rule nobody may talk to anybody: write one ('allow " +
			"any * *@*' lets everybody), or take --policy away")
	}
	p := parser{}
	if err := p.read(files); err != nil {
		return nil, err
	}
	r := &Rules{statements: p.statements}
	r.index.build(p.rules)
	return r, nil
}

// ParseDenied reads the files of what is denied before all rules, in order.
func ParseDenied(files []File) (*Denied, error) {
	p := parser{denied: true}
	if err := p.read(files); err != nil {
		return nil, err
	}
	d := &Denied{statements: p.statements}
	d.index.build(p.rules)
	return d, nil
}

func (p *parser) read(files []File) error {
	size := 0
	p.known, p.groups = make(map[string]*set), make(map[string]bool)
	for _, f := range files {
		p.files = append(p.files, f.Name)
		if size += len(f.Data); size > MaxBytes {
			return fmt.Errorf("%s: the files have more than %d bytes together: write sets and domains (.example.com) in the "+
				"place of single names", f.Name, MaxBytes)
		}
		data, line := bytes.TrimPrefix(f.Data, []byte("\ufeff")), 0
		for text := range bytes.Lines(data) {
			line++
			text = bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"))
			at := place{f.Name, line}
			if err := p.line(at, text); err != nil {
				return fmt.Errorf("%v: %w", at, err)
			}
		}
	}
	return nil
}

// line reads one line, which becomes a string only if it says something.
func (p *parser) line(at place, line []byte) error {
	if err := plainText(line); err != nil {
		return err
	}
	text := strings.Trim(string(line), " \t")
	tokens, err := split(text)
	if err != nil || len(tokens) == 0 {
		return err
	}
	if len(line) > maxLine && (tokens[0] != "define" || len(line) > maxDefine) {
		return fmt.Errorf("the line has %d bytes, more than %d (%d with define): write several rules, or a set: define NAME "+
			"MEMBER..., and $NAME in the rule", len(line), maxLine, maxDefine)
	}
	switch word := tokens[0]; word {
	case "allow", "deny":
		return p.rule(at, text, tokens)
	case "define":
		return p.define(at, tokens[1:])
	case "mode", "default":
		if p.denied {
			return fmt.Errorf("%s belongs to the files of --policy: here stand deny and define alone, and what is denied "+
				"here is denied in either mode", word)
		}
		if word == "mode" {
			return p.setMode(at, tokens[1:])
		}
		return p.setDefault(at, tokens[1:])
	default:
		if lower := ascii.Lower(word); lower != word && isStatement(lower) {
			return fmt.Errorf("%.80q: write it in lower case, %s", word, lower)
		}
		if p.denied {
			return fmt.Errorf("%.80q begins no line: begin with deny, or with define for a set", word)
		}
		return fmt.Errorf("%.80q begins no line: begin with allow or deny, with define for a set, or with mode or "+
			"default", word)
	}
}

func isStatement(word string) bool {
	return word == "allow" || word == "deny" || word == "define" || word == "mode" || word == "default"
}

// plainText refuses what an editor might show otherwise than it is read.
func plainText(line []byte) error {
	if len(line) > maxDefine {
		return fmt.Errorf("the line has %d bytes, more than %d: this is not the file that was meant, or its lines have no ends",
			len(line), maxDefine)
	}
	if !utf8.Valid(line) {
		return errors.New("the line is not UTF-8: save the file as UTF-8 (iconv -t UTF-8); names are plain ASCII anyway")
	}
	for _, r := range string(line) {
		if r != '\t' && !unicode.IsGraphic(r) {
			return fmt.Errorf("the line holds %U, which cannot be seen: take it out", r)
		}
	}
	return nil
}

// split returns the words of a line. A word may hold parts in double quotes, in which blanks and # are as others; # where
// a word would begin ends the line.
func split(text string) (tokens []string, err error) {
	for text = strings.TrimLeft(text, " \t"); text != "" && text[0] != '#'; text = strings.TrimLeft(text, " \t") {
		n, quoted := 0, false
		for n < len(text) && (quoted || text[n] != ' ' && text[n] != '\t') {
			if text[n] == '"' {
				quoted = !quoted
			}
			n++
		}
		if quoted {
			return nil, errors.New(`a quote (") is not closed: write both, as in ca="CN=Example CA"`)
		}
		tokens, text = append(tokens, text[:n]), text[n:]
	}
	return tokens, nil
}

func (p *parser) setMode(at place, args []string) error {
	if p.mode.line != 0 {
		return fmt.Errorf("the mode stands in %v already: say it once, in one of the files", p.mode)
	}
	if len(args) != 1 || args[0] != permissive && args[0] != enforcing {
		return fmt.Errorf("mode is %.80q: write mode permissive, or mode enforcing", strings.Join(args, " "))
	}
	p.mode, p.permissive = at, args[0] == permissive
	return nil
}

func (p *parser) setDefault(at place, args []string) error {
	if len(args) != 2 || args[0] != "in" && args[0] != "out" || args[1] != "allow" && args[1] != "deny" {
		return fmt.Errorf("default is %.80q: write default in deny, default out allow or the like, each direction by itself",
			strings.Join(args, " "))
	}
	d := In
	if args[0] == "out" {
		d = Out
	}
	if p.defaults[d].line != 0 {
		return fmt.Errorf("default %v stands in %v already: say it once, in one of the files", d, p.defaults[d])
	}
	p.defaults[d], p.allow[d] = at, args[1] == "allow"
	return nil
}

func (p *parser) rule(at place, text string, tokens []string) error {
	if p.denied && tokens[0] == "allow" {
		return errors.New("allow belongs to the files of --policy: what is denied here no rule allows; take the deny line " +
			"away ('shared-altsd deny --remove')")
	}
	form := "deny in|out|any LOCAL USER@MACHINE [CONDITION=VALUE]..."
	if !p.denied {
		form = "allow|" + form
	}
	if len(tokens) < 4 {
		return fmt.Errorf("the rule has %d words: write %s", len(tokens), form)
	}
	if len(p.rules) == maxRules {
		return fmt.Errorf("there are more than %d rules: write sets (define NAME MEMBER...) and domains "+
			"(.example.com)", maxRules)
	}
	r := rule{place: at, base: filepath.Base(at.file), text: text, allow: tokens[0] == "allow"}
	switch tokens[1] {
	case "in":
		r.ways = 1 << In
	case "out":
		r.ways = 1 << Out
	case "any":
		r.ways = 1<<In | 1<<Out
	default:
		return fmt.Errorf("the direction is %.80q: write in (this machine's programs accept), out (they dial) or any; %s",
			tokens[1], form)
	}
	var err error
	if r.local, err = p.local(tokens[2]); err != nil {
		return err
	}
	if r.local.kind == group {
		if p.groups[r.local.name] = true; len(p.groups) > maxGroups {
			return fmt.Errorf("the rules name more than %d groups of local accounts, which the user database is asked for with "+
				"each account: write sets of accounts (define NAME ACCOUNT..., then $NAME)", maxGroups)
		}
	}
	if r.user, r.machine, err = p.peer(tokens[3]); err != nil {
		return err
	}
	for _, t := range tokens[4:] {
		if err := r.add(t, p.denied); err != nil {
			return err
		}
	}
	p.rules = append(p.rules, r)
	return nil
}

// define reads a set. What its members are is what they can be: where it is used says which is meant.
func (p *parser) define(at place, args []string) error {
	if len(args) < 2 {
		return errors.New("define has no name or no members: write define NAME MEMBER..., accounts or machines")
	}
	name := ascii.Lower(args[0])
	switch old := p.known[name]; {
	case strings.HasPrefix(name, "$"):
		return fmt.Errorf("%.80q: write the name without $ where it is defined, and with $ where it is used", args[0])
	case !validSetName(name):
		return fmt.Errorf("%.80q cannot name a set: write letters of ASCII, digits, - and _, at most %d, a letter "+
			"first", args[0],
			maxSetName)
	case old != nil:
		return fmt.Errorf("$%s stands in %v already: give this one another name, or its members to that one", name, old.place)
	}
	s, seen := &set{place: at, name: name}, make(map[string]bool)
	for _, m := range args[1:] {
		if p.members++; p.members > maxMembers {
			return fmt.Errorf("the sets have more than %d members: write domains (.example.com)", maxMembers)
		}
		if err := s.add(m); err != nil {
			return fmt.Errorf("the member %.80q of $%s: %w", m, name, err)
		}
		if member := s.members[len(s.members)-1]; seen[member] {
			return fmt.Errorf("the member %q stands in $%s twice: take one of the two away", member, name)
		}
		seen[s.members[len(s.members)-1]] = true
	}
	if s.notAccounts != "" && s.notMachines != "" {
		return fmt.Errorf("the members of $%s are neither all accounts (%.80q is none) nor all machines (%.80q is none): "+
			"define two sets", name, s.notAccounts, s.notMachines)
	}
	p.known[name] = s
	p.sets = append(p.sets, s)
	return nil
}

func validSetName(s string) bool {
	if s == "" || len(s) > maxSetName || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_-") == ""
}
