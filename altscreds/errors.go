package altscreds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/localsock"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// What a failed handshake's error is, for errors.Is. Each such error is a *HandshakeError or a *NoDaemonError.
var (
	// ErrNoDaemon: the local daemon cannot be reached or may not be trusted; see NoDaemonError.
	ErrNoDaemon = errors.New("altscreds: no local daemon")
	// ErrRefused: this side refused: the local daemon by its policy, or because the peer is not one that it can verify
	// or that the options named.
	ErrRefused = errors.New("altscreds: refused by this side")
	// ErrPeerRejected: the other machine's daemon refused; HandshakeError.Reason has the cause.
	ErrPeerRejected = errors.New("altscreds: rejected by the peer")
	// ErrTimeout: the handshake did not finish in time. Such an error is context.DeadlineExceeded and
	// os.ErrDeadlineExceeded as well, and a net.Error whose Timeout is true.
	ErrTimeout = errors.New("altscreds: handshake timed out")
	// ErrUnauthenticated: the peer does not speak ALTS and the server accepts nothing else.
	ErrUnauthenticated = errors.New("altscreds: the peer does not speak ALTS")
)

// A HandshakeError is why a handshake failed.
type HandshakeError struct {
	// Reason is the refusal's code, "" if the failure has none.
	Reason Reason
	// ByPeer is true if the other machine's daemon refused.
	ByPeer bool
	// HandshakeID is the ID under which both daemons log the handshake, "" if it has none yet.
	HandshakeID string
	// Text is the cause and, where there is one, the cure, in words.
	Text string
	// Err is the cause, if there is one.
	Err error
}

// Error returns the text.
func (e *HandshakeError) Error() string { return "altscreds: handshake: " + e.Text }

// Unwrap returns the cause.
func (e *HandshakeError) Unwrap() error { return e.Err }

// Is reports whether target is ErrRefused, ErrPeerRejected or a name of a timeout that this error is.
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

// Timeout reports whether time ran out on this side. With Temporary it makes the error a net.Error.
func (e *HandshakeError) Timeout() bool {
	return e.Err == ErrTimeout || isTimeout(e.Err) || e.Reason == ReasonTimedOut && !e.ByPeer
}

// Temporary reports whether a new connection may succeed with nothing changed.
func (e *HandshakeError) Temporary() bool {
	switch e.Reason {
	case "", ReasonOverloaded, ReasonTimedOut, ReasonShuttingDown:
		return true
	}
	return false
}

// An EndedError is why a connection that stood was closed: the local daemon would refuse it now, by its policy, by a
// revocation list, or because a certificate or a CA has ended. Read and Write return it, and gRPC ends the channel's
// connection with its text in the status of the calls under way.
type EndedError struct {
	// Reason is the refusal's code.
	Reason Reason
	// Text is the cause and, where there is one, the cure, in words.
	Text string
	// HandshakeID is the ID under which both daemons have logged the connection's handshake.
	HandshakeID string
}

// Error returns the text.
func (e *EndedError) Error() string { return "altscreds: the connection was ended: " + e.Text }

// A NoDaemonError is why the local daemon could not be used. errors.Is(err, ErrNoDaemon) is true of it.
type NoDaemonError struct {
	// Socket is the path that was tried.
	Socket string
	// Err is the cause.
	Err error
}

// Error returns a text with the socket, the cause and the cure.
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

// Unwrap returns the cause.
func (e *NoDaemonError) Unwrap() error { return e.Err }

// Is reports whether target is ErrNoDaemon.
func (e *NoDaemonError) Is(target error) bool { return target == ErrNoDaemon }

// refusalError makes the error of a handshake that the daemon ended, in its words. Err is the same as a gRPC status.
func refusalError(r *altspb.Refusal, text string, err error) *HandshakeError {
	e := &HandshakeError{Reason: reasonOf(r.GetReason()), ByPeer: r.GetByPeer(), Text: text, Err: err}
	if r.GetReason() == reason.PeerClosedName {
		e = readError(io.EOF) // as if we had seen it ourselves
	}
	e.HandshakeID = r.GetHandshakeId()
	return e
}

// rpcError makes the error of a failed call to the daemon.
func rpcError(socket string, err error) error {
	st := status.Convert(err)
	for _, detail := range st.Details() {
		if r, ok := detail.(*altspb.Refusal); ok {
			return refusalError(r, st.Message(), err)
		}
	}
	switch st.Code() {
	case codes.DeadlineExceeded:
		// The daemon has the deadline, too, and may see it pass a moment before we do.
		return &HandshakeError{Text: "not finished in time, while waiting for the local daemon or the peer", Err: ErrTimeout}
	case codes.Unavailable:
		return &NoDaemonError{Socket: socket, Err: errors.New(st.Message())}
	}
	return unexplainedError(socket, err)
}

// unexplainedError makes the error of what a handshaker says that is not of our kind: it has a text, and no reason.
func unexplainedError(socket string, err error) *HandshakeError {
	st := status.Convert(err)
	return &HandshakeError{
		Text: fmt.Sprintf("the local daemon at %s failed: %s (gRPC code %s)", socket, st.Message(), st.Code()),
		Err:  err,
	}
}

// explained reports whether err is what our daemon says of the handshake.
func explained(err error) bool {
	e, ok := errors.AsType[*HandshakeError](err)
	return ok && (e.Reason != "" || e.ByPeer || e.HandshakeID != "")
}

// stopping reports whether the local daemon refused because it is being stopped: it does so only before anything was
// said to the peer.
func stopping(err error) bool {
	e, ok := errors.AsType[*HandshakeError](err)
	return ok && e.Reason == ReasonShuttingDown && !e.ByPeer
}

// readError is for a failed read of the peer's bytes.
func readError(err error) *HandshakeError {
	if err == io.EOF {
		return &HandshakeError{
			Text: "the peer closed the connection during the handshake: it does not speak ALTS, it refused (the log of " +
				"its daemon says why), or it stopped",
			Err: io.ErrUnexpectedEOF,
		}
	}
	return &HandshakeError{Text: "reading from the peer: " + err.Error(), Err: err}
}

// daemonFault is for a daemon that breaks the protocol.
func daemonFault(format string, args ...any) error {
	return &HandshakeError{Reason: ReasonInternal, Text: "the local daemon is faulty: " + fmt.Sprintf(format, args...)}
}

// endedError is for a handshake that ctx ended; err is what it then returned.
func endedError(ctx context.Context, started time.Time, err error) error {
	cause := context.Cause(ctx)
	if !isTimeout(cause) { // context.DeadlineExceeded and os.ErrDeadlineExceeded are
		return &HandshakeError{Text: "given up: " + cause.Error(), Err: cause}
	}
	waiting := "the peer"
	if noDaemon, ok := errors.AsType[*NoDaemonError](err); ok {
		waiting = "the local daemon: " + noDaemon.Error()
	}
	return &HandshakeError{
		Text: fmt.Sprintf("not finished after %s, while waiting for %s", time.Since(started).Round(time.Millisecond),
			waiting),
		Err: ErrTimeout,
	}
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}
