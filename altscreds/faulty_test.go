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
		ApplicationProtocol: "grpc", RecordProtocol: "ALTSRP_GCM_AES128_REKEY", KeyData: make([]byte, 44),
		PeerIdentity: identity(alice2), LocalIdentity: identity(bob1),
	}
}

// TestFaultyDaemon: a result that is not what was asked for opens no connection.
func TestFaultyDaemon(t *testing.T) {
	for name, test := range map[string]struct {
		answer func() (*altspb.HandshakerResp, error)
		want   error  // nil: none of the sentinels
		text   string // "": no error at all
	}{
		"good": {func() (*altspb.HandshakerResp, error) { return &altspb.HandshakerResp{Result: goodResult()}, nil }, nil,
			""},
		"record protocol": {func() (*altspb.HandshakerResp, error) {
			r := goodResult()
			r.RecordProtocol = "ALTSRP_GMAC_128"
			return &altspb.HandshakerResp{Result: r}, nil
		}, altscreds.ErrRefused, `record protocol "ALTSRP_GMAC_128"`},
		"key data": {func() (*altspb.HandshakerResp, error) {
			r := goodResult()
			r.KeyData = r.KeyData[:43]
			return &altspb.HandshakerResp{Result: r}, nil
		}, altscreds.ErrRefused, "43 bytes of key data"},
		"application protocol": {func() (*altspb.HandshakerResp, error) {
			r := goodResult()
			r.ApplicationProtocol = "http"
			return &altspb.HandshakerResp{Result: r}, nil
		}, altscreds.ErrRefused, `application protocol "http"`},
		"no peer": {func() (*altspb.HandshakerResp, error) {
			r := goodResult()
			r.PeerIdentity = nil
			return &altspb.HandshakerResp{Result: r}, nil
		}, altscreds.ErrRefused, "named no peer"},
		"not the target": {func() (*altspb.HandshakerResp, error) {
			r := goodResult()
			r.PeerIdentity = r.LocalIdentity
			return &altspb.HandshakerResp{Result: r}, nil
		}, altscreds.ErrRefused, "not among the targets"},
		"consumed": {func() (*altspb.HandshakerResp, error) { return &altspb.HandshakerResp{BytesConsumed: 1}, nil },
			altscreds.ErrRefused, "claims 1 bytes of 0"},
		"status inside": {func() (*altspb.HandshakerResp, error) {
			return &altspb.HandshakerResp{Status: &altspb.HandshakerStatus{Code: uint32(codes.PermissionDenied),
				Details: "shared-altsd: the peer's daemon refused: no (overloaded)"}}, nil
		}, altscreds.ErrPeerRejected, "(overloaded)"},
		"unimplemented": {func() (*altspb.HandshakerResp, error) { return nil, status.Error(codes.Unimplemented, "what?") },
			nil, "what? (gRPC code Unimplemented)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			socket := faultyDaemon(t, func(*altspb.HandshakerReq) (*altspb.HandshakerResp, error) { return test.answer() })
			rc, _ := tcpPair(t)
			err := altscreds.Client(rc, altscreds.ClientOptions{Socket: socket, TargetAccounts: []string{alice2}}).Handshake()
			if test.text == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.text) {
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
	socket := faultyDaemon(t, func(*altspb.HandshakerReq) (*altspb.HandshakerResp,
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
	c := altscreds.Client(rc, altscreds.ClientOptions{Socket: socket, TargetAccounts: []string{alice2}})
	if err := c.Handshake(); err == nil || !strings.Contains(err.Error(), "takes no more") {
		t.Errorf("%v", err)
	}
	c.Close()

	socket = faultyDaemon(t, func(*altspb.HandshakerReq) (*altspb.HandshakerResp, error) {
		return &altspb.HandshakerResp{BytesConsumed: 1, Result: goodResult()}, nil
	})
	rc2, rs2 := tcpPair(t)
	rs2.Write([]byte("x\xff\xff\xff\xff")) // a byte for the daemon, then a frame over the limit
	rs2.(*net.TCPConn).CloseWrite()
	s := altscreds.Server(rc2, altscreds.ServerOptions{Socket: socket})
	if _, err := s.Read(make([]byte, 1)); err == nil || err == io.EOF || !strings.Contains(err.Error(), "4294967295") {
		t.Errorf("%v", err)
	}
}
