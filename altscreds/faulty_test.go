package altscreds_test

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/altspb"
)

// faultyDaemon answers each request in the way that answer says: what the real one never does.
func faultyDaemon(t *testing.T, answer func(*altspb.HandshakerReq) (*altspb.HandshakerResp, error)) string {
	t.Helper()
	srv := grpc.NewServer()
	srv.RegisterService(&grpc.ServiceDesc{ServiceName: altspb.ServiceName, HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{
			StreamName: altspb.MethodName, ServerStreams: true, ClientStreams: true,
			Handler: func(_ any, s grpc.ServerStream) error {
				for {
					req := new(altspb.HandshakerReq)
					if err := s.RecvMsg(req); err != nil {
						return nil
					}
					resp, err := answer(req)
					if err != nil {
						return err
					}
					if err := s.SendMsg(resp); err != nil {
						return err
					}
				}
			}}}}, nil)
	path := filepath.Join(t.TempDir(), "s")
	l := must(net.Listen("unix", path))
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Stop()
		<-served
	})
	return path
}

func goodResult() *altspb.HandshakerResult {
	identity := func(s string) *altspb.Identity {
		return &altspb.Identity{IdentityOneof: &altspb.Identity_ServiceAccount{ServiceAccount: s}}
	}
	return &altspb.HandshakerResult{
		ApplicationProtocol: spoken[0], RecordProtocol: "ALTSRP_GCM_AES128_REKEY", KeyData: make([]byte, 44),
		PeerIdentity: identity(alice2), LocalIdentity: identity(bob1),
	}
}

type (
	result   = altspb.HandshakerResult
	response = altspb.HandshakerResp
)

// withResult is the answer of a good result that was changed.
func withResult(change func(*result)) func() (*response, error) {
	return func() (*response, error) {
		r := goodResult()
		change(r)
		return &response{Result: r}, nil
	}
}

// ended is the answer of a handshaker that ends the call, with a refusal as the status' detail if there is one.
func ended(code codes.Code, text string, refusal *altspb.Refusal) func() (*response, error) {
	st := status.New(code, text)
	if refusal != nil {
		st = must(st.WithDetails(refusal))
	}
	return func() (*response, error) { return nil, st.Err() }
}

// statusInside is the answer that stock handshakers give, with the status in the response.
func statusInside(code codes.Code, text string) func() (*response, error) {
	return func() (*response, error) {
		return &response{Status: &altspb.HandshakerStatus{Code: uint32(code), Details: text}}, nil
	}
}

// TestFaultyDaemon: a result that is not what was asked for opens no connection, and what another handshaker than ours
// says is shown, whatever it resembles.
func TestFaultyDaemon(t *testing.T) {
	const (
		internal = altscreds.ReasonInternal
		target   = altscreds.ReasonTargetMismatch
		ofPeer   = "shared-altsd: the peer's daemon refused: no (overloaded)"
	)
	refused, byPeer := altscreds.ErrRefused, altscreds.ErrPeerRejected
	refusal := &altspb.Refusal{Reason: "revocation_unknown", ByPeer: true, HandshakeId: "0123456789abcdef"}
	for name, test := range map[string]struct {
		answer func() (*response, error)
		reason altscreds.Reason
		want   error  // nil: none of the sentinels
		text   string // "": no error at all
	}{
		"good":                 {withResult(func(*result) {}), "", nil, ""},
		"record protocol":      {withResult(func(r *result) { r.RecordProtocol = "ALTSRP_GMAC_128" }), internal, refused, "ALTSRP_GMAC_128"},
		"key data":             {withResult(func(r *result) { r.KeyData = r.KeyData[:43] }), internal, refused, "43 bytes of key data"},
		"application protocol": {withResult(func(r *result) { r.ApplicationProtocol = "http" }), internal, refused, `protocol "http"`},
		"no peer":              {withResult(func(r *result) { r.PeerIdentity = nil }), internal, refused, "named no peer"},
		"not the target":       {withResult(func(r *result) { r.PeerIdentity = r.LocalIdentity }), target, refused, "not among the targets"},
		"consumed":             {func() (*response, error) { return &response{BytesConsumed: 1}, nil }, internal, refused, "claims 1 bytes of 0"},
		"refusal":              {ended(codes.PermissionDenied, "in words", refusal), "revocation_unknown", byPeer, "in words"},
		"refusal in words":     {ended(codes.ResourceExhausted, ofPeer, nil), "", nil, "(overloaded)"},
		"status inside":        {statusInside(codes.PermissionDenied, ofPeer), "", nil, "(overloaded)"},
		"unavailable inside":   {statusInside(codes.Unavailable, "not now"), "", nil, "not now"},
		"late inside":          {statusInside(codes.DeadlineExceeded, "too late"), "", nil, "too late"},
		"late":                 {ended(codes.DeadlineExceeded, "too late", nil), "", altscreds.ErrTimeout, "not finished in time"},
		"unimplemented":        {ended(codes.Unimplemented, "what?", nil), "", nil, "what? (gRPC code Unimplemented)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			socket := faultyDaemon(t, func(*altspb.HandshakerReq) (*response, error) { return test.answer() })
			rc, _ := tcpPair(t)
			err := altscreds.Client(rc, altscreds.ClientOptions{ApplicationProtocols: spoken, Socket: socket, TargetAccounts: []string{alice2}}).Handshake()
			if test.text == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var he *altscreds.HandshakeError
			if !errors.As(err, &he) || he.Reason != test.reason || !strings.Contains(err.Error(), test.text) {
				t.Errorf("%v", err)
			}
			for _, sentinel := range []error{altscreds.ErrRefused, altscreds.ErrPeerRejected, altscreds.ErrNoDaemon,
				altscreds.ErrTimeout} {
				if errors.Is(err, sentinel) != (sentinel == test.want) {
					t.Errorf("%v is not %v", err, test.want)
				}
			}
		})
	}
}

// TestDaemonTakesNothing: a daemon that consumes nothing does not have bytes gathered without end, and one that leaves
// bytes over with the result leaves them to the record protocol.
func TestDaemonTakesNothing(t *testing.T) {
	socket := faultyDaemon(t, func(*altspb.HandshakerReq) (*response,
		error) {
		return new(altspb.HandshakerResp), nil
	})
	rc, rs := tcpPair(t)
	go func() {
		for {
			if _, err := rs.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	}()
	c := altscreds.Client(rc, altscreds.ClientOptions{ApplicationProtocols: spoken, Socket: socket, TargetAccounts: []string{alice2}})
	if err := c.Handshake(); err == nil || !strings.Contains(err.Error(), "takes no more") {
		t.Errorf("%v", err)
	}
	c.Close()

	socket = faultyDaemon(t, func(*altspb.HandshakerReq) (*response, error) {
		return &response{BytesConsumed: 1, Result: goodResult()}, nil
	})
	rc2, rs2 := tcpPair(t)
	rs2.Write([]byte("x\xff\xff\xff\xff")) // a byte for the daemon, then a frame over the limit
	rs2.(*net.TCPConn).CloseWrite()
	s := altscreds.Server(rc2, altscreds.ServerOptions{ApplicationProtocols: spoken, Socket: socket})
	if _, err := s.Read(make([]byte, 1)); err == nil || err == io.EOF || !strings.Contains(err.Error(), "4294967295") {
		t.Errorf("%v", err)
	}
}
