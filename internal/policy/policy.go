// Package policy is who may talk to whom: rules that an administrator writes, and the judgement of one connection by them.
//
// It reads no files and knows no daemon: texts in, verdicts out. docs/policy.md has the language.
package policy

import (
	"crypto/sha256"
	"maps"
	"slices"
)

// A Direction is which end of a connection this machine is.
type Direction int

// The directions: In where an application here accepted (a responder), Out where it dialled (an initiator).
const (
	In Direction = iota
	Out
)

// String returns the direction as rules have it.
func (d Direction) String() string {
	if d == In {
		return "in"
	}
	return "out"
}

// A Connection is what is judged: an account of this machine, and whom the other machine has proved.
type Connection struct {
	Direction Direction
	// Account is the local one. Groups are those of Policy.LocalGroups that it is in by this machine's user database,
	// published or not.
	Account string
	Groups  []string
	Peer    Peer
	// Service is the application protocol that the two agreed on, "grpc" for gRPC.
	Service string
}

// A Peer is what has been proved of the other end. All names are in lower case.
type Peer struct {
	Account, Machine string
	Groups           []string // that its machine publishes, decoded
	Names            []string // DNS names of its certificate
	EKUs             []string // extended key usages of its certificate, dotted
	Key              [32]byte // SHA-256 of its certificate's SubjectPublicKeyInfo
	// Certificates are the leaf and the intermediates.
	Certificates []Certificate
	// CAKey is the SHA-256 of the trusted CA's SubjectPublicKeyInfo, CAName NameHash of what its subject is called.
	CAKey, CAName [32]byte
}

// A Certificate is named by who issued it and the number that he gave it.
type Certificate struct {
	Serial string   // hexadecimal, lower case, as `status` and the log write it
	Issuer [32]byte // NameHash of the issuer's distinguished name as they write it
}

// NameHash returns what stands for a distinguished name, as pkix.Name has it in String.
func NameHash(name string) [32]byte { return sha256.Sum256([]byte(name)) }

// Rules are what --policy says. They do not change once made.
type Rules struct {
	index
	statements
}

// String returns the files as one, each statement in its one form.
func (r *Rules) String() string { return r.written(r.index.rules) }

// Denied is what is denied before all rules. It does not change once made.
type Denied struct {
	index
	statements
}

// String returns the files as one, each statement in its one form.
func (d *Denied) String() string { return d.written(d.index.rules) }

// A Policy is both, as one. It does not change once made; nil lets everybody.
type Policy struct {
	denied      *Denied
	rules       *Rules
	localGroups []string // that stand on local sides
}

// New returns the policy of both; either may be nil, for none.
func New(d *Denied, r *Rules) *Policy {
	p := &Policy{denied: d, rules: r}
	var both []*index
	if d != nil {
		both = append(both, &d.index)
	}
	if r != nil {
		both = append(both, &r.index)
	}
	for _, x := range both {
		p.localGroups = slices.AppendSeq(p.localGroups, maps.Keys(x.local.groups))
	}
	slices.Sort(p.localGroups)
	p.localGroups = slices.Compact(p.localGroups)
	return p
}

// A Verdict is what a policy says of a connection.
type Verdict struct {
	// Allowed says whether it may be.
	Allowed bool
	// Rule names the rule that decided: FILE:LINE, or "default in" and "default out"; "" if there are no rules.
	Rule string
	// Would is true where it may be only because the rules are in permissive mode.
	Would bool
	// Denied is true if it was denied before all rules.
	Denied bool
}

// Judge says whether a connection may be: what is denied first, then the first rule that matches, then the default.
func (p *Policy) Judge(c *Connection) Verdict {
	v, _ := p.judge(c)
	return v
}

// judge returns the rule that decided as well, nil where none did.
func (p *Policy) judge(c *Connection) (Verdict, *rule) {
	if p == nil {
		return Verdict{Allowed: true}, nil
	}
	v := Verdict{Rule: "default " + c.Direction.String()}
	if c.Account == "" || c.Peer.Account == "" || c.Peer.Machine == "" {
		return v, nil // nobody: no verifier lets that through
	}
	if p.denied != nil {
		if r := p.denied.first(c, true); r != nil {
			return Verdict{Rule: r.name(), Denied: true}, r
		}
	}
	if p.rules == nil {
		return Verdict{Allowed: true}, nil
	}
	v.Allowed = p.rules.allow[c.Direction]
	r := p.rules.first(c, false)
	if r != nil {
		v.Allowed, v.Rule = r.allow, r.name()
	}
	if !v.Allowed && p.rules.permissive {
		v.Allowed, v.Would = true, true
	}
	return v, r
}

// LocalGroups returns the groups that stand on local sides, sorted: those whose members the user database has to be
// asked for. It is shared: not to be changed.
func (p *Policy) LocalGroups() []string {
	if p == nil {
		return nil
	}
	return p.localGroups
}

// Mode returns "enforcing" or "permissive", "" where there are no rules.
func (p *Policy) Mode() string {
	if p == nil || p.rules == nil {
		return ""
	}
	return modeName(p.rules.permissive)
}

// Default returns "allow" or "deny", what applies where no rule does, "" where there are no rules.
func (p *Policy) Default(d Direction) string {
	if p == nil || p.rules == nil {
		return ""
	}
	return verb(p.rules.allow[d])
}

// Count returns how many rules there are, and how many lines of what is denied before them.
func (p *Policy) Count() (rules, denied int) {
	if p == nil {
		return 0, 0
	}
	if p.rules != nil {
		rules = len(p.rules.index.rules)
	}
	if p.denied != nil {
		denied = len(p.denied.index.rules)
	}
	return rules, denied
}
