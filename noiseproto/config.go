package noiseproto

import "github.com/shared-altsd/shared-altsd/certbind"

// A Verifier proves whom a static key speaks for: *certbind.Machine.
type Verifier interface {
	// Verify does docs/spec/protocol.md, section 5.5. static is the peer's key as Noise authenticated it. Its errors are
	// *reason.Error; any other error counts as reason.Internal. A *certbind.Unresolved has the handshake wait
	// (Handshake.Unresolved), and Verify is asked again when it is resumed.
	Verify(identity []byte, static [32]byte) (*certbind.Peer, error)
}

// Config is what a Handshake needs to know.
type Config struct {
	// Initiator is true for the side that dialled.
	Initiator bool
	// Static is the static key pair and the identity that vouches for it. New takes it over, also when it fails: it must
	// be used for one handshake only, and is wiped when that ends.
	Static *certbind.Attestation
	// Verifier judges the peer's identity.
	Verifier Verifier
	// Authorize is asked once the peer has been verified, by an initiator before message 3 is written, by a responder
	// before status 0 is. Its errors are *reason.Error; any other error counts as reason.Internal. nil: anyone.
	Authorize func(*certbind.Peer) error
	// Permit is asked last, at the same time of each side, when the choice is known as well: the application protocol is
	// that which the two agreed on. Its errors are as those of Authorize. nil: anyone.
	Permit func(peer *certbind.Peer, applicationProtocol string) error
	// Params is what the local application offers or prefers.
	Params Params
	// MinVersion is the least version of the protocol that the administrator accepts; 0 means 1.
	MinVersion byte
	// Keys makes the handshake's own key pairs; nil: FreshKeys.
	Keys Keys
}

// Result is what both sides agree on in the end. It belongs to the caller.
type Result struct {
	// Peer is whom the verifier proved.
	Peer *certbind.Peer
	// KeyData is k1 || k2 of Noise's Split, initiator-to-responder first; the same on both sides.
	KeyData [64]byte
	// ApplicationProtocol, RecordProtocol and TransportProtocol were chosen; the last is empty if none is in common.
	ApplicationProtocol, RecordProtocol, TransportProtocol string
	// PeerRPCVersions and PeerMaxFrameSize (bytes, 0 if the peer named none) are the peer's, as they came.
	PeerRPCVersions  RPCVersions
	PeerMaxFrameSize uint32
	// Sent and Received are bytes on the wire in each direction, headers included.
	Sent, Received int
}

// Wipe overwrites the key data.
func (r *Result) Wipe() { clear(r.KeyData[:]) }
