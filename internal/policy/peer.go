package policy

import (
	"errors"
	"slices"
	"strings"

	"github.com/shared-altsd/shared-altsd/internal/ascii"
)

// A PeerPattern is USER@MACHINE as rules have it, for what is let in elsewhere than at the handshake. Sets have no place in
// it: they are a policy's own.
type PeerPattern struct{ user, machine pattern }

// ParsePeer reads USER@MACHINE: an account, *, = or %group, and a machine, .domain or *.
func ParsePeer(text string) (PeerPattern, error) {
	if user, machine, _ := strings.Cut(text, "@"); strings.HasPrefix(user, "$") || strings.HasPrefix(machine, "$") {
		return PeerPattern{}, errors.New("sets ($NAME) stand in a policy alone: give each of its members by itself")
	}
	if strings.ContainsAny(text, " \t") {
		return PeerPattern{}, errors.New("it holds white space: give one USER@MACHINE at a time, such as alice@.example.com")
	}
	if text == "" {
		return PeerPattern{}, errors.New("it is empty: give USER@MACHINE, such as alice@.example.com")
	}
	user, machine, err := new(parser).peer(text)
	return PeerPattern{user, machine}, err
}

// String returns the pattern in the one form that it has.
func (p PeerPattern) String() string { return p.user.String() + "@" + p.machine.String() }

// Matches reports whether a peer is one of the pattern's; = is the local account of the same name.
func (p PeerPattern) Matches(account string, peer *Peer) bool {
	if account == "" || peer.Account == "" || peer.Machine == "" {
		return false
	}
	switch p.user.kind {
	case same:
		if peer.Account != account {
			return false
		}
	case group:
		if !slices.Contains(peer.Groups, p.user.name) {
			return false
		}
	case literal:
		if peer.Account != p.user.name {
			return false
		}
	}
	machine := strings.TrimSuffix(ascii.Lower(peer.Machine), ".")
	switch p.machine.kind {
	case domain:
		return strings.HasSuffix(machine, p.machine.name) && len(machine) > len(p.machine.name)
	case literal:
		return machine == p.machine.name
	}
	return true
}
