package policy

import (
	"slices"
	"strings"
)

// An index finds the first rule that matches, in a time that depends on the connection and little on their number: each
// rule is kept under what stands in its three positions, and a connection is looked up under all that it matches there.
type index struct {
	rules                []rule
	local, user, machine position
	byAtoms              map[atoms][]int // rules without a key and a certificate, by what stands in their positions
	byKey                map[[32]byte][]int
	byCert               map[Certificate][]int
	plain                []int // all of byAtoms
}

// Atoms are what stands in the three positions of a rule, the same number for the same.
type atoms struct{ atLocal, atUser, atMachine int }

// A position is what stands in one position of all rules, as numbers: by its text, and by what of a connection it matches.
// Names, domains and groups are apart, so that no name is ever taken for anything else.
type position struct {
	numbers                map[string]int
	any, same              []int
	names, domains, groups map[string][]int
	longest                int // of the domains, bytes
}

func (p *position) number(of pattern) int {
	text := of.String()
	if n, ok := p.numbers[text]; ok {
		return n
	}
	if p.numbers == nil {
		p.numbers, p.names = make(map[string]int), make(map[string][]int)
		p.domains, p.groups = make(map[string][]int), make(map[string][]int)
	}
	n := len(p.numbers)
	p.numbers[text] = n
	switch of.kind {
	case anybody:
		p.any = append(p.any, n)
	case same:
		p.same = append(p.same, n)
	case group:
		p.groups[of.name] = append(p.groups[of.name], n)
	case ofSet:
		for _, m := range of.set.members {
			p.addName(m, n)
		}
	default:
		p.addName(of.name, n)
	}
	return n
}

func (p *position) addName(name string, n int) {
	to := p.names
	if name[0] == '.' {
		to, p.longest = p.domains, max(p.longest, len(name))
	}
	to[name] = append(to[name], n)
}

// account returns the numbers of what matches an account in its groups.
func (p *position) account(to []int, name string, groups []string) []int {
	to = append(append(to, p.any...), p.names[name]...)
	if len(p.groups) > 0 {
		for _, g := range groups {
			to = append(to, p.groups[g]...)
		}
	}
	return to
}

// machineNamed adds the numbers of what matches one name of a machine.
func (p *position) machineNamed(to []int, name string) []int {
	name = strings.TrimSuffix(name, ".") // as a certificate may have it
	to = append(to, p.names[name]...)
	for i := max(1, len(name)-p.longest); i < len(name); i++ {
		if name[i] == '.' {
			to = append(to, p.domains[name[i:]]...)
		}
	}
	return to
}

func (x *index) build(rules []rule) {
	x.rules = rules
	x.byAtoms = make(map[atoms][]int)
	x.byKey, x.byCert = make(map[[32]byte][]int), make(map[Certificate][]int)
	for i := range rules {
		r := &rules[i]
		r.atoms = atoms{x.local.number(r.local), x.user.number(r.user), x.machine.number(r.machine)}
		switch {
		case r.hasKey:
			x.byKey[r.key] = append(x.byKey[r.key], i)
		case r.hasCert:
			x.byCert[r.cert] = append(x.byCert[r.cert], i)
		default:
			x.byAtoms[r.atoms] = append(x.byAtoms[r.atoms], i)
			x.plain = append(x.plain, i)
		}
	}
}

// A match is what a connection matches in each position, sorted.
type match struct{ locals, users, machines []int }

func (m *match) has(a atoms) bool {
	_, local := slices.BinarySearch(m.locals, a.atLocal)
	_, user := slices.BinarySearch(m.users, a.atUser)
	_, machine := slices.BinarySearch(m.machines, a.atMachine)
	return local && user && machine
}

// matches returns what a connection matches; with names, by each name of the peer's certificate as well.
func (x *index) matches(c *Connection, names bool) *match {
	m := &match{locals: x.local.account(nil, c.Account, c.Groups), users: x.user.account(nil, c.Peer.Account, c.Peer.Groups)}
	if c.Peer.Account == c.Account {
		m.users = append(m.users, x.user.same...)
	}
	m.machines = x.machine.machineNamed(append(m.machines, x.machine.any...), c.Peer.Machine)
	if names && len(x.machine.numbers) > len(x.machine.any) {
		for _, n := range c.Peer.Names {
			m.machines = x.machine.machineNamed(m.machines, n)
		}
	}
	for _, list := range []*[]int{&m.locals, &m.users, &m.machines} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	return m
}

// first returns the first rule that matches a connection, nil if none does; with names, a machine is any of those that its
// certificate names.
func (x *index) first(c *Connection, names bool) *rule {
	if len(x.rules) == 0 {
		return nil
	}
	m, best := x.matches(c, names), len(x.rules)
	way := uint8(1) << c.Direction
	look := func(list []int) {
		for _, i := range list {
			if i >= best {
				return
			}
			if r := &x.rules[i]; r.ways&way != 0 && m.has(r.atoms) && r.hold(c) {
				best = i
				return
			}
		}
	}
	look(x.byKey[c.Peer.Key])
	for _, cert := range c.Peer.Certificates {
		look(x.byCert[cert])
	}
	x.each(m, look)
	if best == len(x.rules) {
		return nil
	}
	return &x.rules[best]
}

// each calls look for lists of rules, in order each, that have all that match in their positions.
func (x *index) each(m *match, look func([]int)) {
	if len(m.locals)*len(m.users)*len(m.machines) > len(x.plain) {
		look(x.plain) // no more than the rules there are, whatever groups a peer has
		return
	}
	for _, machine := range m.machines {
		for _, user := range m.users {
			for _, local := range m.locals {
				look(x.byAtoms[atoms{local, user, machine}])
			}
		}
	}
}
