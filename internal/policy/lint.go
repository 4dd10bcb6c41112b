package policy

import (
	"fmt"
	"slices"
	"strings"
)

// A Finding is something about a policy that may not be as it was meant, though it can be read.
type Finding struct {
	File string
	Line int
	Text string
}

func (f Finding) String() string { return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Text) }

// Lint returns what may not be as it was meant, in the order of files and lines, what is denied first. hasGroup says
// whether this machine's user database has a group; nil does not ask.
func (p *Policy) Lint(hasGroup func(name string) bool) (found []Finding) {
	if p == nil {
		return nil
	}
	if d := p.denied; d != nil {
		found = d.lint(&d.statements, hasGroup)
	}
	if r := p.rules; r != nil {
		of := r.lint(&r.statements, hasGroup)
		of = append(of, r.lintDefaults()...)
		if r.permissive {
			of = append(of, finding(r.mode, "mode permissive: nothing is refused but what is denied at once; write mode "+
				"enforcing when the log warns of nothing more that should pass"))
		}
		order := r.order()
		slices.SortStableFunc(of, func(a, b Finding) int { return order(place{a.File, a.Line}, place{b.File, b.Line}) })
		found = append(found, of...)
	}
	return found
}

func finding(at place, format string, args ...any) Finding {
	return Finding{at.file, at.line, fmt.Sprintf(format, args...)}
}

// lint looks at rules and sets.
func (x *index) lint(s *statements, hasGroup func(string) bool) (found []Finding) {
	asked := make(map[string]bool)
	for i := range x.rules {
		r := &x.rules[i]
		if by := x.covered(i); by != "" {
			found = append(found, finding(r.place, "never reached: %s; take it away, or put it before", by))
		}
		if g := r.local; g.kind == group && hasGroup != nil {
			if _, known := asked[g.name]; !known {
				asked[g.name] = hasGroup(g.name)
			}
			if !asked[g.name] {
				found = append(found, finding(r.place, "matches nobody: this machine's user database has no group %q", g.name))
			}
		}
	}
	for _, set := range s.sets {
		if !set.used {
			found = append(found, finding(set.place, "$%s stands in no rule", set.name))
		}
	}
	return found
}

// lintDefaults looks at what applies where no rule does.
func (r *Rules) lintDefaults() (found []Finding) {
	for d := In; d <= Out; d++ {
		at, what, all, agree := r.defaults[d], [2]string{"accept", "dial"}[d], 0, 0
		for i := range r.index.rules {
			rule := &r.index.rules[i]
			if rule.ways&(1<<d) == 0 {
				continue
			}
			if all++; rule.allow == r.allow[d] {
				agree++
			}
			if at.line == 0 {
				at = rule.place
			}
		}
		switch {
		case all == 0 && at.line == 0:
			found = append(found, finding(place{r.files[0], 1}, "nothing is said of %v: all that this machine's programs %s "+
				"is refused; write default %v deny if that is meant", d, what, d))
		case all > 0 && agree == all:
			found = append(found, finding(at, "all that this machine's programs %s is %s: each rule for %v says the same as "+
				"its default, %s",
				what, map[bool]string{true: "allowed", false: "refused"}[r.allow[d]], d, verb(r.allow[d])))
		}
	}
	return found
}

// covered says which rules before it match all that a rule matches, "" if they do not. It may miss some, and claims none
// that is not so.
func (x *index) covered(i int) string {
	var by []string
	for d := In; d <= Out; d++ {
		if x.rules[i].ways&(1<<d) == 0 {
			continue
		}
		r := x.covering(i, d)
		if r == nil {
			return ""
		}
		text := r.name() + " denies all of it"
		if r.allow {
			text = r.name() + " allows all of it"
		}
		if !slices.Contains(by, text) {
			by = append(by, text)
		}
	}
	if len(by) == 2 {
		return by[0] + " that comes in, " + by[1] + " that goes out"
	}
	return by[0]
}

// covering returns the first rule that matches all that rule i matches in one direction, nil if none before it does.
func (x *index) covering(i int, d Direction) *rule {
	b, best := &x.rules[i], i
	m := &match{x.local.over(b.local), x.user.over(b.user), x.machine.over(b.machine)}
	switch {
	case b.user.kind == same:
		m.users = append(m.users, x.user.over(b.local)...)
	case b.user.kind == literal && b.local == b.user:
		m.users = append(m.users, x.user.same...)
	}
	for _, list := range []*[]int{&m.locals, &m.users, &m.machines} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	look := func(list []int) {
		for _, j := range list {
			if j >= best {
				return
			}
			if a := &x.rules[j]; a.ways&(1<<d) != 0 && m.has(a.atoms) && a.covers(b) {
				best = j
				return
			}
		}
	}
	if b.hasKey {
		look(x.byKey[b.key])
	}
	if b.hasCert {
		look(x.byCert[b.cert])
	}
	x.each(m, look)
	if best == i {
		return nil
	}
	return &x.rules[best]
}

// over returns the numbers of what may match all that a pattern matches.
func (p *position) over(of pattern) []int {
	all := slices.Clone(p.any)
	name := of.name
	switch of.kind {
	case anybody:
		return all
	case same:
		return append(all, p.same...)
	case group:
		return append(all, p.groups[name]...)
	case ofSet:
		name = of.set.members[0] // what matches all matches the first
	}
	if name[0] == '.' {
		all = append(all, p.domains[name]...)
	}
	return p.machineNamed(all, name)
}

// covers reports whether a rule matches all that another does, leaving out the direction.
func (r *rule) covers(b *rule) bool {
	user := r.user.covers(b.user)
	switch {
	case b.user.kind == same && (b.local.kind == literal || b.local.kind == ofSet):
		user = user || r.user.covers(b.local)
	case r.user.kind == same && b.user.kind == literal:
		user = b.local.kind == literal && b.local.name == b.user.name
	}
	return user && r.local.covers(b.local) && r.machine.covers(b.machine) && r.conditions.covers(&b.conditions)
}

// covers reports whether a pattern matches all that another does.
func (p pattern) covers(b pattern) bool {
	one := func(member string) pattern {
		if member[0] == '.' {
			return pattern{kind: domain, name: member}
		}
		return pattern{kind: literal, name: member}
	}
	switch {
	case p.kind == anybody || p == b:
		return true
	case b.kind == ofSet:
		return !slices.ContainsFunc(b.set.members, func(m string) bool { return !p.covers(one(m)) })
	case p.kind == ofSet:
		return slices.ContainsFunc(p.set.members, func(m string) bool { return one(m).covers(b) })
	case p.kind == domain:
		return (b.kind == literal || b.kind == domain) && strings.HasSuffix(b.name, p.name)
	}
	return false
}

// covers reports whether conditions hold wherever others do.
func (n *conditions) covers(b *conditions) bool {
	return (n.service == "" || n.service == b.service) && (n.eku == "" || n.eku == b.eku) &&
		(n.by == anyCA || n.by == b.by && n.ca == b.ca) && (!n.hasKey || b.hasKey && n.key == b.key) &&
		(!n.hasCert || b.hasCert && n.cert == b.cert)
}
