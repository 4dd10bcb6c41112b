package service

import (
	"bytes"
	"context"
	"os/user"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/noiseproto"
)

// A whole handshake through two daemons on real sockets, with the system's own user database, in several segmentations.
func TestHandshake(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	group, err := user.LookupGroupId(me.Gid)
	if err != nil {
		t.Fatal(err)
	}
	alpha := startDaemon(t, "alpha.test", Config{PublishGroups: []string{group.Name, "no-such-group"}})
	beta := startDaemon(t, "beta.test", Config{})
	for _, piece := range []int{1 << 20, 1000, 16} {
		c, s := open(t, alpha, ""), open(t, beta, "")
		start := clientStart(func(r *clientReq) {
			r.MaxFrameSize = 1 << 20
			r.ApplicationProtocols = []string{"other", "grpc", "other"}
			r.LocalIdentity = accountID(strings.ToUpper(me.Username) + "@alpha.test")
			r.RemoteEndpoint = &altspb.Endpoint{IpAddress: "192.0.2.1", Port: 443, Protocol: altspb.NetworkProtocol_TCP}
			r.TransportProtocolPreferences = &altspb.TransportProtocolPreferences{TransportProtocol: []string{"x", "y"}}
		})
		accept := serverStart(nil, func(r *serverReq) {
			r.HandshakeParameters[1] = &altspb.ServerHandshakeParameters{RecordProtocols: []string{"TLS"}}
			r.HandshakeParameters[2].LocalIdentities = []*altspb.Identity{hostnameID("BETA.test")}
			r.TransportProtocolPreferences = &altspb.TransportProtocolPreferences{TransportProtocol: []string{"y"}}
			r.RpcVersions = nil
		})
		cr, sr := join(t, c, s, start, accept, piece)
		if len(cr.KeyData) != 64 || !bytes.Equal(cr.KeyData, sr.KeyData) || bytes.Equal(cr.KeyData, make([]byte, 64)) {
			t.Errorf("keys: %d and %d bytes, equal %v", len(cr.KeyData), len(sr.KeyData), bytes.Equal(cr.KeyData,
				sr.KeyData))
		}
		if got, want := cr.PeerIdentity.GetServiceAccount(), me.Username+"@beta.test"; got != want {
			t.Errorf("the client's peer is %q, want %q", got, want)
		}
		if got, want := sr.PeerIdentity.GetServiceAccount(), me.Username+"@alpha.test"; got != want ||
			cr.LocalIdentity.GetServiceAccount() != want {
			t.Errorf("the server's peer is %q, the client %q, want %q", got, cr.LocalIdentity.GetServiceAccount(), want)
		}
		attrs := sr.PeerIdentity.Attributes
		if attrs["user"] != me.Username || attrs["machine"] != "alpha.test" || attrs["uid"] != me.Uid ||
			attrs["groups"] != group.Name || len(attrs) != 4 {
			t.Errorf("attributes %v", attrs)
		}
		if cr.MaxFrameSize != 0 || sr.MaxFrameSize != 1<<20 {
			t.Errorf("maximum frame sizes %d and %d, want the peer's: 0 and %d", cr.MaxFrameSize, sr.MaxFrameSize,
				1<<20)
		}
		if cr.ApplicationProtocol != "grpc" || cr.RecordProtocol != noiseproto.RecordProtocol ||
			cr.TransportProtocol.GetTransportProtocol() != "y" || cr.KeepChannelOpen {
			t.Errorf("negotiated %v", cr)
		}
		if v := cr.PeerRpcVersions; v.GetMaxRpcVersion().GetMajor() != 2 || v.GetMinRpcVersion().GetMinor() != 1 {
			t.Errorf("peer RPC versions %v", v)
		}
		ra, rb := alpha.record(t), beta.record(t)
		if ra.ID == "" || ra.ID != rb.ID || ra.Reason != "accepted" || rb.Reason != "accepted" ||
			ra.Sent != rb.Received || ra.Received != rb.Sent ||
			ra.Role != Initiator || rb.Role != Responder || ra.Peer != me.Username+"@beta.test" ||
			ra.Remote.String() != "192.0.2.1:443" {
			t.Errorf("records\n%+v\n%+v", ra, rb)
		}
	}
	st := alpha.Snapshot()
	if st.Handshakes[Count{Initiator, "accepted"}] != 3 || st.InFlight != [2]int{} || st.Waiting != [2]int{} ||
		len(st.Last) != 0 {
		t.Errorf("snapshot %+v", st)
	}
}

// What lies past the end of the handshake is the first record: it is left unconsumed, with the result only.
func TestBytesPastTheEnd(t *testing.T) {
	alpha, beta := startDaemon(t, "alpha.test", Config{}), startDaemon(t, "beta.test", Config{})
	c, s := open(t, alpha, ""), open(t, beta, "")
	m1 := c.must(t, clientStart(nil)).OutFrames
	m2 := s.must(t, serverStart(m1, nil)).OutFrames
	m3 := c.must(t, next(m2)).OutFrames
	resp := s.must(t, next(append(slices.Clone(m3), "record"...)))
	if resp.Result == nil || int(resp.BytesConsumed) != len(m3) {
		t.Errorf("server: %d bytes consumed of %d and a record", resp.BytesConsumed, len(m3))
	}
	in := append(slices.Clone(resp.OutFrames), "record"...)
	last := c.must(t, next(in))
	if last.Result == nil || int(last.BytesConsumed) != len(resp.OutFrames) {
		t.Errorf("client: %d bytes consumed of %d and a record", last.BytesConsumed, len(resp.OutFrames))
	}
	c.mustEnd(t)
	s.mustEnd(t)
}

// The responder refuses: its peer learns why by a status frame, its own application a moment later; the initiator's
// application at once.
func TestPeerRefuses(t *testing.T) {
	unknown, err := testca.NewCA(testca.Options{})
	if err != nil {
		t.Fatal(err)
	}
	alpha := startDaemon(t, "alpha.test", Config{Machine: machineOf(t, unknown, "alpha.test", testca.Leaf{})})
	beta := startDaemon(t, "beta.test", Config{})
	for _, hangUp := range []bool{true, false} {
		c, s := open(t, alpha, ""), open(t, beta, "")
		m1 := c.must(t, clientStart(nil)).OutFrames
		m2 := s.must(t, serverStart(m1, nil)).OutFrames
		m3 := c.must(t, next(m2)).OutFrames
		refusal := s.must(t, next(m3))
		if refusal.Result != nil || !bytes.Equal(refusal.OutFrames, noiseproto.StatusFrame(reason.UnknownCA)) {
			t.Fatalf("the responder's refusal: %v", refusal)
		}
		_, err := c.do(next(refusal.OutFrames))
		id := alpha.record(t).ID
		wantErr(t, err, codes.PermissionDenied, "the peer's daemon refused", "unknown_ca", id)
		if hangUp {
			_, err = s.do(next(nil))
		} else {
			_, err = s.recv()
		}
		wantErr(t, err, codes.Unauthenticated, "this machine's daemon refused", "unknown_ca", id)
		if r := beta.record(t); r.Reason != "unknown_ca" || r.ByPeer || r.ID != id || r.Peer != "" {
			t.Errorf("record %+v", r)
		}
	}
}

// The initiator refuses: its application learns it at once, nothing goes out, and the responder's learns of the hang-up.
func TestInitiatorRefuses(t *testing.T) {
	alpha, beta := startDaemon(t, "alpha.test", Config{}), startDaemon(t, "beta.test", Config{})
	c, s := open(t, alpha, ""), open(t, beta, "")
	m1 := c.must(t, clientStart(func(r *clientReq) {
		r.TargetIdentities = []*altspb.Identity{accountID("bob@beta.test")}
	})).OutFrames
	m2 := s.must(t, serverStart(m1, nil)).OutFrames
	_, err := c.do(next(m2))
	wantErr(t, err, codes.PermissionDenied, "this machine's daemon refused", "@beta.test", "bob@beta.test",
		"target_mismatch")
	if r := alpha.record(t); !strings.HasSuffix(r.Peer, "@beta.test") {
		t.Errorf("the verified peer is not recorded: %+v", r)
	}
	_, err = s.do(next(nil))
	wantErr(t, err, codes.Unavailable, "the peer closed the connection in the middle", "peer_closed",
		"handshake "+beta.record(t).ID)
}

// Each kind of library gets a failure in the form that it shows (clients.md).
func TestFailureForEachLibrary(t *testing.T) {
	beta := startDaemon(t, "beta.test", Config{})
	bad := serverStart([]byte("\x16\x03\x01 a TLS record"), nil)
	invalid := serverStart(nil, func(r *serverReq) { r.ApplicationProtocols = nil })

	t.Run("Go", func(t *testing.T) {
		resp, err := open(t, beta, "").do(bad)
		if resp != nil {
			t.Errorf("a response %v, which Go would hang on", resp)
		}
		wantErr(t, err, codes.Unauthenticated, "TLS", "malformed")
	})
	t.Run("Java", func(t *testing.T) {
		_, err := open(t, beta, "grpc-java-netty/1.85.0").do(invalid)
		wantErr(t, err, codes.Unknown, "no application protocol", "bad_request")
	})
	for _, agent := range []string{"grpc-c++/1.51.1 grpc-c/29.0.0 (linux; chttp2)",
		"grpc-python/1.51.1 grpc-c/29.0.0"} {
		t.Run(agent, func(t *testing.T) {
			// C-core sends its start at accept, without bytes.
			s := open(t, beta, agent)
			s.must(t, serverStart(nil, nil))
			resp, err := s.do(next([]byte("\x16\x03\x01 a TLS record")))
			if err != nil {
				t.Fatal(err)
			}
			if codes.Code(resp.Status.GetCode()) != codes.Unauthenticated ||
				!strings.Contains(resp.Status.GetDetails(), "TLS") || resp.Result != nil {
				t.Errorf("response %v", resp)
			}
			s.mustEnd(t)
		})
	}
	f := asFailure(reason.Errorf(reason.NoRPCVersion, "x"))
	resp, err := clientOther.deliver(f, "", bad)
	if resp.GetStatus().GetCode() != uint32(codes.FailedPrecondition) || status.Code(err) != codes.FailedPrecondition {
		t.Errorf("unknown library: %v, %v", resp, err)
	}
	if resp, err := clientCore.deliver(f, "", nil); resp != nil || err == nil {
		t.Errorf("without a request: %v, %v", resp, err)
	}
	for agent, want := range map[string]clientKind{"grpc-go/1.85.0": clientGo, "grpc-java-okhttp/1.7": clientJava,
		"grpc-c++/1": clientCore, "tonic": clientOther} {
		if got := clientKindOf(metadata.NewIncomingContext(context.Background(), metadata.Pairs("user-agent",
			agent))); got != want {
			t.Errorf("%s: kind %d, want %d", agent, got, want)
		}
	}
}

func TestRPCCodes(t *testing.T) {
	for c := reason.UnsupportedVersion; c.Known(); c++ {
		for _, byPeer := range []bool{false, true} {
			f := asFailure(&reason.Error{Code: c, Detail: "why", ByPeer: byPeer})
			if f.rpc == codes.OK || f.rpc == codes.Unknown || !strings.Contains(f.message("0123"), c.String()) ||
				!strings.Contains(f.message("0123"), "handshake 0123") {
				t.Errorf("%v: %v, %s", c, f.rpc, f.message("0123"))
			}
		}
	}
	if f := asFailure(context.Canceled); f.rpc != codes.Internal {
		t.Errorf("an error of no kind: %v", f.rpc)
	}
	if f := asFailure(&reason.Error{Code: reason.Internal, ByPeer: true}); f.rpc != codes.Unavailable {
		t.Errorf("the peer's fault: %v", f.rpc)
	}
}

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
	version := func(maj, min uint32) *altspb.RpcProtocolVersions_Version {
		return &altspb.RpcProtocolVersions_Version{Major: maj, Minor: min}
	}
	for name, test := range map[string]struct {
		req  *altspb.HandshakerReq
		code codes.Code
		text string
	}{
		"security protocol":  {c(func(r *clientReq) { r.HandshakeSecurityProtocol = 1 }), codes.InvalidArgument, "protocol 1"},
		"unknown enum":       {c(func(r *clientReq) { r.HandshakeSecurityProtocol = 9 }), codes.InvalidArgument, "protocol 9"},
		"access token":       {c(func(r *clientReq) { r.AccessToken = "t" }), codes.InvalidArgument, "access_token"},
		"no app protocol":    {c(func(r *clientReq) { r.ApplicationProtocols = nil }), codes.InvalidArgument, "no application protocol"},
		"empty app protocol": {c(func(r *clientReq) { r.ApplicationProtocols = []string{""} }), codes.InvalidArgument, "application_protocols"},
		"long app protocol":  {c(func(r *clientReq) { r.ApplicationProtocols = []string{long} }), codes.InvalidArgument, "64"},
		"many app protocols": {c(func(r *clientReq) { r.ApplicationProtocols = many }), codes.InvalidArgument, "16"},
		"record protocol":    {c(func(r *clientReq) { r.RecordProtocols = []string{"ALTSRP_GMAC_128"} }), codes.FailedPrecondition, "ALTSRP_GMAC_128"},
		"transport protocol": {c(func(r *clientReq) {
			r.TransportProtocolPreferences = &altspb.TransportProtocolPreferences{TransportProtocol: []string{"a b"}}
		}), codes.InvalidArgument, "transport_protocol"},
		"versions reversed": {c(func(r *clientReq) { r.RpcVersions.MinRpcVersion = version(2, 2) }), codes.InvalidArgument, "2.2"},
		"major reversed":    {c(func(r *clientReq) { r.RpcVersions.MinRpcVersion = version(3, 0) }), codes.InvalidArgument, "3.0"},
		"half a version":    {c(func(r *clientReq) { r.RpcVersions.MinRpcVersion = nil }), codes.InvalidArgument, "min_rpc_version"},
		"somebody else":     {c(func(r *clientReq) { r.LocalIdentity = accountID("alice@beta.test") }), codes.PermissionDenied, "speaks for another account"},
		"somewhere else":    {c(func(r *clientReq) { r.LocalIdentity = hostnameID("alpha.test") }), codes.PermissionDenied, "this is beta.test"},
		"empty local":       {c(func(r *clientReq) { r.LocalIdentity = new(altspb.Identity) }), codes.InvalidArgument, "local identity is empty"},
		"local attributes":  {c(func(r *clientReq) { r.LocalIdentity = &altspb.Identity{Attributes: attrs} }), codes.InvalidArgument, "attributes"},
		"UDP":               {c(func(r *clientReq) { r.RemoteEndpoint = &altspb.Endpoint{Protocol: 2} }), codes.InvalidArgument, "UDP"},
		"unknown network":   {c(func(r *clientReq) { r.RemoteEndpoint = &altspb.Endpoint{Protocol: 3} }), codes.InvalidArgument, "network protocol 3"},
		"port":              {c(func(r *clientReq) { r.RemoteEndpoint = &altspb.Endpoint{Port: 65536} }), codes.InvalidArgument, "65536"},
		"address":           {c(func(r *clientReq) { r.LocalEndpoint = &altspb.Endpoint{IpAddress: "host"} }), codes.InvalidArgument, "local_endpoint"},
		"empty target": {c(func(r *clientReq) {
			r.TargetIdentities = append(r.TargetIdentities, new(altspb.Identity))
		}), codes.InvalidArgument, "target identity is empty"},
		"no parameters":      {s(func(r *serverReq) { delete(r.HandshakeParameters, 2) }), codes.InvalidArgument, "no parameters for ALTS"},
		"unknown parameters": {s(func(r *serverReq) { r.HandshakeParameters[3] = r.HandshakeParameters[2] }), codes.InvalidArgument, "protocol 3"},
		"token":              {s(func(r *serverReq) { r.HandshakeParameters[2].Token = new(string) }), codes.InvalidArgument, "token"},
		"server's identity": {s(func(r *serverReq) {
			r.HandshakeParameters[2].LocalIdentities = []*altspb.Identity{accountID("bob@beta.test")}
		}), codes.PermissionDenied, "bob@beta.test"},
		"server's record":      {s(func(r *serverReq) { r.HandshakeParameters[2].RecordProtocols = nil }), codes.FailedPrecondition, "no_record_protocol"},
		"server's endpoint":    {s(func(r *serverReq) { r.RemoteEndpoint = &altspb.Endpoint{Port: -1} }), codes.InvalidArgument, "-1"},
		"next before start":    {next([]byte("x")), codes.InvalidArgument, "before any start"},
		"nothing":              {new(altspb.HandshakerReq), codes.InvalidArgument, "neither"},
		"request over 128 KiB": {next(make([]byte, 128<<10)), codes.ResourceExhausted, "larger than max"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := open(t, d, "").do(test.req)
			wantErr(t, err, test.code, test.text)
		})
	}
	t.Run("start twice", func(t *testing.T) {
		for _, first := range []*altspb.HandshakerReq{clientStart(nil), serverStart(nil, nil)} {
			for _, second := range []*altspb.HandshakerReq{clientStart(nil), serverStart([]byte("salt"), nil)} {
				p := open(t, d, "")
				p.must(t, first)
				_, err := p.do(second)
				wantErr(t, err, codes.InvalidArgument, "second start")
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
	wantErr(t, err, codes.InvalidArgument, "of a kind that is not known")
}

// The peer stops in the middle: the timer runs from a client's start, from a server's first bytes.
func TestHandshakeTimeout(t *testing.T) {
	alpha := startDaemon(t, "alpha.test", Config{})
	beta := startDaemon(t, "beta.test", Config{HandshakeTimeout: 50 * time.Millisecond})
	silent := open(t, beta, "")
	silent.must(t, serverStart(nil, nil))

	c := open(t, beta, "")
	c.must(t, clientStart(nil))
	_, err := c.recv()
	wantErr(t, err, codes.DeadlineExceeded, "did not finish within 50ms", "timed_out", beta.record(t).ID)

	m1 := open(t, alpha, "").must(t, clientStart(nil)).OutFrames
	s := open(t, beta, "")
	s.must(t, serverStart(m1[:100], nil))
	_, err = s.recv()
	wantErr(t, err, codes.DeadlineExceeded, "timed_out")

	// The stream without bytes is as good as at first.
	if resp := silent.must(t, next(m1)); len(resp.OutFrames) == 0 {
		t.Error("no message 2")
	}
}

// The application's own deadline, and its going away, end the handshake and are recorded.
func TestApplicationGivesUp(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{})
	conn := dial(t, d.socket, "")
	ctx, cancel := context.WithCancel(testContext(t))
	p := newParty(ctx, conn)
	p.must(t, clientStart(nil))
	cancel()
	if r := d.record(t); r.Reason != reason.CancelledName {
		t.Errorf("cancelled: %+v", r)
	}
	p = newParty(testContext(t), conn)
	p.must(t, clientStart(nil))
	p.stream.CloseSend()
	_, err := p.recv()
	wantErr(t, err, codes.Canceled, "gave up")
	d.record(t)

	for wait := time.Second; ; wait *= 2 {
		ctx, cancel = context.WithTimeout(testContext(t), wait)
		defer cancel()
		p = newParty(ctx, conn)
		if _, err := p.do(clientStart(nil)); err == nil {
			p.recv()
			break
		}
	}
	if r := d.record(t); r.Reason != "timed_out" && r.Reason != reason.CancelledName {
		t.Errorf("deadline: %+v", r)
	}
}

// A stop refuses new handshakes, ends silent streams, and lets those under way finish.
func TestShutdown(t *testing.T) {
	alpha, beta := startDaemon(t, "alpha.test", Config{}), startDaemon(t, "beta.test", Config{})
	silent, waiting := open(t, beta, ""), open(t, beta, "grpc-c/29")
	waiting.must(t, serverStart(nil, nil))
	c, s := open(t, alpha, ""), open(t, beta, "")
	m1 := c.must(t, clientStart(nil)).OutFrames
	m2 := s.must(t, serverStart(m1, nil)).OutFrames

	done := make(chan error, 1)
	go func() { done <- beta.Shutdown(testContext(t)) }()
	_, err := silent.recv()
	wantErr(t, err, codes.Unavailable, "stopping", "shutting_down")
	_, err = waiting.recv()
	wantErr(t, err, codes.Unavailable, "stopping")

	m3 := c.must(t, next(m2)).OutFrames
	resp := s.must(t, next(m3))
	if c.must(t, next(resp.OutFrames)).Result == nil || resp.Result == nil {
		t.Error("the handshake under way did not finish")
	}
	if err := <-done; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	h := beta.newSession(Caller{})
	defer h.close()
	_, _, err = h.step(testContext(t), clientStart(nil))
	if f := asFailure(err); f.rpc != codes.Unavailable {
		t.Errorf("a start after the stop: %v", err)
	}

	// What does not finish is cut.
	c = open(t, alpha, "")
	c.must(t, clientStart(nil))
	ctx, cancel := context.WithCancel(testContext(t))
	cancel()
	if err := alpha.Shutdown(ctx); err == nil {
		t.Error("Shutdown that had to cut gave no error")
	}
	if _, err := c.recv(); err == nil {
		t.Error("the stream was not cut")
	}
}

func TestNewRefuses(t *testing.T) {
	m := testMachine(t, "alpha.test", testca.Leaf{})
	for name, c := range map[string]Config{
		"no machine":     {},
		"limit":          {Machine: m, Limits: Limits{Streams: -1}},
		"timeout":        {Machine: m, HandshakeTimeout: -1},
		"naming":         {Machine: m, SecureNaming: 7},
		"group":          {Machine: m, PublishGroups: []string{"Bad Group"}},
		"groups":         {Machine: m, PublishGroups: manyNames(100)},
		"no accounts":    {Machine: m, ServerAccounts: []string{}},
		"same and other": {Machine: m, ServerAccounts: []string{"same", "bob"}},
		"account":        {Machine: m, ServerAccounts: []string{"bob@x"}},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := New(Config{Machine: m}); err != nil {
		t.Errorf("the default configuration: %v", err)
	}
}

func manyNames(n int) (names []string) {
	for i := range n {
		names = append(names, "group-with-a-name-that-is-long-"+strings.Repeat("x", i%30)+string(rune('a'+i%26)))
	}
	return names
}
