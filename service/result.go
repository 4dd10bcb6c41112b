package service

import (
	"bytes"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/noiseproto"
)

// newResult returns what the application me is told of a handshake that succeeded; the peer's maximum frame size and
// RPC versions are passed on as they came.
func newResult(r *noiseproto.Result, me *identity) *altspb.HandshakerResult {
	version := func(v noiseproto.Version) *altspb.RpcProtocolVersions_Version {
		return &altspb.RpcProtocolVersions_Version{Major: v.Major, Minor: v.Minor}
	}
	out := &altspb.HandshakerResult{
		ApplicationProtocol: r.ApplicationProtocol,
		RecordProtocol:      r.RecordProtocol,
		KeyData:             bytes.Clone(r.KeyData[:]),
		PeerIdentity:        newIdentity(r.Peer.Account, r.Peer.Machine, r.Peer.Attributes),
		LocalIdentity:       newIdentity(me.account.Name, me.machine, me.attributes()),
		PeerRpcVersions: &altspb.RpcProtocolVersions{
			MaxRpcVersion: version(r.PeerRPCVersions.Max), MinRpcVersion: version(r.PeerRPCVersions.Min),
		},
		MaxFrameSize: r.PeerMaxFrameSize,
	}
	if r.TransportProtocol != "" {
		out.TransportProtocol = &altspb.NegotiatedTransportProtocol{TransportProtocol: r.TransportProtocol}
	}
	return out
}

func newIdentity(account, machine string, attrs []certbind.Attribute) *altspb.Identity {
	m := map[string]string{}
	for _, a := range attrs {
		m[a.Name] = a.Value
	}
	m["user"], m["machine"] = account, machine
	return &altspb.Identity{
		IdentityOneof: &altspb.Identity_ServiceAccount{ServiceAccount: account + "@" + machine}, Attributes: m,
	}
}
