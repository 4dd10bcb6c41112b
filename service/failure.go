package service

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// A failure is why a handshake ended without a result.
type failure struct {
	// name is the name of a reason code, or one of ours for an end that the wire has no code for.
	name string
	// text names cause and cure; who refused stands in front of it when it is given to an application.
	text   string
	tell   reason.Code // what the peer's daemon is told; Accepted: nothing
	rpc    codes.Code  // what the application is told
	byPeer bool
	// outside is an end that came from outside (hang-up, cancel), so that nobody refused.
	outside bool
}

func (f *failure) Error() string { return f.text }

// badRequest refuses what the local application asked for, which is its own fault, and told to nobody else.
func badRequest(format string, args ...any) *failure {
	return &failure{name: reason.BadRequestName, text: fmt.Sprintf(format, args...) + " (" + reason.BadRequestName + ")",
		rpc: codes.InvalidArgument}
}

func peerClosed(text string) *failure {
	return &failure{name: reason.PeerClosedName, text: text + " (" + reason.PeerClosedName + ")",
		rpc: codes.Unavailable, outside: true}
}

func cancelled() *failure {
	return &failure{name: reason.CancelledName,
		text: "the application gave up the handshake (" + reason.CancelledName + ")",
		tell: reason.LocalAccount, rpc: codes.Canceled, outside: true}
}

// gone returns what the end of a context, or of the application's requests, means for its handshake.
func (s *Server) gone(err error) *failure {
	switch {
	case s.stopped.Err() != nil:
		return asFailure(reason.Errorf(reason.ShuttingDown, "the daemon stopped before the handshake was done; try again"))
	case !errors.Is(err, context.DeadlineExceeded):
		return cancelled()
	}
	f := asFailure(reason.Errorf(reason.TimedOut, "the application's own deadline for the handshake passed"))
	f.outside = true
	return f
}

var errStopping = reason.Errorf(reason.ShuttingDown, "the daemon is stopping; try again")

// asFailure returns any error in the form of a failure; one that is neither a failure nor a refusal is a fault of ours.
func asFailure(err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	var r *reason.Error
	if !errors.As(err, &r) {
		r = reason.Errorf(reason.Internal, "%w", err)
	}
	return &failure{name: r.Code.String(), text: r.Error(), tell: r.Code, rpc: rpcCode(r.Code, r.ByPeer),
		byPeer: r.ByPeer}
}

// rpcCode returns the status code of gRPC: UNAUTHENTICATED where a proof failed, the peer's or ours, PERMISSION_DENIED
// where somebody is who he says but may not, or where the peer did not accept us, UNAVAILABLE where he has a fault of his own.
func rpcCode(c reason.Code, byPeer bool) codes.Code {
	switch c {
	case reason.UnsupportedVersion, reason.Malformed, reason.DecryptionFailed, reason.UnknownCA,
		reason.CertificateExpired,
		reason.CertificateNotYetValid, reason.CertificateRevoked, reason.RevocationUnknown,
		reason.CertificateUnacceptable,
		reason.StatementInvalid, reason.StatementExpired, reason.MachineNameMismatch, reason.BadChoice, reason.DNSUnknown:
		if byPeer {
			return codes.PermissionDenied
		}
		return codes.Unauthenticated
	case reason.OwnCertificate:
		if byPeer {
			return codes.Unavailable
		}
		return codes.Unauthenticated
	case reason.NoApplicationProtocol, reason.NoRecordProtocol, reason.NoRPCVersion:
		return codes.FailedPrecondition
	case reason.Overloaded:
		return codes.ResourceExhausted
	case reason.TimedOut:
		return codes.DeadlineExceeded
	case reason.ShuttingDown:
		return codes.Unavailable
	case reason.Internal:
		if byPeer {
			return codes.Unavailable
		}
		return codes.Internal
	}
	return codes.PermissionDenied
}

// message returns what the application's user reads: who refused, why, and the ID under which both daemons log it.
func (f *failure) message(id string) string {
	who := "this machine's daemon refused: "
	if f.byPeer || f.outside {
		who = "" // the text says it itself
	}
	if id != "" {
		id = "; handshake " + id
	}
	return "shared-altsd: " + who + f.text + id
}

// refusal returns the failure as fields, for those who act on its reason; code and text are those of the status that it
// is a detail of, if it is one.
func (f *failure) refusal(id string) *altspb.Refusal {
	return &altspb.Refusal{Reason: f.name, ByPeer: f.byPeer, HandshakeId: id}
}

// withRefusal returns the error of a status, with the refusal as its detail.
func withRefusal(st *status.Status, r *altspb.Refusal) error {
	if detailed, err := st.WithDetails(r); err == nil {
		st = detailed
	}
	return st.Err()
}

// A clientKind is a family of gRPC libraries, which differ in the form of a failure that they can show.
type clientKind int

const (
	clientOther clientKind = iota
	clientGo
	clientCore // C-core and what is built on it
	clientJava
	clientEnvoy
	clientAltscreds // grpc-go, by which altscreds asks again if the daemon stops
)

func clientKindOf(userAgent string) clientKind {
	for _, k := range []struct {
		mark string
		kind clientKind
	}{{"shared-altsd-altscreds", clientAltscreds}, {"grpc-c++/", clientEnvoy}, {"grpc-c/", clientCore},
		{"grpc-java-", clientJava}, {"grpc-go/", clientGo}} {
		if strings.Contains(userAgent, k.mark) {
			return k.kind
		}
	}
	return clientOther
}

// blocks reports whether an event loop stands still while such a client waits, and with it all else that it does.
func (k clientKind) blocks() bool { return k == clientJava || k == clientEnvoy }

// retries reports whether such a client makes a call anew of which it is told that nothing was done. C-core's handshaker has that
// switched off, and altscreds asks again by itself.
func (k clientKind) retries() bool { return k == clientGo }

// asksLate reports whether such a client, whose handshake is over while it waits for its peer, asks for the reason with the
// next request alone, and takes the end of the RPC for a fault of the daemon's.
func (k clientKind) asksLate() bool { return k != clientAltscreds && k != clientOther }

// deliver returns the failure in the form that this kind of client shows: a response with the status in it, or nil, and
// the error that ends the RPC. Without an outstanding request there is no response, since none may come unasked.
func (k clientKind) deliver(f *failure, id string, req *altspb.HandshakerReq) (*altspb.HandshakerResp, error) {
	code, text := f.rpc, f.message(id)
	if k == clientJava {
		switch code { // Java rewrites these
		case codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition, codes.Aborted, codes.OutOfRange:
			code = codes.Unknown
		}
	}
	err := withRefusal(status.New(code, text), f.refusal(id))
	if req == nil || k == clientGo || k == clientAltscreds || k == clientJava {
		return nil, err // Go hangs for 20 seconds on a status inside a response once it has begun
	}
	resp := &altspb.HandshakerResp{
		BytesConsumed: uint32(len(inBytes(req))),
		Status:        &altspb.HandshakerStatus{Code: uint32(code), Details: text},
	}
	if k == clientCore || k == clientEnvoy {
		err = nil // C-core shows only what is inside the response, and waits for the end of the RPC to show it
	}
	return resp, err
}

func inBytes(req *altspb.HandshakerReq) []byte {
	if s := req.GetServerStart(); s != nil {
		return s.GetInBytes()
	}
	return req.GetNext().GetInBytes()
}
