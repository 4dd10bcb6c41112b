package e2e

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/noiseproto"
)

func encode(req *altspb.HandshakerReq) []byte {
	b, err := proto.Marshal(req)
	if err != nil {
		panic(err)
	}
	return b
}

func versions(major uint32) *altspb.RpcProtocolVersions {
	v := &altspb.RpcProtocolVersions_Version{Major: major, Minor: 1}
	return &altspb.RpcProtocolVersions{MaxRpcVersion: v, MinRpcVersion: v}
}

func accountID(s string) *altspb.Identity {
	return &altspb.Identity{IdentityOneof: &altspb.Identity_ServiceAccount{ServiceAccount: s}}
}

func hostID(s string) *altspb.Identity {
	return &altspb.Identity{IdentityOneof: &altspb.Identity_Hostname{Hostname: s}}
}

// clientStart is a client's start request; mod, if not nil, changes it.
func clientStart(mod func(*altspb.StartClientHandshakeReq)) []byte {
	s := &altspb.StartClientHandshakeReq{
		HandshakeSecurityProtocol: altspb.HandshakeProtocol_ALTS, ApplicationProtocols: []string{"grpc"},
		RecordProtocols: []string{ourRecord}, RpcVersions: versions(2),
		TargetIdentities: []*altspb.Identity{hostID("beta.test")},
	}
	if mod != nil {
		mod(s)
	}
	return encode(&altspb.HandshakerReq{ReqOneof: &altspb.HandshakerReq_ClientStart{ClientStart: s}})
}

func serverStart(in []byte, mod func(*altspb.StartServerHandshakeReq)) []byte {
	s := &altspb.StartServerHandshakeReq{
		ApplicationProtocols: []string{"grpc"}, RpcVersions: versions(2), InBytes: in,
		HandshakeParameters: map[int32]*altspb.ServerHandshakeParameters{2: {RecordProtocols: []string{ourRecord}}},
	}
	if mod != nil {
		mod(s)
	}
	return encode(&altspb.HandshakerReq{ReqOneof: &altspb.HandshakerReq_ServerStart{ServerStart: s}})
}

func next(in []byte) []byte {
	req := &altspb.NextHandshakeMessageReq{InBytes: in}
	return encode(&altspb.HandshakerReq{ReqOneof: &altspb.HandshakerReq_Next{Next: req}})
}

// step sends one raw request on a kept stream and gives the response.
func step(t testing.TB, p *process, d *daemon, key string, req []byte) *altspb.HandshakerResp {
	t.Helper()
	r := p.do(t, order{Op: "raw", Socket: d.socket, Key: key, Requests: [][]byte{req}})
	if r.Code != codes.OK {
		t.Fatalf("%v: %s", r.Code, r.Text)
	}
	resp := new(altspb.HandshakerResp)
	if err := proto.Unmarshal(r.Responses[0], resp); err != nil {
		t.Fatal(err)
	}
	if resp.Status == nil || resp.Status.Code != 0 {
		t.Fatalf("status %v", resp.Status)
	}
	return resp
}

// joined does a handshake between alice on alpha and bob on beta, with no library between, and gives what each is told
// of the other: the client as the server sees it, and the server.
func (w *world) joined(t testing.TB) (client, server whom) {
	t.Helper()
	a, b, key := w.as(t, alice), w.as(t, bob), w.key(t)
	m1 := step(t, a, w.alpha, key, clientStart(nil)).OutFrames
	m2 := step(t, b, w.beta, key, serverStart(m1, nil)).OutFrames
	m3 := step(t, a, w.alpha, key, next(m2)).OutFrames
	last := step(t, b, w.beta, key, next(m3))
	first := step(t, a, w.alpha, key, next(last.OutFrames))
	if first.Result == nil || last.Result == nil {
		t.Fatal("a handshake without a result")
	}
	if !bytes.Equal(first.Result.KeyData, last.Result.KeyData) || len(first.Result.KeyData) != 64 {
		t.Error("the two sides have different keys")
	}
	w.keepSecret("the keys of a handshake", first.Result.KeyData)
	told := func(r *altspb.HandshakerResult) whom {
		return whom{Account: r.PeerIdentity.GetServiceAccount(), Local: r.LocalIdentity.GetServiceAccount(),
			Attributes: r.PeerIdentity.Attributes}
	}
	return told(last.Result), told(first.Result)
}

// badRequest is the name of the reason for which the wire has no code.
const badRequest = "bad_request"

// A local refusal is one of an application by its own machine's daemon.
type localRefusal struct {
	name string
	why  string     // name of the reason
	code codes.Code // of the application's error; grpc-go's own is another, see reasons
	says string
	as   account // of the pool if empty
	// Of stock grpc-go: what differs from a call of bob@beta.test by alpha's daemon.
	call *order
	on   func(*world) *daemon
	// Of a raw client of the service: the requests.
	raw [][]byte
}

func mod(f func(*altspb.StartClientHandshakeReq)) [][]byte { return [][]byte{clientStart(f)} }

func serverMod(f func(*altspb.StartServerHandshakeReq)) [][]byte {
	return [][]byte{serverStart(nil, f)}
}

var token = "secret"

// onNarrow is for some of those without a name, since all of them together have 5 lines a minute in a daemon's log.
func onNarrow(w *world) *daemon { return w.narrow }

var localRefusals = []localRefusal{
	{name: "uid without a name", why: "local_account", code: codes.PermissionDenied, says: "has no name in the user database", as: nameless},
	{name: "account with capitals alone", why: "local_account", code: codes.PermissionDenied, says: "has capitals", as: capital, on: onNarrow},
	{name: "account whose lower case is somebody else", why: "local_account", code: codes.PermissionDenied, says: "has capitals", as: twin, on: onNarrow},
	{name: "second name of root", why: "local_account", code: codes.PermissionDenied, says: "but that name is uid 0", as: second},
	{name: "domain account", why: "local_account", code: codes.PermissionDenied, says: "allow domain accounts", as: domain},
	{name: "account name too long", why: "local_account", code: codes.PermissionDenied, says: "cannot be used", as: tooLong},
	{name: "overflow uid", why: "local_account", code: codes.PermissionDenied, says: "is the overflow uid", as: overflow},
	{name: "uid that the socket does not serve", why: "local_account", code: codes.PermissionDenied, says: "may not use this socket", as: account{"user0", firstOfPool}, on: func(w *world) *daemon { return &daemon{machine: "narrow.test", socket: w.narrowSocket()} }},
	{name: "account of the socket that somebody has", why: "local_account", code: codes.PermissionDenied, says: `has an account "alice" by now`, as: poolAccount(2), on: func(w *world) *daemon { return &daemon{machine: "narrow.test", socket: w.takenSocket()} }},
	{name: "own certificate expired", why: "own_certificate", code: codes.Unauthenticated, says: "this machine's certificate has expired at", on: func(w *world) *daemon { return w.expired }},
	{name: "own certificate not yet valid", why: "own_certificate", code: codes.Unauthenticated, says: "this machine's certificate is valid only from", on: func(w *world) *daemon { return w.early }},
	{name: "user database that fails", why: "internal", code: codes.Internal, says: "the user database failed", on: func(w *world) *daemon { return w.broken }},

	{name: "wrong target account", why: "target_mismatch", code: codes.PermissionDenied, says: `the server is bob@beta.test, not the target that the application named`, call: &order{Targets: []string{"alice@beta.test"}}},
	{name: "target on another machine", why: "target_mismatch", code: codes.PermissionDenied, says: `not the target that the application named: "bob@alpha.test"`, call: &order{Targets: []string{"bob@alpha.test"}}},
	{name: "target host not in the certificate", why: "target_mismatch", code: codes.PermissionDenied, says: `whose certificate is not for the host that was dialled`, call: &order{Authority: "gamma.test:443"}},
	{name: "localhost, which another machine answers", why: "target_mismatch", code: codes.PermissionDenied, says: `whose certificate is not for the host that was dialled`, call: &order{Authority: "localhost:443"}},
	{name: "address that is not in the certificate", why: "target_mismatch", code: codes.PermissionDenied, says: "192.0.2.1", call: &order{Authority: "192.0.2.1:443"}},
	{name: "server account that is not the caller's own", why: "target_mismatch", code: codes.PermissionDenied, says: "a client that names no target account is content only with", call: &order{}, on: onNarrow},
	{name: "target account without a machine", why: badRequest, code: codes.Internal, says: "it has no @", call: &order{Targets: []string{"bob"}}},
	{name: "target account empty", why: badRequest, code: codes.Internal, says: "cannot be anybody", call: &order{Targets: []string{"bob@beta.test", ""}}},
	{name: "target host with a percent sign", why: badRequest, code: codes.Internal, says: "it has a percent sign", call: &order{Authority: "be%25ta.test"}},

	{name: "no target at all", why: "target_mismatch", code: codes.PermissionDenied, says: "names neither a target account nor a host", raw: mod(func(s *altspb.StartClientHandshakeReq) { s.TargetIdentities = nil })},
	{name: "target identity of no kind", why: badRequest, code: codes.InvalidArgument, says: "a target identity is empty", raw: mod(func(s *altspb.StartClientHandshakeReq) {
		s.TargetIdentities = append(s.TargetIdentities, new(altspb.Identity))
	})},
	{name: "target identity with attributes", why: badRequest, code: codes.InvalidArgument, says: "a target identity has attributes", raw: mod(func(s *altspb.StartClientHandshakeReq) {
		s.TargetIdentities[0].Attributes = map[string]string{"uid": "0"}
	})},
	{name: "too many target identities", why: badRequest, code: codes.InvalidArgument, says: "257 target identities", raw: mod(func(s *altspb.StartClientHandshakeReq) {
		s.TargetIdentities = slices.Repeat([]*altspb.Identity{hostID("beta.test")}, 257)
	})},
	{name: "client as somebody else", why: "local_account", code: codes.PermissionDenied, says: "nobody speaks for another account", raw: mod(func(s *altspb.StartClientHandshakeReq) { s.LocalIdentity = accountID("root@alpha.test") })},
	{name: "client on another machine", why: "local_account", code: codes.PermissionDenied, says: "but this is alpha.test", raw: mod(func(s *altspb.StartClientHandshakeReq) { s.LocalIdentity = hostID("beta.test") })},
	{name: "server as somebody else", why: "local_account", code: codes.PermissionDenied, says: "nobody speaks for another account", raw: serverMod(func(s *altspb.StartServerHandshakeReq) {
		s.HandshakeParameters[2].LocalIdentities = []*altspb.Identity{accountID("root@alpha.test")}
	})},
	{name: "local identity of no kind", why: badRequest, code: codes.InvalidArgument, says: "the local identity is empty", raw: mod(func(s *altspb.StartClientHandshakeReq) { s.LocalIdentity = new(altspb.Identity) })},
	{name: "no record protocol that the daemon has", why: "no_record_protocol", code: codes.FailedPrecondition, says: "this daemon has only " + noiseproto.RecordProtocol, raw: mod(func(s *altspb.StartClientHandshakeReq) { s.RecordProtocols = []string{otherRecord} })},
	{name: "server with no record protocol", why: "no_record_protocol", code: codes.FailedPrecondition, says: "this daemon has only " + noiseproto.RecordProtocol, raw: serverMod(func(s *altspb.StartServerHandshakeReq) { s.HandshakeParameters[2].RecordProtocols = nil })},
	{name: "no application protocol", why: badRequest, code: codes.InvalidArgument, says: "names no application protocol", raw: mod(func(s *altspb.StartClientHandshakeReq) { s.ApplicationProtocols = nil })},
	{name: "application protocol with a space", why: badRequest, code: codes.InvalidArgument, says: "application_protocols has the entry", raw: mod(func(s *altspb.StartClientHandshakeReq) { s.ApplicationProtocols = []string{"grpc exp"} })},
	{name: "RPC versions upside down", why: badRequest, code: codes.InvalidArgument, says: "rpc_versions has a minimum of 9.1", raw: mod(func(s *altspb.StartClientHandshakeReq) { s.RpcVersions.MinRpcVersion = versions(9).MinRpcVersion })},
	{name: "access_token", why: badRequest, code: codes.InvalidArgument, says: "has an access_token", raw: mod(func(s *altspb.StartClientHandshakeReq) { s.AccessToken = token })},
	{name: "token", why: badRequest, code: codes.InvalidArgument, says: "has a token", raw: serverMod(func(s *altspb.StartServerHandshakeReq) { s.HandshakeParameters[2].Token = &token })},
	{name: "handshake protocol TLS", why: badRequest, code: codes.InvalidArgument, says: "handshake protocol 1;", raw: mod(func(s *altspb.StartClientHandshakeReq) { s.HandshakeSecurityProtocol = altspb.HandshakeProtocol_TLS })},
	{name: "unknown handshake protocol", why: badRequest, code: codes.InvalidArgument, says: "handshake protocol 77;", raw: mod(func(s *altspb.StartClientHandshakeReq) { s.HandshakeSecurityProtocol = 77 })},
	{name: "server without parameters for ALTS", why: badRequest, code: codes.InvalidArgument, says: "has no parameters for ALTS", raw: serverMod(func(s *altspb.StartServerHandshakeReq) { s.HandshakeParameters = nil })},
	{name: "parameters of an unknown handshake protocol", why: badRequest, code: codes.InvalidArgument, says: "parameters for handshake protocol 77", raw: serverMod(func(s *altspb.StartServerHandshakeReq) { s.HandshakeParameters[77] = s.HandshakeParameters[2] })},
	{name: "UDP endpoint", why: badRequest, code: codes.InvalidArgument, says: "local_endpoint is UDP", raw: mod(func(s *altspb.StartClientHandshakeReq) {
		s.LocalEndpoint = &altspb.Endpoint{Protocol: altspb.NetworkProtocol_UDP}
	})},
	{name: "endpoint of an unknown protocol", why: badRequest, code: codes.InvalidArgument, says: "remote_endpoint has network protocol 77", raw: mod(func(s *altspb.StartClientHandshakeReq) { s.RemoteEndpoint = &altspb.Endpoint{Protocol: 77} })},
	{name: "start request twice", why: badRequest, code: codes.InvalidArgument, says: "a second start request", raw: [][]byte{clientStart(nil), clientStart(nil)}},
	{name: "client's, then server's start request", why: badRequest, code: codes.InvalidArgument, says: "a second start request", raw: [][]byte{clientStart(nil), serverStart(nil, nil)}},
	{name: "next before start", why: badRequest, code: codes.InvalidArgument, says: "a next request before any start request", raw: [][]byte{next([]byte("salt"))}},
	{name: "request of no kind", why: badRequest, code: codes.InvalidArgument, says: "neither client_start, server_start nor next", raw: [][]byte{{}}},
}

// TestLocalRefusals has applications ask for what their own daemon refuses.
func TestLocalRefusals(t *testing.T) {
	w := theWorld(t)
	addr := w.as(t, bob).listen(t, w.beta, 0)
	narrowAddr := w.as(t, bob).listen(t, w.narrow, 0)
	for _, r := range localRefusals {
		d := w.alpha
		if r.on != nil {
			d = r.on(w)
		}
		log := d
		if d.machine == w.narrow.machine {
			log = w.narrow
		}
		var p *process
		if r.as.name != "" {
			p = w.as(t, r.as)
		} else {
			p = w.pool(t, d, r.why)
		}
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			o := order{Op: "raw", Requests: r.raw}
			if r.raw == nil {
				o = order{Targets: []string{"bob@beta.test"}}
				if r.call != nil {
					o = *r.call
				}
				o.Op, o.Addr = "call", addr
				if d == w.narrow {
					o.Addr = narrowAddr
				}
			}
			o.Socket = d.socket
			mark := log.mark()
			got := p.do(t, o)
			wantError(t, got, r.code, "this machine's daemon refused", r.says, "("+r.why+")")
			if want := len(r.raw) - 1; r.raw != nil && len(got.Responses) != want {
				t.Errorf("%d requests were answered, want %d", len(got.Responses), want)
			}
			if got.Took > soon {
				t.Errorf("the error came after %v", got.Took)
			}
			log.find(t, mark, r.name, func(l *record) bool {
				return l.Reason == r.why && l.UID == p.uid && !l.ByPeer && strings.Contains(l.Detail, r.says)
			})
		})
	}
}

// What gRPC itself cannot read, it refuses itself.
func TestUnreadableRequests(t *testing.T) {
	w := theWorld(t)
	for _, c := range []struct {
		name    string
		request []byte
		code    codes.Code
		says    string
	}{
		{"no protobuf", []byte{0xff, 0xff, 0xff}, codes.Internal, "failed to unmarshal the received message"},
		{"more than 128 KiB", next(make([]byte, 128<<10)), codes.ResourceExhausted, "received message larger than max"},
	} {
		wantError(t, w.as(t, alice).do(t, order{Op: "raw", Socket: w.alpha.socket, Requests: [][]byte{c.request}}),
			c.code, c.says)
	}
}

// An account with capitals whose lower case is the same uid goes by the lower case.
func TestAccountInLowerCase(t *testing.T) {
	w := theWorld(t)
	addr := w.as(t, bob).listen(t, w.beta, 0)
	r := w.as(t, lowered).do(t, order{Op: "call", Socket: w.alpha.socket, Addr: addr, Targets: []string{"bob@beta.test"}})
	wantWhom(t, r, account{"erin", lowered.uid}, bob, w.alpha, w.beta)
}

// TestRefusedByPeer: the client's own error says that the other machine's daemon refused, and why; both logs have the
// same handshake ID.
func TestRefusedByPeer(t *testing.T) {
	w := theWorld(t)
	for _, c := range []struct {
		name             string
		code             reason.Code
		client, server   *daemon
		caller, answerer account
		says             string // in the log of the daemon that refuses
	}{
		{"client's CA unknown there", reason.UnknownCA, w.stranger, w.beta, alice, bob, "does not lead to a CA"},
		{"client's certificate revoked there", reason.CertificateRevoked, w.revoked, w.beta, alice, bob, "is revoked by"},
		{"client's revocation list out of date there", reason.RevocationUnknown, w.stale, w.beta, alice, bob, "was due to be replaced"},
		{"client's certificate without the purpose demanded there", reason.CertificateUnacceptable, w.alpha, w.demanding, alice, bob, "that is required here"},
		{"client's account with @", reason.AccountUnacceptable, w.domains, w.beta, domain, bob, "allow domain accounts"},
		{"server's account without a name", reason.LocalAccount, w.alpha, w.beta, alice, nameless, "has no name in the user database"},
		{"server's own certificate expired", reason.OwnCertificate, w.alpha, w.expired, alice, bob, "this machine's certificate has expired"},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr := w.as(t, c.answerer).listen(t, c.server, 0)
			mark, clientMark := c.server.mark(), c.client.mark()
			target := c.answerer.on(c.server)
			if c.answerer == nameless {
				target = "bob@beta.test"
			}
			r := w.as(t, c.caller).do(t, order{Op: "call", Socket: c.client.socket, Addr: addr, Targets: []string{target}})
			wantError(t, r, reasons[c.code].peers, "the peer's daemon refused: "+c.code.Meaning(), "("+c.code.String()+")")
			if r.Took > soon {
				t.Errorf("the error came after %v", r.Took)
			}
			l := c.client.find(t, clientMark, "the client's daemon", func(l *record) bool {
				return l.Reason == c.code.String() && l.ByPeer && l.Role == "initiator"
			})
			if l == nil {
				return
			}
			if !strings.Contains(r.Text, "handshake "+l.ID) {
				t.Errorf("the error does not name the handshake %s: %s", l.ID, r.Text)
			}
			c.server.find(t, mark, "the server's daemon", func(s *record) bool {
				return s.Reason == c.code.String() && s.ID == l.ID && !s.ByPeer && strings.Contains(s.Detail, c.says)
			})
		})
	}
}

// TestEveryStatus: whatever reason the other machine's daemon gives, the client's user reads it.
func TestEveryStatus(t *testing.T) {
	w := theWorld(t)
	for _, place := range []byte{frame2, frameStatus} {
		for code := reason.UnsupportedVersion; ; code++ {
			if !code.Known() {
				code = unheardOf
			}
			t.Run(fmt.Sprintf("%v in the place of frame %d", code, place), func(t *testing.T) {
				t.Parallel()
				peer := w.goodClaim(t).rogue()
				instead(place, statusFrame(uint16(code)))(peer)
				addr, done := peer.listen(t)
				r := w.as(t, alice).do(t, order{Op: "call", Socket: w.alpha.socket, Addr: addr,
					Targets: []string{"mallory@eve.test"}})
				o := <-done
				wantError(t, r, reasons[code].peers, "the peer's daemon refused: "+code.Meaning(), "("+code.String()+")",
					"handshake "+o.id)
				if r.Took > soon {
					t.Errorf("the error came after %v", r.Took)
				}
			})
			if code == unheardOf {
				break
			}
		}
	}
}

// A client that refuses a server by a status in the place of message 3 is not held against the server's machine.
func TestClientRefuses(t *testing.T) {
	w := theWorld(t)
	p := w.as(t, bob)
	addr := p.listen(t, w.beta, 0)
	peer := w.goodClaim(t).rogue()
	instead(frame3, statusFrame(uint16(reason.TargetMismatch)))(peer)
	mark := w.beta.mark()
	o := peer.dial(addr)
	if o.code >= 0 {
		t.Errorf("a refusal was answered by code %d", o.code)
	}
	w.beta.find(t, mark, "the client's refusal", func(l *record) bool {
		return l.ID == o.id && l.Reason == "target_mismatch" && l.ByPeer && strings.Contains(l.Detail,
			"the peer's daemon refused")
	})
}

// A second message 3 belongs to the record protocol, which ends at once.
func TestMessage3Twice(t *testing.T) {
	w := theWorld(t)
	peer := w.goodClaim(t).rogue()
	peer.send = func(typ byte, f []byte) []byte {
		if typ == frame3 {
			return append(f, f...)
		}
		return f
	}
	addr := w.as(t, bob).listen(t, w.beta, 0)
	began := time.Now()
	o := peer.dial(addr)
	if o.code != 0 {
		t.Errorf("the first message 3: %+v", o)
	}
	if took := time.Since(began); took > soon {
		t.Errorf("the connection was open for %v", took)
	}
	wantHonest(t, w, w.beta, addr)
}

// wantHonest checks that an honest client gets through to bob's server.
func wantHonest(t testing.TB, w *world, d *daemon, addr string) {
	t.Helper()
	r := w.as(t, alice).do(t, order{Op: "call", Socket: w.alpha.socket, Addr: addr, Targets: []string{bob.on(d)}})
	wantWhom(t, r, alice, bob, w.alpha, d)
}
