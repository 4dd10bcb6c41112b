package altscreds

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shared-altsd/shared-altsd/internal/localsock"
)

// What a failed handshake's error is, for errors.Is. Each such error is a *HandshakeError or a *NoDaemonError.
var (
	// ErrNoDaemon: the local daemon cannot be reached or may not be trusted; see NoDaemonError.
	ErrNoDaemon = errors.New("altscreds: no local daemon")
	// ErrRefused: this side refused: the local daemon by its policy, or because the peer is not one that it can verify
	// or that the options named.
	ErrRefused = errors.New("altscreds: refused by this side")
	// ErrPeerRejected: the other machine's daemon refused; HandshakeError.Reason tells why.
	ErrPeerRejected = errors.New("altscreds: rejected by the peer")
	// ErrTimeout: the handshake did not finish in time. Such an error is context.DeadlineExceeded and
	// os.ErrDeadlineExceeded as well, and a net.Error whose Timeout is true.
	ErrTimeout = errors.New("altscreds: handshake timed out")
	// ErrUnauthenticated: the peer does not speak ALTS and the server accepts nothing else.
	ErrUnauthenticated = errors.New("altscreds: the peer does not speak ALTS")
)

// A Reason is the name of a refusal code of docs/protocol.md, section 3.2, such as ReasonUnknownCA; "" if none was
// given.
type Reason string

// The reasons of docs/protocol.md, section 3.2.
const (
	ReasonUnsupportedVersion      Reason = "unsupported_version"
	ReasonMalformed               Reason = "malformed"
	ReasonDecryptionFailed        Reason = "decryption_failed"
	ReasonUnknownCA               Reason = "unknown_ca"
	ReasonCertificateExpired      Reason = "certificate_expired"
	ReasonCertificateNotYetValid  Reason = "certificate_not_yet_valid"
	ReasonCertificateRevoked      Reason = "certificate_revoked"
	ReasonRevocationUnknown       Reason = "revocation_unknown"
	ReasonCertificateUnacceptable Reason = "certificate_unacceptable"
	ReasonStatementInvalid        Reason = "statement_invalid"
	ReasonStatementExpired        Reason = "statement_expired"
	ReasonMachineNameMismatch     Reason = "machine_name_mismatch"
	ReasonAccountUnacceptable     Reason = "account_unacceptable"
	ReasonTargetMismatch          Reason = "target_mismatch"
	ReasonNoApplicationProtocol   Reason = "no_application_protocol"
	ReasonNoRecordProtocol        Reason = "no_record_protocol"
	ReasonNoRPCVersion            Reason = "no_rpc_version"
	ReasonBadChoice               Reason = "bad_choice"
	ReasonOverloaded              Reason = "overloaded"
	ReasonTimedOut                Reason = "timed_out"
	ReasonLocalAccount            Reason = "local_account"
	ReasonShuttingDown            Reason = "shutting_down"
	ReasonInternal                Reason = "internal"
)

// ReasonBadRequest is the local daemon's for options that it cannot serve. It is never the peer's.
const ReasonBadRequest Reason = "bad_request"

var reasons = []Reason{
	ReasonUnsupportedVersion, ReasonMalformed, ReasonDecryptionFailed, ReasonUnknownCA, ReasonCertificateExpired,
	ReasonCertificateNotYetValid, ReasonCertificateRevoked, ReasonRevocationUnknown, ReasonCertificateUnacceptable,
	ReasonStatementInvalid, ReasonStatementExpired, ReasonMachineNameMismatch, ReasonAccountUnacceptable,
	ReasonTargetMismatch, ReasonNoApplicationProtocol, ReasonNoRecordProtocol, ReasonNoRPCVersion, ReasonBadChoice,
	ReasonOverloaded, ReasonTimedOut, ReasonLocalAccount, ReasonShuttingDown, ReasonInternal, ReasonBadRequest,
}

// A HandshakeError tells why a handshake failed.
type HandshakeError struct {
	// Reason is the refusal's code, "" if the failure has none.
	Reason Reason
	// ByPeer is true if the other machine's daemon refused.
	ByPeer bool
	// Text is the cause and, where there is one, the cure, in words.
	Text string
	// Err is the cause, if there is one.
	Err error
}

// Error gives the text.
func (e *HandshakeError) Error() string { return "altscreds: handshake: " + e.Text }

// Unwrap gives the cause.
func (e *HandshakeError) Unwrap() error { return e.Err }

// Is tells ErrRefused, ErrPeerRejected and the names of a timeout.
func (e *HandshakeError) Is(target error) bool {
	switch target {
	case ErrPeerRejected:
		return e.ByPeer
	case ErrRefused:
		return e.Reason != "" && !e.ByPeer && !e.Timeout()
	case ErrTimeout, context.DeadlineExceeded, os.ErrDeadlineExceeded:
		return e.Timeout()
	}
	return false
}

// Timeout is true if time ran out on this side. With Temporary it makes the error a net.Error.
func (e *HandshakeError) Timeout() bool {
	return e.Err == ErrTimeout || isTimeout(e.Err) || e.Reason == ReasonTimedOut && !e.ByPeer
}

// Temporary is true if a new connection may succeed with nothing changed.
func (e *HandshakeError) Temporary() bool {
	switch e.Reason {
	case "", ReasonOverloaded, ReasonTimedOut, ReasonShuttingDown:
		return true
	}
	return false
}

// A NoDaemonError tells why the local daemon could not be used. errors.Is(err, ErrNoDaemon) is true of it.
type NoDaemonError struct {
	// Socket is the path that was tried.
	Socket string
	// Err is the cause.
	Err error
}

// Error names the socket, the cause and what to do.
func (e *NoDaemonError) Error() string {
	cure := "start shared-altsd, or name its socket in the options or in " + SocketVariable
	var untrusted *localsock.UntrustedError
	switch {
	case errors.As(e.Err, &untrusted) && untrusted.Overflow():
		return fmt.Sprintf("altscreds: the local daemon at %s: %v", e.Socket, e.Err)
	case errors.As(e.Err, &untrusted):
		cure = "set DaemonUID in the options if this is the right daemon"
	case errors.Is(e.Err, os.ErrPermission):
		cure = "this account may not open the socket; ask the administrator of the machine"
	}
	return fmt.Sprintf("altscreds: the local daemon at %s: %v; %s", e.Socket, e.Err, cure)
}

// Unwrap gives the cause.
func (e *NoDaemonError) Unwrap() error { return e.Err }

// Is tells ErrNoDaemon.
func (e *NoDaemonError) Is(target error) bool { return target == ErrNoDaemon }

// A refusal's text begins with who refused and ends with the code's name in parentheses, after which only a detail of
// the peer's or the handshake's ID may follow.
var (
	refusedByPeer = regexp.MustCompile(`^(shared-altsd: )?the peer's daemon refused: `)
	reasonInText  = regexp.MustCompile(`\(([a-z_]+)\)`)
)

// refusal makes the error of what the daemon says.
func refusal(text string, err error) *HandshakeError {
	e := &HandshakeError{Text: text, Err: err, ByPeer: refusedByPeer.MatchString(text)}
	// The last name that is a code counts: the cause before it may hold parentheses of its own.
	for _, m := range slices.Backward(reasonInText.FindAllStringSubmatch(text, -1)) {
		if r := Reason(m[1]); slices.Contains(reasons, r) {
			e.Reason = r
			break
		}
	}
	return e
}

// rpcError makes the error of a failed call to the daemon.
func rpcError(socket string, err error) error {
	st := status.Convert(err)
	e := refusal(st.Message(), err)
	switch {
	case e.Reason != "" || e.ByPeer:
		return e
	case st.Code() == codes.DeadlineExceeded:
		// The daemon has the deadline, too, and may see it pass a moment before we do.
		return &HandshakeError{Text: "not finished in time, while waiting for the local daemon or the peer", Err: ErrTimeout}
	case st.Code() == codes.Unavailable:
		return &NoDaemonError{Socket: socket, Err: errors.New(st.Message())}
	}
	e.Text = fmt.Sprintf("the local daemon at %s failed: %s (gRPC code %s)", socket, st.Message(), st.Code())
	return e
}

// timeoutError is for a handshake that was ended by its deadline after d; doing is what it waited for.
func timeoutError(d time.Duration, doing string) error {
	return &HandshakeError{
		Text: fmt.Sprintf("not finished after %s, while waiting for %s", d.Round(time.Millisecond), doing),
		Err:  ErrTimeout,
	}
}
