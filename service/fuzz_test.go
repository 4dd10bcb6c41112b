package service

import (
	"context"
	"log/slog"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/noiseproto"
)

// fuzzed are two machines' services without sockets: the state machine alone.
var fuzzed = sync.OnceValue(func() [2]*Server {
	var s [2]*Server
	for i, name := range []string{"alpha.test", "beta.test"} {
		var err error
		s[i], err = New(Config{Machine: testMachine(new(testing.T), name, testca.Leaf{}), Accounts: named("alice"),
			SecureNaming: Off,
			Logger:       slog.New(slog.DiscardHandler)})
		if err != nil {
			panic(err)
		}
	}
	return s
})

// FuzzStream drives two sessions by a script, each step of which is an operation and a number: whatever requests come, in
// whatever order, a session answers each once, takes no more bytes than it was given, ends with one result or one error,
// and gives back all that it held.
func FuzzStream(f *testing.F) {
	f.Add(wholeHandshake, []byte{})
	f.Add([]byte{0, 0, 1, 0, 3, 7, 3, 255, 2, 255, 3, 255, 2, 255}, []byte{})
	f.Add([]byte{0, 0, 0, 0}, []byte{})
	f.Add([]byte{4, 0, 5, 1, 6, 0}, []byte("\x16\x03\x01"))
	raw, err := proto.Marshal(clientStart(nil))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{6, 0, 6, 1, 5, 0}, raw)
	f.Add([]byte{0, 0, 1, 255, 2, 255, 5, 1, 7, 1, 7, 0}, noiseproto.StatusFrame(9))
	f.Add([]byte{0, 0, 1, 255, 7, 1, 2, 255, 3, 255, 2, 255, 3, 255}, []byte{})
	f.Fuzz(func(t *testing.T, script, data []byte) { runScript(t, script, data) })
}

// The first seed of FuzzStream is a whole handshake.
func TestScript(t *testing.T) {
	if got := runScript(t, wholeHandshake, nil); got != [2]bool{true, true} {
		t.Errorf("results %v", got)
	}
}

var wholeHandshake = []byte{0, 0, 1, 255, 2, 255, 3, 255, 2, 255}

// runScript reports which of the sessions came to a result.
func runScript(t *testing.T, script, data []byte) (hasResult [2]bool) {
	servers := fuzzed()
	sessions := [2]*session{servers[0].newSession(Caller{UID: 1}, func() {}, func() {}), servers[1].newSession(Caller{UID: 1}, func() {}, func() {})}
	var pending [2][]byte // bytes on the way to each
	var over [2]bool
	// Nothing blocks: a place is always free, and no timer is waited for.
	step := func(i int, req *altspb.HandshakerReq) {
		if over[i] {
			return
		}
		resp, err := sessions[i].step(context.Background(), req)
		switch {
		case err != nil:
			over[i] = true
			if f := asFailure(err); f.rpc == 0 || f.name == "" || f.text == "" {
				t.Fatalf("failure %+v", f)
			}
			return
		case resp == nil || resp.Status == nil || resp.Status.Code != 0:
			t.Fatalf("response %v without an error", resp)
		case int(resp.BytesConsumed) > len(inBytes(req)):
			t.Fatalf("%d bytes consumed of %d", resp.BytesConsumed, len(inBytes(req)))
		case resp.Result == nil && int(resp.BytesConsumed) != len(inBytes(req)):
			t.Fatalf("%d bytes consumed of %d before the end", resp.BytesConsumed, len(inBytes(req)))
		}
		pending[1-i] = append(pending[1-i], resp.OutFrames...)
		if resp.Result != nil {
			if len(resp.Result.KeyData) != 64 || resp.Result.PeerIdentity.GetServiceAccount() == "" {
				t.Fatalf("result %v", resp.Result)
			}
			over[i], hasResult[i] = true, true
			sessions[i].end(nil)
		}
	}
	take := func(i int, n byte) []byte {
		k := min(int(n)*8, len(pending[i]))
		if n == 255 {
			k = len(pending[i])
		}
		b := pending[i][:k:k]
		pending[i] = pending[i][k:]
		return b
	}
	for len(script) >= 2 && len(script) < 100 {
		op, n := script[0]%8, script[1]
		script = script[2:]
		switch op {
		case 0:
			step(0, clientStart(nil))
		case 1:
			step(1, serverStart(take(1, n), nil))
		case 2:
			step(0, next(take(0, n)))
		case 3:
			step(1, next(take(1, n)))
		case 4:
			step(int(n%2), serverStart(data, nil))
		case 5:
			step(int(n%2), next(data))
		case 6:
			req := new(altspb.HandshakerReq)
			if proto.Unmarshal(data, req) == nil {
				step(int(n%2), req)
			}
		case 7:
			if i := int(n % 2); !over[i] && sessions[i].timer != nil {
				if f := sessions[i].expire(); f == nil || f.rpc == 0 {
					t.Fatalf("expiry gave %+v", f)
				}
				over[i] = sessions[i].state == ended // else the peer is still to be told
			}
		}
	}
	for i, h := range sessions {
		h.end(cancelled())
		h.end(cancelled())
		if in, waiting := counts(servers[i].gate); in != [2]int{} || waiting != [2]int{} ||
			servers[i].idleStreams.sum() != 0 {
			t.Fatalf("left behind: %v under way, %v waiting, %d streams", in, waiting, servers[i].idleStreams.sum())
		}
	}
	return hasResult
}
