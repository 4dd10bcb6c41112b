package service

import (
	"context"
	"fmt"

	"github.com/shared-altsd/shared-altsd/certbind"
)

// Machines for which DNS vouches: a session whose peer is one of them asks, outside of its turn, and goes on with the answer.

// A Resolver asks validated DNS what vouches for a machine.
type Resolver interface {
	// Resolve returns what DNS says, for callers at the same time. That there are no records is an answer, if it is proved.
	// An answer is good for some seconds at least, also where its records are not. Errors are *reason.Error, mostly DNSUnknown.
	// Strangers choose the names, within the limits of --ca, so that it bounds what it holds and does by the query's Share.
	Resolve(ctx context.Context, q Query) (*certbind.Answer, error)
}

// A Query is one question.
type Query struct {
	Share     string // who pays: the same for the same, and nothing else
	Initiator bool   // the local application dialled; its target is the machine
	Machine   string // a valid name, in lower case
}

// key returns the share in the form that leaves this package.
func (s share) key() string { return fmt.Sprintf("%d/%d", s.kind, s.id) }
