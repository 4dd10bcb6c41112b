package policy

import (
	"errors"
	"fmt"
	"strings"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/ascii"
	"github.com/shared-altsd/shared-altsd/internal/names"
)

// A kind is what a pattern goes by.
type kind uint8

const (
	anybody kind = iota // *
	same                // =
	literal
	domain // .example.com
	group  // %wheel
	ofSet  // $admins
)

// A pattern is one position of a rule: the local account, the peer's, or its machine.
type pattern struct {
	kind kind
	name string // of the account, machine, group (decoded) or set; of a domain with its dot
	set  *set
}

func (p pattern) String() string {
	switch p.kind {
	case anybody:
		return "*"
	case same:
		return "="
	case group:
		return "%" + names.EncodeGroups([]string{p.name})
	case ofSet:
		return "$" + p.name
	}
	return p.name
}

// A set is a number of accounts or of machines and domains under one name.
type set struct {
	place
	name    string
	members []string
	// The first member that cannot be an account, and the first that cannot be a machine or a domain, "" for none.
	notAccounts, notMachines string
	used                     bool
}

// add takes a member in its one form.
func (s *set) add(member string) error {
	m := ascii.Lower(member)
	switch {
	case m == "*" || m == "=":
		return errors.New("a set has names alone: write it in the rule")
	case m[0] == '%':
		return errors.New("a set has names alone, no groups: write a rule for the group")
	case m[0] == '$':
		return errors.New("sets do not hold others: name the members themselves")
	}
	notAccount, notMachine := account(m), machine(m)
	switch {
	case notAccount != nil && notMachine != nil && !strings.Contains(m, "."):
		return notAccount
	case notAccount != nil && notMachine != nil:
		return notMachine
	}
	if notAccount != nil && s.notAccounts == "" {
		s.notAccounts = m
	}
	if notMachine != nil && s.notMachines == "" {
		s.notMachines = m
	}
	s.members = append(s.members, m)
	return nil
}

// account says why a name in lower case cannot be that of an account.
func account(name string) error {
	if err := foreign(name); err != nil {
		return err
	}
	if bad := strings.IndexAny(name, ",!"); bad >= 0 {
		return fmt.Errorf("it holds %q: for several accounts write a set (define NAME ACCOUNT..., then $NAME), and for all "+
			"but some a deny line before", name[bad])
	}
	if err := certbind.ValidAccount(name, true); err != nil {
		return fmt.Errorf("it can be no account: %w", err)
	}
	return nil
}

// machine says why a name in lower case can be neither that of a machine nor a domain.
func machine(name string) error {
	if rest, ok := strings.CutPrefix(name, "*."); ok && certbind.ValidMachineName(rest) == nil {
		return fmt.Errorf("*. is not taken: write .%s, which is every name below %s", rest, rest)
	}
	if err := foreign(name); err != nil {
		return err
	}
	switch {
	case strings.ContainsAny(name, ",!"):
		return errors.New("for several machines write a set (define NAME MACHINE..., then $NAME), and for all but some a " +
			"deny line before")
	case strings.ContainsAny(name, "/:"):
		return errors.New("addresses and networks are not judged, only names that certificates prove: write machines, " +
			"domains (.example.com) or *")
	case name == ".":
		return errors.New("a domain has a name behind its dot: write .example.com, or * for all machines")
	case len(name) > 1 && strings.HasSuffix(name, "."):
		return fmt.Errorf("write it without the dot at its end: %s", strings.TrimRight(name, "."))
	}
	if err := certbind.ValidMachineName(strings.TrimPrefix(name, ".")); err != nil {
		return fmt.Errorf("it can be no machine: %w", err)
	}
	return nil
}

// foreign refuses the patterns of other languages.
func foreign(name string) error {
	for _, r := range name {
		if r >= 0x80 {
			return fmt.Errorf("it holds %U, and names are plain ASCII: write a machine's as its certificate has it "+
				"(xn--...)", r)
		}
	}
	if strings.Contains(name, `"`) {
		return errors.New("quotes belong to the values of conditions: write names without")
	}
	if bad := strings.IndexAny(name, "*?[]{}()|~^"); bad >= 0 {
		return fmt.Errorf("it holds %q, and there are no patterns within names and no regular expressions: write the whole "+
			"name, .example.com for every machine below, * for all, or a set (define NAME MEMBER..., then $NAME)", name[bad])
	}
	return nil
}

// local reads the position of the local account.
func (p *parser) local(token string) (pattern, error) {
	t := ascii.Lower(token)
	if t == "=" {
		return pattern{}, errors.New("= stands for the local account in the peer's place: as the local account write * or a " +
			"name")
	}
	l, err := p.account(t)
	if err != nil {
		return pattern{}, fmt.Errorf("the local account %.80q: %w", token, err)
	}
	return l, nil
}

// peer reads USER@MACHINE, which the last @ divides.
func (p *parser) peer(token string) (user, mach pattern, err error) {
	t := ascii.Lower(token)
	u, m := names.SplitAccount(t)
	switch {
	case !strings.Contains(t, "@") && strings.Contains(t, "="):
		return user, mach, fmt.Errorf("the peer %.80q has no @: write the peer, USER@MACHINE, before the conditions; *@* is "+
			"everybody",
			token)
	case !strings.Contains(t, "@"):
		return user, mach, fmt.Errorf("the peer %.80q has no @: write USER@MACHINE, as in %.100s; *@* is "+
			"everybody", token, completed(t))
	case u == "" || m == "":
		return user, mach, fmt.Errorf("the peer %.80q has nothing on one side of its @: write * for all, as in "+
			"*@.example.com", token)
	}
	if user, err = p.account(u); err != nil {
		return user, mach, fmt.Errorf("the peer's account in %.80q: %w", token, err)
	}
	if mach, err = p.machine(m); err != nil {
		return user, mach, fmt.Errorf("the peer's machine in %.80q: %w", token, err)
	}
	return user, mach, nil
}

// completed makes a peer of what stands for one side of it.
func completed(t string) string {
	switch {
	case t == "*":
		return "*@*"
	case t[0] == '.' || strings.Contains(t, ".") && machine(t) == nil:
		return "*@" + t
	case t[0] == '%' || t[0] == '$' || account(t) == nil:
		return t + "@*"
	}
	return "alice@.example.com"
}

// account reads a literal account, *, =, $set or %group.
func (p *parser) account(t string) (pattern, error) {
	switch {
	case t == "*":
		return pattern{}, nil
	case t == "=":
		return pattern{kind: same}, nil
	case t[0] == '%':
		name, err := groupName(t[1:])
		return pattern{kind: group, name: name}, err
	case t[0] == '$':
		s, err := p.setFor(t[1:])
		if err == nil && s.notAccounts != "" {
			err = fmt.Errorf("the set defined in %v holds machines (%.80q is no account): put it behind the @, or define "+
				"another", s.place,
				s.notAccounts)
		}
		return pattern{ofSet, t[1:], s}, err
	case t[0] == '.':
		return pattern{}, errors.New("a domain stands behind the @: write the peer as *@.example.com")
	}
	return pattern{kind: literal, name: t}, account(t)
}

// machine reads a literal machine, a domain, * or $set.
func (p *parser) machine(t string) (pattern, error) {
	switch {
	case t == "*":
		return pattern{}, nil
	case t == "=":
		return pattern{}, errors.New("= stands for an account, before the @: write the machine, .example.com or *")
	case t[0] == '%':
		return pattern{}, errors.New("a group is one of accounts, before the @: for several machines write a set (define " +
			"NAME MACHINE..., then $NAME)")
	case t[0] == '$':
		s, err := p.setFor(t[1:])
		if err == nil && s.notMachines != "" {
			err = fmt.Errorf("the set defined in %v holds accounts (%.80q is no machine): put it before the @, or define "+
				"another", s.place,
				s.notMachines)
		}
		return pattern{ofSet, t[1:], s}, err
	case t[0] == '.':
		return pattern{kind: domain, name: t}, machine(t)
	}
	return pattern{kind: literal, name: t}, machine(t)
}

// setFor returns a set that has been defined.
func (p *parser) setFor(name string) (*set, error) {
	s := p.known[name]
	if s == nil {
		return nil, fmt.Errorf("there is no set $%.80s before this line: write define %.80[1]s MEMBER..., in a line or a file before",
			name)
	}
	s.used = true
	return s, nil
}

// groupName decodes the name of a group, which has been lowered with the digits of its encoding.
func groupName(lowered string) (string, error) {
	b := []byte(lowered)
	for i := range b {
		if i > 0 && b[i-1] == '%' || i > 1 && b[i-2] == '%' {
			b[i] = strings.ToUpper(string(b[i]))[0]
		}
	}
	groups, err := names.DecodeGroups(string(b))
	switch {
	case err == nil && len(groups) == 1:
		return groups[0], nil
	case strings.Contains(lowered, ","):
		return "", errors.New("it holds a comma: write a rule for each group, and a comma in a group's name as %2C")
	case err == nil:
		err = errors.New("it is no name")
	}
	return "", fmt.Errorf("%w; write it as the attribute groups has it, what is not of [a-z0-9_.$+-@\\] as %%XX: "+
		"domain%%20users", err)
}
