package service

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// Each kind of library gets a failure in the form that it shows (docs/clients.md).
func TestFailureForEachLibrary(t *testing.T) {
	beta := startDaemon(t, "beta.test", Config{})
	bad := serverStart([]byte("\x16\x03\x01 a TLS record"), nil)
	invalid := serverStart(nil, func(r *serverReq) { r.ApplicationProtocols = nil })

	t.Run("Go", func(t *testing.T) {
		resp, err := open(t, beta, "").do(bad)
		if resp != nil {
			t.Errorf("a response %v, which Go would hang on", resp)
		}
		wantErr(t, err, codes.Unauthenticated, "malformed", "TLS", "malformed")
	})
	t.Run("Java", func(t *testing.T) {
		_, err := open(t, beta, "grpc-java-netty/1.85.0").do(invalid)
		wantErr(t, err, codes.Unknown, "bad_request", "no application protocol", "bad_request")
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
	wantErr(t, err, codes.FailedPrecondition, "no_rpc_version")
	if resp.GetStatus().GetCode() != uint32(codes.FailedPrecondition) {
		t.Errorf("unknown library: %v", resp)
	}
	if resp, err := clientCore.deliver(f, "", nil); resp != nil || err == nil {
		t.Errorf("without a request: %v, %v", resp, err)
	}
	for agent, want := range map[string]clientKind{"grpc-go/1.85.0": clientGo, "grpc-java-okhttp/1.7": clientJava,
		"grpc-c++/1": clientEnvoy, "grpc-c/1": clientCore, "tonic": clientOther,
		"shared-altsd-altscreds grpc-go/1.85.0": clientAltscreds} {
		if got := clientKindOf(agent); got != want {
			t.Errorf("%s: kind %d, want %d", agent, got, want)
		}
	}
}

func TestRPCCodes(t *testing.T) {
	for c := reason.UnsupportedVersion; c.Known(); c++ {
		for _, byPeer := range []bool{false, true} {
			f := asFailure(&reason.Error{Code: c, Detail: "why", ByPeer: byPeer})
			text, who := f.message("0123"), "shared-altsd: this machine's daemon refused: "
			if byPeer {
				who = "shared-altsd: the peer's daemon refused: "
			}
			if f.rpc == codes.OK || f.rpc == codes.Unknown || !strings.HasPrefix(text, who) ||
				!strings.Contains(text, "("+c.String()+")") || !strings.HasSuffix(text, "; handshake 0123") {
				t.Errorf("%v: %v, %s", c, f.rpc, text)
			}
			if r := f.refusal("0123"); r.Reason != c.String() || r.ByPeer != byPeer || r.HandshakeId != "0123" {
				t.Errorf("%v: refusal %v", c, r)
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
