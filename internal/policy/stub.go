package policy

// A stub until the package has its parser.

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
)

// NameHash is the SHA-256 of a name.
func NameHash(name string) [32]byte { return sha256.Sum256([]byte(name)) }

type stubRule struct {
	deny           bool
	dir            string
	local, peer    string
	service, where string
}

var (
	stubRules  = map[*Rules][]stubRule{}
	stubPerm   = map[*Rules]bool{}
	stubDenied = map[*Denied][]stubRule{}
)

func stubParse(files []File) (rules []stubRule, permissive bool, err error) {
	for _, f := range files {
		for i, line := range bytes.Split(f.Data, []byte("\n")) {
			text, _, _ := strings.Cut(string(line), "#")
			w := strings.Fields(text)
			if len(w) == 0 {
				continue
			}
			if w[0] == "mode" {
				permissive = w[1] == "permissive"
				continue
			}
			if w[0] == "default" {
				continue
			}
			if len(w) < 4 {
				return nil, false, fmt.Errorf("%s:%d: not a rule", f.Name, i+1)
			}
			r := stubRule{deny: w[0] == "deny", dir: w[1], local: w[2], peer: w[3], where: fmt.Sprintf("%s:%d", f.Name, i+1)}
			for _, c := range w[4:] {
				r.service = strings.TrimPrefix(c, "service=")
			}
			rules = append(rules, r)
		}
	}
	return rules, permissive, nil
}

// ParseRules reads rules.
func ParseRules(files []File) (*Rules, error) {
	rules, permissive, err := stubParse(files)
	if err != nil {
		return nil, err
	}
	r := &Rules{new(int)}
	stubRules[r], stubPerm[r] = rules, permissive
	return r, nil
}

// ParseDenied reads denials.
func ParseDenied(files []File) (*Denied, error) {
	rules, _, err := stubParse(files)
	if err != nil {
		return nil, err
	}
	d := &Denied{new(int)}
	stubDenied[d] = rules
	return d, nil
}

func (r stubRule) matches(c *Connection) bool {
	if r.dir == "in" && c.Direction != In || r.dir == "out" && c.Direction != Out {
		return false
	}
	if r.service != "" && r.service != c.Service {
		return false
	}
	local := r.local == "*" || r.local == c.Account
	if g, ok := strings.CutPrefix(r.local, "%"); ok {
		for _, have := range c.Groups {
			local = local || have == g
		}
	}
	if !local {
		return false
	}
	account, machine, _ := strings.Cut(r.peer, "@")
	if account != "*" && account != c.Peer.Account {
		return false
	}
	if machine == "*" || machine == c.Peer.Machine {
		return true
	}
	for _, n := range c.Peer.Names {
		if n == machine && r.deny {
			return true
		}
	}
	return false
}

// Judge judges.
func (p *Policy) Judge(c *Connection) Verdict {
	if p == nil {
		return Verdict{Allowed: true}
	}
	if p.denied != nil {
		for _, r := range stubDenied[p.denied] {
			if r.matches(c) {
				return Verdict{Rule: r.where, Denied: true}
			}
		}
	}
	if p.rules == nil {
		return Verdict{Allowed: true}
	}
	for _, r := range stubRules[p.rules] {
		if r.matches(c) {
			return Verdict{Allowed: !r.deny || stubPerm[p.rules], Would: r.deny && stubPerm[p.rules], Rule: r.where}
		}
	}
	if c.Direction == Out {
		return Verdict{Allowed: true, Rule: "default out"}
	}
	return Verdict{Allowed: stubPerm[p.rules], Would: stubPerm[p.rules], Rule: "default in"}
}

// LocalGroups names groups.
func (p *Policy) LocalGroups() []string {
	if p == nil || p.rules == nil {
		return nil
	}
	var groups []string
	for _, r := range stubRules[p.rules] {
		if g, ok := strings.CutPrefix(r.local, "%"); ok {
			groups = append(groups, g)
		}
	}
	return groups
}
