// Package policy is who may talk to whom: rules that an administrator writes, and the judgement of one connection by them.
//
// It reads no files and knows no daemon: texts in, verdicts out.
package policy

// A Direction is which end of a connection this machine is.
type Direction int

// The directions: In where an application here accepted (a responder), Out where it dialled (an initiator).
const (
	In Direction = iota
	Out
)

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

// A File is a text of rules and what to call it in messages.
type File struct {
	Name string
	Data []byte
}

// Rules are what --policy says. They do not change once made.
type Rules struct{ _ *int }

// Denied is what is denied before all rules. It does not change once made.
type Denied struct{ _ *int }

// A Policy is both, as one. It does not change once made; nil lets everybody.
type Policy struct {
	denied *Denied
	rules  *Rules
}

// New returns the policy of both; either may be nil, for none.
func New(d *Denied, r *Rules) *Policy { return &Policy{d, r} }

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
