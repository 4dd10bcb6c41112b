package service

import "fmt"

// A share is whose part of the daemon something is: every bound, queue and budget counts by it. It is an account, or a
// socket that is limited to uids, as a whole, or all uids without a name together, those of /etc/subuid apart from the
// rest. A uid would not do: a user has 65536 of them by way of /etc/subuid, and a container those of its socket.
type share struct {
	kind shareKind
	id   uint32 // of an account its uid, of a socket its number
}

type shareKind int

const (
	ofStrangers shareKind = iota
	ofSubordinates
	ofAccount
	ofSocket
)

// String returns whose it is, for those who are told that it is used up.
func (s share) String() string {
	switch s.kind {
	case ofAccount:
		return fmt.Sprintf("uid %d", s.id)
	case ofSocket:
		return "the whole of this socket's uids"
	case ofSubordinates:
		return "the whole of subordinate uids without a name"
	}
	return "the whole of uids without a name"
}
