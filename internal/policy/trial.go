package policy

import (
	"errors"
	"fmt"
	"strings"

	"github.com/shared-altsd/shared-altsd/internal/ascii"
	"github.com/shared-altsd/shared-altsd/internal/names"
)

// A Line is a rule in its file.
type Line struct {
	Name string // FILE:LINE
	Text string // as it was written, with its remark
	Form string // without: the one form that it has
}

// A Trial is what would be said of a connection of which only names are known.
type Trial struct {
	Verdict Verdict
	Line    Line // what decided, zero if no rule did
	// Unless are lines that would be decisive before it, and otherwise: they match but for what they ask of the peer's
	// certificate, which is not known. They are the first MaxUnless; More is how many there are behind them.
	Unless []Line
	More   int
}

// MaxUnless bounds Trial.Unless: of keys and certificates as many lines may be denied as there may be lines.
const MaxUnless = 8

// Between returns the connection of words, ACCOUNT@MACHINE and the local account. An error names cause and cure.
func Between(peer, local string) (*Connection, error) {
	p, l := ascii.Lower(peer), ascii.Lower(local)
	user, mach := names.SplitAccount(p)
	if user == "" || mach == "" {
		return nil, fmt.Errorf("the peer %.100q is not ACCOUNT@MACHINE: write it as the log does, such as "+
			"alice@alpha.example.com", peer)
	}
	if err := account(user); err != nil {
		return nil, fmt.Errorf("the peer's account in %.100q: %w", peer, err)
	}
	err := machine(mach)
	if err == nil && mach[0] == '.' {
		err = errors.New("it is a domain, and one machine is judged")
	}
	if err != nil {
		return nil, fmt.Errorf("the peer's machine in %.100q: %w", peer, err)
	}
	if err := account(l); err != nil {
		return nil, fmt.Errorf("the local account %.100q: %w", local, err)
	}
	return &Connection{Account: l, Peer: Peer{Account: user, Machine: mach, Names: []string{mach}}}, nil
}

// Assume has a condition hold of the connection, as rules write it: service=, or one of the peer's certificate.
func (c *Connection) Assume(condition string) error {
	var n conditions
	if err := n.add(condition, true); err != nil {
		return err
	}
	p := &c.Peer
	switch {
	case n.service != "":
		c.Service = n.service
	case n.eku != "":
		p.EKUs = append(p.EKUs, n.eku)
	case n.by == byKey:
		p.CAKey = n.ca
	case n.by == byName:
		p.CAName = n.ca
	case n.hasKey:
		p.Key = n.key
	case n.hasCert:
		p.Certificates = append(p.Certificates, n.cert)
	}
	return nil
}

// Group returns the name of a group as connections have it, from how rules write it, with % or without.
func Group(written string) (string, error) {
	return groupName(strings.TrimPrefix(ascii.Lower(written), "%"))
}

// Try judges a connection of which only names are known.
func (p *Policy) Try(c *Connection) Trial {
	v, decided := p.judge(c)
	t := Trial{Verdict: v}
	if decided != nil {
		t.Line = decided.asLine()
	}
	if p == nil || v.Denied {
		return t
	}
	if p.denied != nil {
		p.denied.unless(&t, c, nil, v.Allowed)
	}
	if p.rules != nil {
		p.rules.unless(&t, c, decided, v.Allowed && !v.Would)
	}
	return t
}

// unless adds the lines before one that would say otherwise, if what they ask of a certificate held.
func (x *index) unless(t *Trial, c *Connection, before *rule, allowed bool) {
	m := x.matches(c, false)
	for i := range x.rules {
		r := &x.rules[i]
		if r == before {
			break
		}
		if r.ways&(1<<c.Direction) != 0 && r.allow != allowed && r.ofCertificate() && m.has(r.atoms) &&
			(r.service == "" || r.service == c.Service) {
			if len(t.Unless) == MaxUnless {
				t.More++
				continue
			}
			t.Unless = append(t.Unless, r.asLine())
		}
	}
}

func (r *rule) asLine() Line { return Line{r.name(), r.text, r.String()} }
