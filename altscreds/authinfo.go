package altscreds

import (
	"fmt"
	"net"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/alts"
	"google.golang.org/protobuf/proto"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/ascii"
)

// AuthInfo is what a connection's handshake proved. It is grpc's own alts.AuthInfo and more, so that
// alts.AuthInfoFromContext, alts.AuthInfoFromPeer and alts.ClientAuthorizationCheck work with it.
type AuthInfo interface {
	credentials.AuthInfo
	credentials.AuthorityValidator
	alts.AuthInfo
	// Peer returns the other end's identity.
	Peer() *Peer
	// PeerAttributes returns what the peer's machine states of the account.
	PeerAttributes() map[string]string
	// GetCommonAuthInfo reports privacy and integrity to grpc.
	GetCommonAuthInfo() credentials.CommonAuthInfo
}

// newAuthInfo makes the AuthInfo of a checked result; target is the name that was dialled.
func newAuthInfo(r *altspb.HandshakerResult, target string) (AuthInfo, error) {
	return makeAuthInfo(alts.AuthInfo.SecurityLevel, alts.AuthInfo.PeerRPCVersions, r, target)
}

// integrityAndPrivacy is the value of that name in grpc's enumeration of ALTS security levels.
const integrityAndPrivacy = 2

// info implements AuthInfo. Two methods of alts.AuthInfo have results of types L and *V that grpc keeps to itself; they
// are inferred from the interface's own methods.
type info[L ~int32, V any] struct {
	credentials.CommonAuthInfo
	applicationProtocol string
	target              string
	local               string
	peer                *Peer
	versions            []byte // a V, encoded: few ask for it, and each connection would keep one
}

func makeAuthInfo[L ~int32, V any](_ func(alts.AuthInfo) L, _ func(alts.AuthInfo) *V, r *altspb.HandshakerResult,
	target string) (*info[L, V], error) {
	versions, err := proto.Marshal(r.GetPeerRpcVersions())
	if err != nil {
		return nil, fmt.Errorf("altscreds: the peer's RPC versions: %w", err)
	}
	return &info[L, V]{
		CommonAuthInfo:      credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		applicationProtocol: r.GetApplicationProtocol(),
		target:              target,
		local:               r.GetLocalIdentity().GetServiceAccount(),
		peer:                newPeer(r.GetPeerIdentity().GetServiceAccount(), r.GetPeerIdentity().GetAttributes()),
		versions:            versions,
	}, nil
}

func (*info[L, V]) AuthType() string                    { return "alts" }
func (i *info[L, V]) ApplicationProtocol() string       { return i.applicationProtocol }
func (*info[L, V]) RecordProtocol() string              { return recordProtocol }
func (*info[L, V]) SecurityLevel() L                    { return integrityAndPrivacy }
func (i *info[L, V]) PeerServiceAccount() string        { return i.peer.Account }
func (i *info[L, V]) LocalServiceAccount() string       { return i.local }
func (i *info[L, V]) Peer() *Peer                       { return i.peer }
func (i *info[L, V]) PeerAttributes() map[string]string { return i.peer.Attributes }

// PeerRPCVersions decodes what was encoded: V is grpc's own type of that message.
func (i *info[L, V]) PeerRPCVersions() *V {
	v := new(V)
	_ = proto.Unmarshal(i.versions, any(v).(proto.Message))
	return v
}

// ValidateAuthority lets an RPC name another authority than its channel if that is still the same machine: the name
// that was dialled, or the peer's own.
func (i *info[L, V]) ValidateAuthority(authority string) error {
	host := hostOf(authority)
	if host != "" && (host == i.peer.Machine || host == hostOf(i.target)) {
		return nil
	}
	return fmt.Errorf("altscreds: the peer is %s, dialled as %q; it is not proved to be %q", i.peer.Account, i.target,
		authority)
}

// hostOf returns the host of an authority, without port, brackets and trailing dot, in lower case.
func hostOf(authority string) string {
	host, _, err := net.SplitHostPort(authority)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(authority, "["), "]")
	}
	return ascii.Lower(strings.TrimSuffix(host, "."))
}
