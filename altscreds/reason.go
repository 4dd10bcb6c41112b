package altscreds

import (
	"strings"

	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// A Reason is the name of a refusal code of docs/spec/protocol.md, section 3.2, such as ReasonUnknownCA, or a later one that
// this version has no constant for; "" if none was given.
type Reason string

// The reasons of docs/spec/protocol.md, section 3.2, and that of the local daemon alone.
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
	// ReasonDeniedByPolicy is that of the administrator's rules, this machine's or, if ByPeer, the other's.
	ReasonDeniedByPolicy Reason = "denied_by_policy"
	// ReasonDNSUnknown is of daemons that are newer than this package's.
	ReasonDNSUnknown Reason = "dns_unknown"
	// ReasonOwnCertificate is that of a daemon whose own certificate is not valid now: the other machine's if ByPeer.
	ReasonOwnCertificate Reason = "own_certificate"
	// ReasonBadRequest is the local daemon's for options that it cannot serve. It is never the peer's.
	ReasonBadRequest Reason = reason.BadRequestName
)

// maxReason is the most bytes that the name of a reason has.
const maxReason = 64

// reasonOf returns the reason of that name, whether this version knows it or not; "" if the name is not well formed, or
// is that of an end which is no refusal.
func reasonOf(name string) Reason {
	switch {
	case name == reason.PeerClosedName || name == reason.CancelledName:
		return ""
	case len(name) > maxReason || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz_0123456789") != "":
		return ""
	}
	return Reason(name)
}
