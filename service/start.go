package service

import (
	"math"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/ascii"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/noiseproto"
)

// A start is a start request that was found good.
type start struct {
	params    noiseproto.Params
	authorize func(*certbind.Peer) error // nil for a server
	endpoints endpoints
}

// endpoints are those of the application's connection. What it says of them nothing proves: that is for the log only.
type endpoints struct{ local, remote netip.AddrPort }

// Unknown fields of newer gRPC libraries are let pass, as protobuf has it, but not silently: the caller logs them
// (see unknownFields). Unknown numbers of a known enum, and an identity of unknown kind, are refused.

// clientStart turns a client's start request into what the handshake needs.
func (s *Server) clientStart(req *altspb.StartClientHandshakeReq, me *identity) (*start, error) {
	if p := req.GetHandshakeSecurityProtocol(); p != altspb.HandshakeProtocol_ALTS {
		return nil, badRequest(
			"the start request asks for handshake protocol %d; this daemon speaks ALTS (2) only", int32(p))
	}
	if req.GetAccessToken() != "" {
		return nil, badRequest("the start request has an access_token, which this daemon cannot pass on; remove it")
	}
	var err error
	st := new(start)
	if st.params, err = newParams(req.GetApplicationProtocols(), req.GetRecordProtocols(), req.GetRpcVersions(),
		req.GetMaxFrameSize(), req.GetTransportProtocolPreferences()); err != nil {
		return nil, err
	}
	if id := req.GetLocalIdentity(); id != nil {
		if err := me.checkOwn(id); err != nil {
			return nil, err
		}
	}
	if st.endpoints, err = newEndpoints(req.GetLocalEndpoint(), req.GetRemoteEndpoint()); err != nil {
		return nil, err
	}
	t, err := s.newTarget(req, me)
	if err != nil {
		return nil, err
	}
	st.authorize = t.authorize
	return st, nil
}

// serverStart turns a server's start request into what the handshake needs. Its in_bytes are not looked at.
func (s *Server) serverStart(req *altspb.StartServerHandshakeReq, me *identity) (*start, error) {
	for key, p := range req.GetHandshakeParameters() {
		if key != int32(altspb.HandshakeProtocol_TLS) && key != int32(altspb.HandshakeProtocol_ALTS) {
			return nil, badRequest(
				"the start request has parameters for handshake protocol %d, which is not known here", key)
		}
		if p.Token != nil {
			return nil, badRequest("the start request has a token, which this daemon cannot use; remove it")
		}
	}
	alts := req.GetHandshakeParameters()[int32(altspb.HandshakeProtocol_ALTS)]
	if alts == nil {
		return nil, badRequest(
			"the start request has no parameters for ALTS (2), the only handshake protocol that this daemon speaks")
	}
	for _, id := range alts.GetLocalIdentities() {
		if err := me.checkOwn(id); err != nil {
			return nil, err
		}
	}
	var err error
	st := new(start)
	if st.params, err = newParams(req.GetApplicationProtocols(), alts.GetRecordProtocols(), req.GetRpcVersions(),
		req.GetMaxFrameSize(), req.GetTransportProtocolPreferences()); err != nil {
		return nil, err
	}
	st.endpoints, err = newEndpoints(req.GetLocalEndpoint(), req.GetRemoteEndpoint())
	return st, err
}

func newParams(application, record []string, v *altspb.RpcProtocolVersions, maxFrame uint32,
	transport *altspb.TransportProtocolPreferences) (p noiseproto.Params, err error) {
	if p.ApplicationProtocols, err = protocolList("application_protocols", application); err != nil {
		return p, err
	}
	if len(p.ApplicationProtocols) == 0 {
		return p, badRequest("the start request names no application protocol")
	}
	if !slices.Contains(record, noiseproto.RecordProtocol) {
		return p, reason.Errorf(reason.NoRecordProtocol,
			"the application offers the record protocols [%s]; this daemon has only %s",
			shortList(record), noiseproto.RecordProtocol)
	}
	p.RecordProtocols = []string{noiseproto.RecordProtocol}
	if p.RPCVersions, err = rpcVersions(v); err != nil {
		return p, err
	}
	p.MaxFrameSize = maxFrame
	p.TransportProtocols, err = protocolList("transport_protocol_preferences", transport.GetTransportProtocol())
	return p, err
}

func protocolList(field string, list []string) ([]string, error) {
	out, err := noiseproto.Protocols(list)
	if err != nil {
		return nil, badRequest("%s has %v", field, err)
	}
	return out, nil
}

// rpcVersions reads the RPC protocol versions; every gRPC library sends 2.1 to 2.1, which none stands for.
func rpcVersions(v *altspb.RpcProtocolVersions) (noiseproto.RPCVersions, error) {
	if v == nil {
		only := noiseproto.Version{Major: 2, Minor: 1}
		return noiseproto.RPCVersions{Max: only, Min: only}, nil
	}
	hi, lo := v.GetMaxRpcVersion(), v.GetMinRpcVersion()
	if hi == nil || lo == nil {
		return noiseproto.RPCVersions{}, badRequest(
			"rpc_versions has only one of its two ends; set max_rpc_version and min_rpc_version")
	}
	if lo.GetMajor() > hi.GetMajor() || lo.GetMajor() == hi.GetMajor() && lo.GetMinor() > hi.GetMinor() {
		return noiseproto.RPCVersions{}, badRequest("rpc_versions has a minimum of %d.%d, over its maximum of %d.%d",
			lo.GetMajor(), lo.GetMinor(), hi.GetMajor(), hi.GetMinor())
	}
	return noiseproto.RPCVersions{
		Max: noiseproto.Version{Major: hi.GetMajor(), Minor: hi.GetMinor()},
		Min: noiseproto.Version{Major: lo.GetMajor(), Minor: lo.GetMinor()},
	}, nil
}

// checkOwn refuses an application that would speak for another account or machine.
func (id *identity) checkOwn(want *altspb.Identity) error {
	if len(want.GetAttributes()) > 0 {
		return badRequest("the local identity has attributes, which only this daemon attests; remove them")
	}
	switch v := want.GetIdentityOneof().(type) {
	case *altspb.Identity_ServiceAccount:
		if ascii.Lower(v.ServiceAccount) != id.String() {
			return reason.Errorf(reason.LocalAccount,
				"the application asks to be %.100q, but it runs as %s; nobody speaks for another account",
				v.ServiceAccount, id)
		}
	case *altspb.Identity_Hostname:
		if ascii.Lower(v.Hostname) != id.machine {
			return reason.Errorf(reason.LocalAccount,
				"the application asks to be on machine %.100q, but this is %s", v.Hostname, id.machine)
		}
	default:
		return badRequest(
			"the local identity is empty or of a kind that is not known here; leave it out, or set it to %s", id)
	}
	return nil
}

func newEndpoints(local, remote *altspb.Endpoint) (e endpoints, err error) {
	if e.local, err = newEndpoint("local_endpoint", local); err == nil {
		e.remote, err = newEndpoint("remote_endpoint", remote)
	}
	return e, err
}

func newEndpoint(field string, e *altspb.Endpoint) (netip.AddrPort, error) {
	switch p := e.GetProtocol(); p {
	case altspb.NetworkProtocol_NETWORK_PROTOCOL_UNSPECIFIED, altspb.NetworkProtocol_TCP:
	case altspb.NetworkProtocol_UDP:
		return netip.AddrPort{}, badRequest("%s is UDP; the record protocol protects byte streams (TCP) only", field)
	default:
		return netip.AddrPort{}, badRequest("%s has network protocol %d, which is not known here", field, int32(p))
	}
	if e.GetPort() < 0 || e.GetPort() > math.MaxUint16 {
		return netip.AddrPort{}, badRequest("%s has port %d", field, e.GetPort())
	}
	var addr netip.Addr
	if ip := e.GetIpAddress(); ip != "" {
		var err error
		if addr, err = netip.ParseAddr(ip); err != nil || len(addr.Zone()) > 32 {
			return netip.AddrPort{}, badRequest("%s has the IP address %.60q, which is none", field, ip)
		}
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(e.GetPort())), nil
}

// unknownFields reports whether a start request has fields that this version does not know, at any depth that matters.
func unknownFields(req *altspb.HandshakerReq) bool {
	has := func(m proto.Message) bool { return len(m.ProtoReflect().GetUnknown()) > 0 }
	if has(req) {
		return true
	}
	if c := req.GetClientStart(); c != nil {
		return has(c) || c.LocalIdentity != nil && has(c.LocalIdentity) ||
			slices.ContainsFunc(c.TargetIdentities, func(id *altspb.Identity) bool { return has(id) })
	}
	if s := req.GetServerStart(); s != nil {
		for _, p := range s.GetHandshakeParameters() {
			if has(p) {
				return true
			}
		}
		return has(s)
	}
	return false
}

// unknownFieldsEach is the time between two lines about a newer gRPC library.
const unknownFieldsEach = time.Hour

// noteUnknownFields logs, once in unknownFieldsEach, that an application's gRPC library is newer than this daemon.
func (s *Server) noteUnknownFields(c Caller) {
	s.mu.Lock()
	due := time.Since(s.unknownNote) >= unknownFieldsEach
	if due {
		s.unknownNote = time.Now()
	}
	s.mu.Unlock()
	if due {
		s.log.Warn("a start request has fields that this daemon does not know, and leaves out: the gRPC library is newer; "+
			"upgrade the daemon", "uid", c.UID, "pid", c.PID)
	}
}
