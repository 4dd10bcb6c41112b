package service

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/fair"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/noiseproto"
)

// A whole handshake through two daemons on real sockets, with the system's own user database, in several segmentations.
func TestHandshake(t *testing.T) {
	me, group := currentUser(t)
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
	if st.InFlight != [2]int{} || st.Waiting != [2]int{} ||
		len(st.Last) != 0 || len(alpha.records) != 0 {
		t.Errorf("snapshot %+v, and %d records more", st, len(alpha.records))
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
	unknown := testca.MustCA(t, testca.Options{})
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
		wantID(t, wantErr(t, err, codes.PermissionDenied, byPeer+"unknown_ca"), id)
		if hangUp {
			_, err = s.do(next(nil))
		} else {
			_, err = s.recv()
		}
		wantID(t, wantErr(t, err, codes.Unauthenticated, "unknown_ca"), id)
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
	wantErr(t, err, codes.PermissionDenied, "target_mismatch", "@beta.test", "bob@beta.test")
	if r := alpha.record(t); !strings.HasSuffix(r.Peer, "@beta.test") {
		t.Errorf("the verified peer is not recorded: %+v", r)
	}
	_, err = s.do(next(nil))
	wantID(t, wantErr(t, err, codes.Unavailable, "peer_closed"), beta.record(t).ID)
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
	wantID(t, wantErr(t, err, codes.DeadlineExceeded, "timed_out", "within 50ms"), beta.record(t).ID)

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
	wantErr(t, err, codes.Canceled, "cancelled")
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

// An application that sends request upon request and reads no answer keeps its place no longer than any other.
func TestRule24AnswersNotRead(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{HandshakeTimeout: 5 * time.Second})
	c, err := net.Dial("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte(http2.ClientPreface))
	fr := http2.NewFramer(c, c)
	var mu sync.Mutex
	fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	fr.WriteSettingsAck()
	go func() {
		for {
			f, err := fr.ReadFrame()
			if err != nil {
				return
			}
			if p, ok := f.(*http2.PingFrame); ok && !p.IsAck() {
				mu.Lock()
				fr.WritePing(true, p.Data)
				mu.Unlock()
			}
		}
	}()
	var hb bytes.Buffer
	e := hpack.NewEncoder(&hb)
	for _, kv := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", altspb.FullMethod}, {":authority", "x"}, {"content-type", "application/grpc"}, {"te", "trailers"}} {
		e.WriteField(hpack.HeaderField{Name: kv[0], Value: kv[1]})
	}
	fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: hb.Bytes(), EndHeaders: true})
	send := func(m proto.Message) {
		b, _ := proto.Marshal(m)
		h := make([]byte, 5)
		binary.BigEndian.PutUint32(h[1:], uint32(len(b)))
		mu.Lock()
		fr.WriteData(1, false, append(h, b...))
		mu.Unlock()
	}
	a := startDaemon(t, "alpha.test", Config{})
	m1 := open(t, a, "").must(t, clientStart(nil)).OutFrames
	send(serverStart(m1, nil))
	// message 3: header and then byte by byte, each answered by a small response that nobody reads
	hdr := noiseproto.StatusFrame(0)[:8]
	copy(hdr[5:], []byte{3, 0x5f, 0xff})
	for i, b := range append(hdr, make([]byte, 9000)...) {
		send(next([]byte{b}))
		if i%100 == 99 {
			time.Sleep(8 * time.Millisecond)
		}
	}
	if r := d.record(t); r.Reason != "timed_out" {
		t.Errorf("record %+v, want timed_out", r)
	}
	if n := d.Snapshot().InFlight[Responder]; n != 0 {
		t.Errorf("%d handshakes keep their places", n)
	}
}

// A step that would have to wait is not made, and leaves no trace: not for an account that is not known yet, nor without
// a statement, nor without a place.
func TestHurriedSteps(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{Limits: Limits{Handshakes: 1}})
	uid := uint32(os.Geteuid())
	begin := func() *session {
		h := d.newSession(Caller{UID: uid}, func() {}, func() {})
		h.hurried = true
		t.Cleanup(func() { h.end(cancelled()) })
		return h
	}
	want := func(what string, h *session, waits bool) {
		t.Helper()
		if _, err := h.step(t.Context(), clientStart(nil)); (err == errWouldWait) != waits || err != nil && !waits {
			t.Errorf("%s: %v", what, err)
		}
		if waits && (h.state != idle || h.failure != nil) {
			t.Errorf("%s: a trace is left, state %v, failure %v", what, h.state, h.failure)
		}
	}
	h := begin()
	want("an unknown account", h, true)
	if _, err := d.accounts.Lookup(t.Context(), uid); err != nil {
		t.Fatal(err)
	}
	want("no statement", h, true)
	if h.hurried = false; h.holds != aPlace {
		t.Error("the place is not kept for the step that waits")
	}
	want("a step that waits", h, false)
	other := begin()
	want("no place", other, true)
	h.end(nil)
	want("a place again", other, false)
}

// Nor is a server's step made without message 1's budget, or a turn; what it took before is taken once.
func TestHurriedStepsOfAServer(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{})
	alpha := startDaemon(t, "alpha.test", Config{})
	m1 := open(t, alpha, "").must(t, clientStart(nil)).OutFrames
	c, s := open(t, alpha, ""), open(t, d, "") // after which the account is known, and has its statement
	join(t, c, s, clientStart(nil), serverStart(nil, nil), 1<<20)
	uid := uint32(os.Geteuid())
	own := share{ofAccount, uid}
	h := d.newSession(Caller{UID: uid, share: own}, func() {}, func() {})
	t.Cleanup(func() { h.end(cancelled()) })
	h.hurried = true
	if _, err := h.step(t.Context(), serverStart(nil, nil)); err != nil {
		t.Fatal(err)
	}
	want := func(what string, holds holding, paid bool) {
		t.Helper()
		if _, err := h.step(t.Context(), next(m1)); err != errWouldWait || h.state != waiting || h.failure != nil ||
			h.frame != nil || h.holds != holds || h.paid != paid {
			t.Errorf("%s: %v; state %v, failure %v, frame %x, holds %v, paid %v", what, err, h.state, h.failure, h.frame,
				h.holds, h.paid)
		}
	}
	d.change(func() { d.unproven = fair.NewBudget[share](1, 1) })
	d.unproven.Try(own, 10)
	want("no budget", aStream, false)
	d.change(func() { d.unproven = fair.NewBudget[share](1, 1) })
	d.gate.PerKey = 0
	want("no place", aStream, true)
	d.gate.PerKey = 1
	for range runtime.GOMAXPROCS(0) {
		busy, done := make(chan struct{}), make(chan struct{})
		defer close(done)
		go d.turns.Do(share{ofSocket, 1}, func() {
			close(busy)
			<-done
		})
		<-busy
	}
	want("no turn", aPlace, true)
	want("no turn yet", aPlace, true)
	d.turns = fair.NewTurns[share](1)
	if resp, err := h.step(t.Context(), next(m1)); err != nil || len(resp.OutFrames) == 0 {
		t.Errorf("a step that need not wait: %v", err)
	}
}

// A step that waits for the user database holds up no other stream of the connection, and its client can cancel it.
func TestSlowStepHoldsNoOtherStream(t *testing.T) {
	var calls atomic.Int32
	slow := make(chan struct{})
	defer close(slow)
	d := startDaemon(t, "beta.test", Config{Accounts: accountsFunc(func(ctx context.Context, uid uint32) (Account, error) {
		if calls.Add(1) == 2 { // the first is for the connection, unless it is root's or the daemon's own
			select {
			case <-slow:
			case <-ctx.Done():
				return Account{}, ctx.Err()
			}
		}
		return Account{UID: uid, Name: "alice"}, nil
	})})
	calls.Store(1)
	conn := dial(t, d.socket, "")
	ctx, cancel := context.WithCancel(t.Context())
	first := newParty(ctx, conn)
	if err := first.stream.SendMsg(clientStart(nil)); err != nil {
		t.Fatal(err)
	}
	for calls.Load() < 2 {
		time.Sleep(time.Millisecond)
	}
	newParty(testContext(t), conn).must(t, clientStart(nil))
	cancel()
	if r := d.record(t); r.Reason == "accepted" {
		t.Errorf("record %+v", r)
	}
}

// What start requests hold is bounded for each account.
func TestRule24MemoryOfAnAccount(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{})
	conn := dial(t, d.socket, "")
	big := serverStart(nil, func(r *serverReq) {
		for range 40000 {
			r.HandshakeParameters[1] = &altspb.ServerHandshakeParameters{}
			r.HandshakeParameters[2].LocalIdentities = append(r.HandshakeParameters[2].LocalIdentities, &altspb.Identity{})
		}
	})
	_, err := newParty(testContext(t), conn).do(big)
	wantErr(t, err, codes.ResourceExhausted, "overloaded", "too much memory")
	for d.heldBytes.sum() > 0 {
		time.Sleep(time.Millisecond)
	}
	if !d.heldBytes.add(share{ofAccount, 7}, bytesPerAccount) || d.heldBytes.add(share{ofAccount, 7}, 1) {
		t.Error("the bound of an account")
	}
	d.heldBytes.add(share{ofAccount, 7}, -bytesPerAccount)
	newParty(testContext(t), conn).must(t, serverStart(nil, nil))
}
