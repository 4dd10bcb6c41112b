package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testlog"
	"github.com/shared-altsd/shared-altsd/internal/testmachine"
	"github.com/shared-altsd/shared-altsd/internal/testnet"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
	"github.com/shared-altsd/shared-altsd/noiseproto"
)

const helperSocket = "SHARED_ALTSD_TEST_SOCKET" // set: the test binary is a caller with another uid

func TestMain(m *testing.M) {
	if path := os.Getenv(helperSocket); path != "" {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		c, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err == nil {
			_, err = newParty(ctx, c).do(clientStart(nil))
		}
		fmt.Println(err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func testMachine(t testing.TB, name string, leaf testca.Leaf) *certbind.Machine {
	t.Helper()
	return machineOf(t, testmachine.CA(), name, leaf)
}

// machineOf makes a machine whose certificate the CA issued.
func machineOf(t testing.TB, ca *testca.CA, name string, leaf testca.Leaf) *certbind.Machine {
	t.Helper()
	return testmachine.New(t, name, testmachine.Options{Leaf: leaf, Issuer: ca, AllowDomainAccounts: true})
}

// accountsFunc stands in for user databases that a test cannot have.
type accountsFunc func(ctx context.Context, uid uint32) (Account, error)

func (f accountsFunc) Lookup(ctx context.Context, uid uint32) (Account, error) { return f(ctx, uid) }

// named gives every uid the same name.
func named(name string, groups ...string) accountsFunc {
	return func(_ context.Context, uid uint32) (Account, error) {
		return Account{UID: uid, Name: name, Groups: groups}, nil
	}
}

// currentUser returns the account that the tests run as, and its group.
func currentUser(t testing.TB) (*user.User, *user.Group) {
	t.Helper()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	group, err := user.LookupGroupId(me.Gid)
	if err != nil {
		t.Fatal(err)
	}
	return me, group
}

// A daemon is a Server on a real socket.
type daemon struct {
	*Server
	socket  string
	records chan Record
	logs    *testprog.Log
}

// startDaemon runs the service for the machine name; the accounts are named after the daemon's own user if c has none.
func startDaemon(t testing.TB, name string, c Config, services ...func(grpc.ServiceRegistrar)) *daemon {
	t.Helper()
	d := &daemon{records: make(chan Record, 4096), logs: new(testprog.Log)}
	if c.Machine == nil {
		c.Machine = testMachine(t, name, testca.Leaf{})
	}
	c.Logger = slog.New(slog.NewTextHandler(d.logs, nil))
	t.Cleanup(func() { testlog.Load(t, "..").Sections["The daemon"].CheckText(t, d.logs.String()) })
	c.OnFinish = func(r Record) {
		select {
		case d.records <- r:
		default:
		}
	}
	var err error
	if d.Server, err = New(c); err != nil {
		t.Fatal(err)
	}
	for _, register := range services {
		register(d)
	}
	d.socket = d.listen(t, nil)
	return d
}

// change changes the Server before connections that are made after it.
func (d *daemon) change(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// listen opens a further socket, that every user can reach.
func (d *daemon) listen(t testing.TB, allowed UIDRanges) string {
	t.Helper()
	path := filepath.Join(testprog.Dir(t), "s")
	testnet.Serve(t, path, func(l *net.UnixListener) error { return d.Serve(l, allowed) }, d.Shutdown)
	return path
}

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// dial connects to the socket as a library of that user agent.
func dial(t testing.TB, socket, agent string) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUserAgent(agent))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// A party is the raw handshaker client of one application.
type party struct {
	stream grpc.ClientStream
	err    error
}

func newParty(ctx context.Context, c *grpc.ClientConn) *party {
	s, err := c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, altspb.FullMethod)
	return &party{s, err}
}

func open(t testing.TB, d *daemon, agent string) *party {
	t.Helper()
	p := newParty(testContext(t), dial(t, d.socket, agent))
	if p.err != nil {
		t.Fatal(p.err)
	}
	return p
}

// do sends one request and receives its one response.
func (p *party) do(req *altspb.HandshakerReq) (*altspb.HandshakerResp, error) {
	if p.err != nil {
		return nil, p.err
	}
	if err := p.stream.SendMsg(req); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return p.recv()
}

func (p *party) recv() (*altspb.HandshakerResp, error) {
	resp := new(altspb.HandshakerResp)
	if err := p.stream.RecvMsg(resp); err != nil {
		return nil, err
	}
	return resp, nil
}

// must is do, with a good status and all bytes consumed.
func (p *party) must(t testing.TB, req *altspb.HandshakerReq) *altspb.HandshakerResp {
	t.Helper()
	resp, err := p.do(req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Status == nil || resp.Status.Code != 0 {
		t.Fatalf("status %v, want 0", resp.Status)
	}
	if resp.Result == nil && int(resp.BytesConsumed) != len(inBytes(req)) {
		t.Fatalf("%d of %d bytes consumed before the result", resp.BytesConsumed, len(inBytes(req)))
	}
	return resp
}

func (p *party) mustEnd(t testing.TB) {
	t.Helper()
	if resp, err := p.recv(); !errors.Is(err, io.EOF) {
		t.Fatalf("after the result: %v, %v, want the stream's end", resp, err)
	}
}

func versions21() *altspb.RpcProtocolVersions {
	v := &altspb.RpcProtocolVersions_Version{Major: 2, Minor: 1}
	return &altspb.RpcProtocolVersions{MaxRpcVersion: v, MinRpcVersion: v}
}

type (
	clientReq = altspb.StartClientHandshakeReq
	serverReq = altspb.StartServerHandshakeReq
)

func clientStart(mod func(*altspb.StartClientHandshakeReq)) *altspb.HandshakerReq {
	s := &altspb.StartClientHandshakeReq{
		HandshakeSecurityProtocol: altspb.HandshakeProtocol_ALTS,
		ApplicationProtocols:      []string{"grpc"},
		RecordProtocols:           []string{noiseproto.RecordProtocol},
		RpcVersions:               versions21(),
		TargetIdentities:          []*altspb.Identity{hostnameID("beta.test")},
	}
	if mod != nil {
		mod(s)
	}
	return &altspb.HandshakerReq{ReqOneof: &altspb.HandshakerReq_ClientStart{ClientStart: s}}
}

func serverStart(in []byte, mod func(*altspb.StartServerHandshakeReq)) *altspb.HandshakerReq {
	s := &altspb.StartServerHandshakeReq{
		ApplicationProtocols: []string{"grpc"},
		HandshakeParameters: map[int32]*altspb.ServerHandshakeParameters{
			2: {RecordProtocols: []string{noiseproto.RecordProtocol}},
		},
		RpcVersions: versions21(),
		InBytes:     in,
	}
	if mod != nil {
		mod(s)
	}
	return &altspb.HandshakerReq{ReqOneof: &altspb.HandshakerReq_ServerStart{ServerStart: s}}
}

func next(in []byte) *altspb.HandshakerReq {
	return &altspb.HandshakerReq{ReqOneof: &altspb.HandshakerReq_Next{Next: &altspb.NextHandshakeMessageReq{InBytes: in}}}
}

func accountID(s string) *altspb.Identity {
	return &altspb.Identity{IdentityOneof: &altspb.Identity_ServiceAccount{ServiceAccount: s}}
}

func hostnameID(s string) *altspb.Identity {
	return &altspb.Identity{IdentityOneof: &altspb.Identity_Hostname{Hostname: s}}
}

// feed hands in to the party in pieces and gives all that comes out, with the result if it is there.
func (p *party) feed(t testing.TB, in []byte, piece int) (out []byte, result *altspb.HandshakerResult) {
	t.Helper()
	for len(in) > 0 {
		n := min(piece, len(in))
		resp := p.must(t, next(in[:n]))
		out = append(out, resp.OutFrames...)
		if resp.Result != nil {
			if int(resp.BytesConsumed) != len(in) {
				t.Fatalf("the last request: %d bytes consumed of %d", resp.BytesConsumed, len(in))
			}
			return out, resp.Result
		}
		in = in[n:]
	}
	return out, nil
}

// join does a whole handshake between two parties.
func join(t testing.TB, c, s *party, start, accept *altspb.HandshakerReq, piece int) (client, server *altspb.HandshakerResult) {
	t.Helper()
	m1 := c.must(t, start).OutFrames
	var m2 []byte
	if accept.GetServerStart().InBytes = nil; piece >= len(m1) {
		accept.GetServerStart().InBytes = m1
		m2 = s.must(t, accept).OutFrames
	} else {
		s.must(t, accept)
		m2, _ = s.feed(t, m1, piece)
	}
	m3, _ := c.feed(t, m2, piece)
	st, server := s.feed(t, m3, piece)
	_, client = c.feed(t, st, piece)
	if client == nil || server == nil {
		t.Fatalf("results: client %v, server %v", client, server)
	}
	c.mustEnd(t)
	s.mustEnd(t)
	return client, server
}

func (d *daemon) record(t testing.TB) Record {
	t.Helper()
	select {
	case r := <-d.records:
		return r
	case <-time.After(time.Minute):
		t.Fatal("no record of the handshake")
	}
	return Record{}
}

// wantErr checks code and reason of an RPC's error, and what its text says beside them; no reason: the error is not the
// service's own. It returns the refusal in the error's details.
func wantErr(t testing.TB, err error, code codes.Code, why string, texts ...string) *altspb.Refusal {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %v", code)
	}
	s := status.Convert(err)
	if s.Code() != code {
		t.Errorf("code %v, want %v: %s", s.Code(), code, s.Message())
	}
	refusal := new(altspb.Refusal)
	for _, d := range s.Details() {
		refusal, _ = d.(*altspb.Refusal)
	}
	wantWhy(t, refusal, why, s.Message(), texts...)
	return refusal
}

// wantRefusal checks the reason in the answer to a socket that was handed over, and what its text says beside it.
func wantRefusal(t testing.TB, answer *altspb.Answer, why string, texts ...string) *altspb.Refusal {
	t.Helper()
	r := answer.GetRefusal()
	if r.GetCode() == 0 || answer.GetResult() != nil {
		t.Fatalf("answer %v, want a refusal", answer)
	}
	wantWhy(t, r, why, r.GetText(), texts...)
	return r
}

// byPeer stands before the reason of a refusal by the peer's daemon.
const byPeer = "by_peer "

func wantWhy(t testing.TB, r *altspb.Refusal, want, text string, parts ...string) {
	t.Helper()
	got := r.GetReason()
	if r.GetByPeer() {
		got = byPeer + got
	}
	if got != want {
		t.Errorf("reason %q, want %q: %s", got, want, text)
	}
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("the text does not say %q: %s", part, text)
		}
	}
}

// wantID checks that a refusal bears the ID under which the handshake was recorded.
func wantID(t testing.TB, r *altspb.Refusal, id string) {
	t.Helper()
	if id == "" || r.GetHandshakeId() != id {
		t.Errorf("the refusal is of handshake %q, want %q", r.GetHandshakeId(), id)
	}
}

func wantReason(t testing.TB, err error, code reason.Code, texts ...string) {
	t.Helper()
	if reason.Of(err) != code {
		t.Errorf("reason %v, want %v: %v", reason.Of(err), code, err)
	}
	for _, text := range texts {
		if err != nil && !strings.Contains(err.Error(), text) {
			t.Errorf("the error does not say %q: %v", text, err)
		}
	}
}

func isRoot() bool { return os.Geteuid() == 0 }
