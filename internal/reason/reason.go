// Package reason names why a handshake is refused: one list for the wire, the logs, the metrics and the errors.
package reason

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A Code is a status code of the inter-daemon protocol (docs/spec/protocol.md, section 3.2), 2 bytes on the wire.
type Code uint16

// The codes, in the order of docs/spec/protocol.md, section 3.2.
const (
	Accepted Code = iota
	UnsupportedVersion
	Malformed
	DecryptionFailed
	UnknownCA
	CertificateExpired
	CertificateNotYetValid
	CertificateRevoked
	RevocationUnknown
	CertificateUnacceptable
	StatementInvalid
	StatementExpired
	MachineNameMismatch
	AccountUnacceptable
	TargetMismatch
	NoApplicationProtocol
	NoRecordProtocol
	NoRPCVersion
	BadChoice
	Overloaded
	TimedOut
	LocalAccount
	ShuttingDown
	Internal
	DeniedByPolicy
	DNSUnknown
	OwnCertificate
	numCodes
)

// The names of ends and refusals that have no code on the wire, beside the names of the codes wherever those stand.
const (
	BadRequestName = "bad_request" // the local application broke the handshaker protocol, or asked for what is not offered
	PeerClosedName = "peer_closed" // the application saw the connection to the peer end
	CancelledName  = "cancelled"   // the application gave up
)

// texts holds, for each code, its name and what it means to the side that was refused, as the end of "the peer refused:
// ...".
var texts = [numCodes]struct{ name, meaning string }{
	Accepted:                {"accepted", "nothing was wrong"},
	UnsupportedVersion:      {"unsupported_version", "it does not serve this version of the protocol"},
	Malformed:               {"malformed", "it received a message that breaks the protocol"},
	DecryptionFailed:        {"decryption_failed", "a message did not decrypt, so something between the two daemons changes bytes"},
	UnknownCA:               {"unknown_ca", "it trusts no CA that vouches for the certificate of this machine under this name"},
	CertificateExpired:      {"certificate_expired", "the certificate of this machine, or one that issued it, has expired"},
	CertificateNotYetValid:  {"certificate_not_yet_valid", "the certificate of this machine, or one that issued it, is not yet valid (check both clocks)"},
	CertificateRevoked:      {"certificate_revoked", "the certificate of this machine, or one that issued it, is revoked"},
	RevocationUnknown:       {"revocation_unknown", "its certificate revocation list is out of date, or not for it"},
	CertificateUnacceptable: {"certificate_unacceptable", "the certificate of this machine has a key, a key usage or an extended key usage that it does not accept"},
	StatementInvalid:        {"statement_invalid", "the signed statement for this account did not verify"},
	StatementExpired:        {"statement_expired", "the signed statement for this account is not valid now (check both clocks)"},
	MachineNameMismatch:     {"machine_name_mismatch", "the name of this machine is not one that its certificate proves"},
	AccountUnacceptable:     {"account_unacceptable", "it does not accept the name of this account"},
	TargetMismatch:          {"target_mismatch", "this is not the account or machine that its application asked for"},
	NoApplicationProtocol:   {"no_application_protocol", "the two applications have no application protocol in common"},
	NoRecordProtocol:        {"no_record_protocol", "the two applications have no record protocol in common"},
	NoRPCVersion:            {"no_rpc_version", "the two applications have no RPC protocol version in common"},
	BadChoice:               {"bad_choice", "something was chosen that it had not offered"},
	Overloaded:              {"overloaded", "it has too many handshakes under way for that account; try again"},
	TimedOut:                {"timed_out", "the handshake did not finish in time"},
	LocalAccount:            {"local_account", "its own application may not take part (see the log of the daemon there)"},
	ShuttingDown:            {"shutting_down", "its daemon is stopping; try again"},
	Internal:                {"internal", "it has a fault of its own that the log of the daemon there describes"},
	DeniedByPolicy:          {"denied_by_policy", "the rules of its administrator deny it"},
	DNSUnknown:              {"dns_unknown", "it could not find out what DNS says of the certificate of this machine"},
	OwnCertificate:          {"own_certificate", "its own certificate has expired or is not yet valid; renew it, or set the clock, there"},
}

// Fold returns the name under which something is counted whose reason has the given name: "unknown" for all the codes
// that this version does not know, which are a peer's free choice, else the name itself.
func Fold(name string) string {
	if number, ok := strings.CutPrefix(name, "unknown_"); ok {
		if _, err := strconv.ParseUint(number, 10, 16); err == nil {
			return "unknown"
		}
	}
	return name
}

// Known reports whether c is a code of version 1.
func (c Code) Known() bool { return c < numCodes }

// String returns the name of the code as docs/spec/protocol.md has it, or "unknown_N".
func (c Code) String() string {
	if !c.Known() {
		return fmt.Sprintf("unknown_%d", uint16(c))
	}
	return texts[c].name
}

// Meaning returns in words what the refusing side means, for the side that was refused.
func (c Code) Meaning() string {
	if !c.Known() {
		return "for a reason that this version does not know"
	}
	return texts[c].meaning
}

// An Error is a refusal: a code for the peer and a sentence for our own side's log and application.
type Error struct {
	// Code is what the peer is told.
	Code Code
	// Detail is one clause that names the cause and, where there is one, the cure. It holds no key material and no raw
	// text of the peer's.
	Detail string
	// ByPeer is true if the other machine's daemon refused and we only report it.
	ByPeer bool
	// Err is the cause, if there is one.
	Err error
}

// Errorf makes an Error of the code; %w in the format keeps the cause.
func Errorf(c Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: c, Detail: err.Error(), Err: errors.Unwrap(err)}
}

// Error returns the detail, or the meaning of the peer's code, followed by the code's name in parentheses.
func (e *Error) Error() string {
	if e.ByPeer {
		s := fmt.Sprintf("the peer's daemon refused: %s (%s)", e.Code.Meaning(), e.Code)
		if e.Detail != "" {
			s += ": " + e.Detail
		}
		return s
	}
	return fmt.Sprintf("%s (%s)", e.Detail, e.Code)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Of returns the code of the first Error in err's chain, or Internal if there is none; Accepted if err is nil.
func Of(err error) Code {
	if err == nil {
		return Accepted
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Internal
}
