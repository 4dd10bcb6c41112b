package forward

import (
	"context"
	"errors"
)

// A Link is one connection that was accepted, on its way to the other side. Its methods are called in this order, one at a
// time, but for Abort and Recheck, which are called at any time and from elsewhere.
type Link interface {
	// Prove finds out who is at the other end, and refuses whom it is not for. It ends with ctx.
	Prove(ctx context.Context) error
	// Open connects the other side. It ends with ctx.
	Open(ctx context.Context) error
	// Carry carries bytes until both directions have ended or ctx ends, and closes both ends.
	Carry(ctx context.Context) Result
	// Abort ends all at once, so that neither end takes it for whole. It is called at the end of each connection as well.
	Abort()
	// Facts returns what is known by now.
	Facts() Facts
	// Recheck refuses what would be refused by the configuration that is in force now.
	Recheck() error
}

// Facts are what the log says of a connection, "" for what is not known yet.
type Facts struct {
	Handshake string // its ID
	Peer      string // user@machine
	Service   string
	Account   string // the local account, whose identity is lent or seen
	From      string // the address that the connection came from
	// Holder is who holds the connection's place: none has more than half of them. "" for no such bound.
	Holder string
}

// An Outcome is what became of a connection, as metrics and the log name it.
type Outcome string

// The outcomes.
const (
	Clean       Outcome = "clean"
	Unclean     Outcome = "unclean"     // an end came without being said
	Foreign     Outcome = "foreign"     // a local program of another account
	Handshake   Outcome = "handshake"   // the handshake failed
	NotAllowed  Outcome = "not_allowed" // no --allow lets the peer in
	WrongTarget Outcome = "wrong_target"
	GaveWay     Outcome = "gave_way" // to newer ones, before it was proved who it was
	Full        Outcome = "full"     // no place
	Backend     Outcome = "backend"  // the other side could not be connected
	Impostor    Outcome = "impostor" // the other side is another account's
	Age         Outcome = "age"
	Stopped     Outcome = "stopped"
	Failed      Outcome = "failed" // anything else
)

// OutcomeNames returns all of them, as metrics.NewForwards takes them.
func OutcomeNames() (names []string) {
	for _, o := range []Outcome{Clean, Unclean, Foreign, Handshake, NotAllowed, WrongTarget, GaveWay, Full, Backend, Impostor, Age, Stopped,
		Failed} {
		names = append(names, string(o))
	}
	return names
}

// A Refusal is an error with the outcome that it is.
type Refusal struct {
	Outcome Outcome
	Err     error
	Told    bool // the log has it already
}

func (r *Refusal) Error() string { return r.Err.Error() }

// Unwrap returns the error.
func (r *Refusal) Unwrap() error { return r.Err }

// Refuse returns a Refusal.
func Refuse(o Outcome, err error) error { return &Refusal{Outcome: o, Err: err} }

// outcomeOf returns the outcome that an error is.
func outcomeOf(err error, otherwise Outcome) Outcome {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r.Outcome
	}
	return otherwise
}
