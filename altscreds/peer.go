package altscreds

import (
	"context"
	"maps"
	"net"
	"slices"
	"strconv"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/alts"
	"google.golang.org/grpc/peer"

	"github.com/shared-altsd/shared-altsd/internal/ascii"
	"github.com/shared-altsd/shared-altsd/internal/names"
)

// A Peer is the proved identity of the other end of a connection.
type Peer struct {
	// Account is the whole name, "user@machine".
	Account string
	// User and Machine are its parts: what is before and after the last "@".
	User, Machine string
	// Attributes is what the peer's machine states of the account (docs/spec/protocol.md, section 5.4), "uid" and "groups"
	// among them where it publishes them, and "socket" where a socket that has a label gave the account out. They are worth as much as that machine is trusted.
	Attributes map[string]string
}

func newPeer(account string, attributes map[string]string) *Peer {
	user, machine := names.SplitAccount(account)
	return &Peer{Account: account, User: user, Machine: machine, Attributes: maps.Clone(attributes)}
}

// String returns the account.
func (p *Peer) String() string { return p.Account }

// UID returns the account's numeric uid on its machine; ok is false if the machine does not publish it.
func (p *Peer) UID() (uid uint32, ok bool) {
	n, err := strconv.ParseUint(p.Attributes["uid"], 10, 32)
	return uint32(n), err == nil
}

// Groups returns those of the account's groups that its machine publishes, by their names in lower case, decoded: a name
// may hold spaces, commas and any other printable character. It is nil for an attribute that is not of the form that the
// daemon lets through.
func (p *Peer) Groups() []string {
	groups, err := names.DecodeGroups(p.Attributes["groups"])
	if err != nil {
		return nil
	}
	return groups
}

// InGroup reports whether the account is in the group, as its machine states. Capitals count as lower case.
func (p *Peer) InGroup(group string) bool { return slices.Contains(p.Groups(), ascii.Lower(group)) }

// PeerFromContext returns the peer of an RPC in its handler or, under ConnContext, of an HTTP request. ok is false if
// the peer is not authenticated by ALTS.
func PeerFromContext(ctx context.Context) (p *Peer, ok bool) {
	return PeerFromAuthInfo(authInfoFromContext(ctx))
}

// PeerFromAuthInfo returns the peer that an AuthInfo of this package or of grpc's own ALTS names, for clients that have
// it from grpc.Peer. ok is false if it is another kind.
func PeerFromAuthInfo(ai credentials.AuthInfo) (p *Peer, ok bool) {
	switch ai := ai.(type) {
	case AuthInfo:
		return ai.Peer(), true
	case alts.AuthInfo:
		var attributes map[string]string
		if a, ok := ai.(interface{ PeerAttributes() map[string]string }); ok {
			attributes = a.PeerAttributes()
		}
		return newPeer(ai.PeerServiceAccount(), attributes), true
	}
	return nil, false
}

type connKey struct{}

// ConnContext returns a context in which PeerFromContext finds the peer of a request: for http.Server.ConnContext, over
// a Listener of this package.
func ConnContext(ctx context.Context, conn net.Conn) context.Context {
	if c, ok := conn.(*Conn); ok {
		return context.WithValue(ctx, connKey{}, c)
	}
	return ctx
}

func authInfoFromContext(ctx context.Context) credentials.AuthInfo {
	if c, ok := ctx.Value(connKey{}).(*Conn); ok {
		return c.AuthInfo()
	}
	if p, ok := peer.FromContext(ctx); ok {
		return p.AuthInfo
	}
	return nil
}
