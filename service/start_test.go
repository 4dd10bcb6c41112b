package service

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/noiseproto"
)

// Every field of the start requests is honoured, relayed or refused with a reason.
func TestStartRefused(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{})
	c := func(mod func(*clientReq)) *altspb.HandshakerReq { return clientStart(mod) }
	s := func(mod func(*serverReq)) *altspb.HandshakerReq { return serverStart(nil, mod) }
	long := strings.Repeat("x", 65)
	many := strings.Split(strings.Repeat("p", 17), "")
	for i := range many {
		many[i] += string(rune('a' + i))
	}
	attrs := map[string]string{"a": "b"}
	transport := &altspb.TransportProtocolPreferences{TransportProtocol: []string{"a b"}}
	bob := []*altspb.Identity{accountID("bob@beta.test")}
	version := func(maj, min uint32) *altspb.RpcProtocolVersions_Version {
		return &altspb.RpcProtocolVersions_Version{Major: maj, Minor: min}
	}
	for name, test := range map[string]struct {
		req       *altspb.HandshakerReq
		code      codes.Code
		why, text string
	}{
		"security protocol":    {c(func(r *clientReq) { r.HandshakeSecurityProtocol = 1 }), codes.InvalidArgument, "bad_request", "protocol 1"},
		"unknown enum":         {c(func(r *clientReq) { r.HandshakeSecurityProtocol = 9 }), codes.InvalidArgument, "bad_request", "protocol 9"},
		"access token":         {c(func(r *clientReq) { r.AccessToken = "t" }), codes.InvalidArgument, "bad_request", "access_token"},
		"no app protocol":      {c(func(r *clientReq) { r.ApplicationProtocols = nil }), codes.InvalidArgument, "bad_request", "no application protocol"},
		"empty app protocol":   {c(func(r *clientReq) { r.ApplicationProtocols = []string{""} }), codes.InvalidArgument, "bad_request", "application_protocols"},
		"long app protocol":    {c(func(r *clientReq) { r.ApplicationProtocols = []string{long} }), codes.InvalidArgument, "bad_request", "64"},
		"many app protocols":   {c(func(r *clientReq) { r.ApplicationProtocols = many }), codes.InvalidArgument, "bad_request", "16"},
		"record protocol":      {c(func(r *clientReq) { r.RecordProtocols = []string{"ALTSRP_GMAC_128"} }), codes.FailedPrecondition, "no_record_protocol", "ALTSRP_GMAC_128"},
		"transport protocol":   {c(func(r *clientReq) { r.TransportProtocolPreferences = transport }), codes.InvalidArgument, "bad_request", "transport_protocol"},
		"versions reversed":    {c(func(r *clientReq) { r.RpcVersions.MinRpcVersion = version(2, 2) }), codes.InvalidArgument, "bad_request", "2.2"},
		"major reversed":       {c(func(r *clientReq) { r.RpcVersions.MinRpcVersion = version(3, 0) }), codes.InvalidArgument, "bad_request", "3.0"},
		"half a version":       {c(func(r *clientReq) { r.RpcVersions.MinRpcVersion = nil }), codes.InvalidArgument, "bad_request", "min_rpc_version"},
		"somebody else":        {c(func(r *clientReq) { r.LocalIdentity = accountID("alice@beta.test") }), codes.PermissionDenied, "local_account", "speaks for another account"},
		"somewhere else":       {c(func(r *clientReq) { r.LocalIdentity = hostnameID("alpha.test") }), codes.PermissionDenied, "local_account", "this is beta.test"},
		"empty local":          {c(func(r *clientReq) { r.LocalIdentity = new(altspb.Identity) }), codes.InvalidArgument, "bad_request", "local identity is empty"},
		"local attributes":     {c(func(r *clientReq) { r.LocalIdentity = &altspb.Identity{Attributes: attrs} }), codes.InvalidArgument, "bad_request", "attributes"},
		"UDP":                  {c(func(r *clientReq) { r.RemoteEndpoint = &altspb.Endpoint{Protocol: 2} }), codes.InvalidArgument, "bad_request", "UDP"},
		"unknown network":      {c(func(r *clientReq) { r.RemoteEndpoint = &altspb.Endpoint{Protocol: 3} }), codes.InvalidArgument, "bad_request", "network protocol 3"},
		"port":                 {c(func(r *clientReq) { r.RemoteEndpoint = &altspb.Endpoint{Port: 65536} }), codes.InvalidArgument, "bad_request", "65536"},
		"address":              {c(func(r *clientReq) { r.LocalEndpoint = &altspb.Endpoint{IpAddress: "host"} }), codes.InvalidArgument, "bad_request", "local_endpoint"},
		"empty target":         {c(func(r *clientReq) { r.TargetIdentities = append(r.TargetIdentities, new(altspb.Identity)) }), codes.InvalidArgument, "bad_request", "target identity is empty"},
		"no parameters":        {s(func(r *serverReq) { delete(r.HandshakeParameters, 2) }), codes.InvalidArgument, "bad_request", "no parameters for ALTS"},
		"unknown parameters":   {s(func(r *serverReq) { r.HandshakeParameters[3] = r.HandshakeParameters[2] }), codes.InvalidArgument, "bad_request", "protocol 3"},
		"token":                {s(func(r *serverReq) { r.HandshakeParameters[2].Token = new(string) }), codes.InvalidArgument, "bad_request", "token"},
		"server's identity":    {s(func(r *serverReq) { r.HandshakeParameters[2].LocalIdentities = bob }), codes.PermissionDenied, "local_account", "bob@beta.test"},
		"server's record":      {s(func(r *serverReq) { r.HandshakeParameters[2].RecordProtocols = nil }), codes.FailedPrecondition, "no_record_protocol", "record protocols []"},
		"server's endpoint":    {s(func(r *serverReq) { r.RemoteEndpoint = &altspb.Endpoint{Port: -1} }), codes.InvalidArgument, "bad_request", "-1"},
		"next before start":    {next([]byte("x")), codes.InvalidArgument, "bad_request", "before any start"},
		"nothing":              {new(altspb.HandshakerReq), codes.InvalidArgument, "bad_request", "neither"},
		"request over 128 KiB": {next(make([]byte, 128<<10)), codes.ResourceExhausted, "", "larger than max"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := open(t, d, "").do(test.req)
			wantErr(t, err, test.code, test.why, test.text)
		})
	}
	t.Run("start twice", func(t *testing.T) {
		for _, first := range []*altspb.HandshakerReq{clientStart(nil), serverStart(nil, nil)} {
			for _, second := range []*altspb.HandshakerReq{clientStart(nil), serverStart([]byte("salt"), nil)} {
				p := open(t, d, "")
				p.must(t, first)
				_, err := p.do(second)
				wantErr(t, err, codes.InvalidArgument, "bad_request", "second start")
			}
		}
	})
	// A server that refuses before the handshake tells the peer, if that speaks our protocol.
	t.Run("the peer is told", func(t *testing.T) {
		alpha := startDaemon(t, "alpha.test", Config{})
		m1 := open(t, alpha, "").must(t, clientStart(nil)).OutFrames
		p := open(t, d, "")
		resp := p.must(t, serverStart(m1, func(r *serverReq) { r.HandshakeParameters[2].RecordProtocols = []string{"x"} }))
		if !bytes.Equal(resp.OutFrames, noiseproto.StatusFrame(reason.NoRecordProtocol)) {
			t.Errorf("the peer gets %x", resp.OutFrames)
		}
		_, err := p.do(next(nil))
		wantErr(t, err, codes.FailedPrecondition, "no_record_protocol")
	})
}

// A field of a newer gRPC library is let pass, with a line in the log.
func TestUnknownFields(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{})
	extra := protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1)
	for _, req := range []*altspb.HandshakerReq{
		clientStart(func(r *clientReq) { r.ProtoReflect().SetUnknown(extra) }),
		serverStart(nil, func(r *serverReq) { r.ProtoReflect().SetUnknown(extra) }),
		serverStart(nil, func(r *serverReq) { r.HandshakeParameters[2].ProtoReflect().SetUnknown(extra) }),
		clientStart(func(r *clientReq) { r.TargetIdentities[0].ProtoReflect().SetUnknown(extra) }),
	} {
		if !unknownFields(req) {
			t.Errorf("unknown fields not seen in %v", req)
		}
		open(t, d, "").must(t, req)
	}
	if n := strings.Count(d.logs.String(), "the gRPC library is newer"); n != 1 {
		t.Errorf("%d lines about it, want 1", n)
	}
	top := clientStart(nil)
	top.ProtoReflect().SetUnknown(extra)
	if !unknownFields(top) || unknownFields(clientStart(nil)) || unknownFields(next(nil)) {
		t.Error("unknown fields of the request itself")
	}
	// An identity whose only field is unknown is one of unknown kind.
	_, err := open(t, d, "").do(clientStart(func(r *clientReq) {
		id := new(altspb.Identity)
		id.ProtoReflect().SetUnknown(extra)
		r.TargetIdentities = []*altspb.Identity{id}
	}))
	wantErr(t, err, codes.InvalidArgument, "bad_request", "of a kind that is not known")
}
