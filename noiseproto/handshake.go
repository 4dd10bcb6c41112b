package noiseproto

// The state machine of both roles. What each does with a frame is in initiator.go and responder.go.

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"

	"github.com/flynn/noise"
	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/mlkem768"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// A state is a row of the tables in docs/spec/protocol.md, sections 7.1 and 7.2.
type state uint8

const (
	stateStart      state = iota // initiator, before message 1
	stateWait1                   // responder
	stateWait2                   // initiator
	stateWait3                   // responder; the psk is set
	stateWaitStatus              // initiator
	stateDone
	stateFailed
)

// expects returns the one frame, besides a status, that may come.
func (s state) expects() frameType {
	return [...]frameType{stateWait1: frameMessage1, stateWait2: frameMessage2, stateWait3: frameMessage3,
		stateWaitStatus: frameStatus}[s]
}

// A Handshake is one handshake in either role. It is not safe for concurrent use. It is made by New and must be ended
// by Close, which does no harm more than once.
type Handshake struct {
	initiator  bool
	verifier   Verifier
	authorize  func(*certbind.Peer) error
	permit     func(*certbind.Peer, string) error
	params     Params
	offer      []byte // responder: params, encoded
	minVersion byte
	version    byte // of our frames
	source     keySource

	state  state
	refuse error // a responder's answer to message 1, whatever that holds
	err    error // why, in stateFailed
	reader frameReader
	id     string

	static        *certbind.Attestation
	noise         *noise.HandshakeState
	dh            *dh25519
	decapsulation *mlkem768.DecapsulationKey // initiator, until message 2
	pending       *Result                    // initiator, until the status
	result        *Result
	unresolved    *certbind.Unresolved   // while the verifier needs an answer
	resume        func() ([]byte, error) // goes on with it
	sent          int
	received      int
}

// New prepares a handshake. An error is a *reason.Error that says what the local application or administrator must
// change.
func New(c Config) (*Handshake, error) {
	if c.Keys == nil {
		c.Keys = FreshKeys{}
	}
	return newHandshake(c, systemRandom{c.Keys})
}

func newHandshake(c Config, source keySource) (*Handshake, error) {
	h := &Handshake{
		initiator: c.Initiator, verifier: c.Verifier, authorize: c.Authorize, permit: c.Permit, static: c.Static,
		source: source, minVersion: max(c.MinVersion, lowestVersion), version: highestVersion, state: stateWait1,
	}
	if c.Initiator {
		h.state = stateStart
	}
	if err := h.prepare(c.Params); err != nil {
		h.wipe()
		return nil, err
	}
	return h, nil
}

// NewRefusal prepares a responder that has nothing to say for itself, so that it refuses whatever message 1 comes: see
// Refuse.
func NewRefusal(c reason.Code) *Handshake {
	h := &Handshake{minVersion: lowestVersion, version: highestVersion, state: stateWait1}
	h.Refuse(c)
	return h
}

// Refuse has a responder refuse message 1, when it is whole, with code c, without reading it: by then the handshake has its
// ID, by which both machines' logs name it.
func (h *Handshake) Refuse(c reason.Code) {
	h.refuse = reason.Errorf(c, "the handshake was refused by this daemon: %s", c)
}

// prepare checks everything that is known before the peer has said anything.
func (h *Handshake) prepare(p Params) (err error) {
	switch {
	case h.verifier == nil:
		return reason.Errorf(reason.Internal, "a handshake needs a verifier")
	case h.static == nil || subtle.ConstantTimeCompare(h.static.Private[:], make([]byte, keySize)) == 1:
		return reason.Errorf(reason.Internal, "a handshake needs an attestation of its own that was not wiped")
	case len(h.static.Identity) < 1 || len(h.static.Identity) > maxIdentitySize:
		return reason.Errorf(reason.Internal,
			"this machine's identity has %d bytes, it must have 1 to %d; shorten its certificate chain",
			len(h.static.Identity), maxIdentitySize)
	case h.minVersion > highestVersion:
		return reason.Errorf(reason.Internal,
			"the least version demanded is %d, but this daemon serves only %s; lower the demand",
			h.minVersion, versions(lowestVersion, highestVersion))
	}
	if h.params, err = p.local(); err != nil || h.initiator {
		return err // an initiator's choice has 236 bytes at most
	}
	if h.offer, err = marshalOffer(h.params); err != nil {
		return err
	}
	if len(h.offer) > maxNegotiateSize {
		return reason.Errorf(reason.LocalAccount, "the names of the application's protocols need %d bytes, they may have %d",
			len(h.offer), maxNegotiateSize)
	}
	if n := message2Overhead + mlkem768.CiphertextSize + 2 + len(h.static.Identity) + 2 + len(h.offer); n > messageMax {
		return reason.Errorf(reason.LocalAccount,
			"identity and offer make message 2 %d bytes long, it may have %d; shorten the "+
				"machine's certificate chain or the list of protocols", n, messageMax)
	}
	return nil
}

// Start returns the initiator's first frame, message 1, to be sent. A responder has nothing to say first: nil. A second
// call is an error.
func (h *Handshake) Start() ([]byte, error) {
	if !h.initiator && h.state != stateFailed {
		return nil, nil
	}
	if h.state != stateStart {
		_, err := h.fail(reason.Errorf(reason.Internal, "the handshake was started twice"))
		return nil, err
	}
	out, err := h.writeMessage1()
	if err != nil {
		_, err = h.fail(err)
		return nil, err
	}
	return out, nil
}

// Feed takes bytes from the peer in any segmentation. consumed says how many of in belong to the handshake: all,
// unless it ends inside in; what is left then belongs to the record protocol. out holds frames to send; with an error
// it holds at most one status frame for the peer, which the caller may send or not. After Feed, Done reports whether
// there is a result, and Unresolved whether the handshake is to be resumed before the rest of in is fed. Any error is
// final, is a *reason.Error, and comes again from each later call. Feed keeps nothing of in.
func (h *Handshake) Feed(in []byte) (consumed int, out []byte, err error) {
	if h.state == stateStart {
		out, err = h.fail(reason.Errorf(reason.Internal, "bytes of the peer's came before the handshake was started"))
		return 0, out, err
	}
	if h.unresolved != nil {
		out, err = h.fail(reason.Errorf(reason.Internal, "bytes of the peer's were fed to a handshake that was to be resumed"))
		return 0, out, err
	}
	for consumed < len(in) && h.state < stateDone && h.unresolved == nil {
		n, body, whole, err := h.reader.read(in[consumed:], h.checkHeader)
		consumed += n
		h.received += n
		var reply []byte
		if err == nil && whole {
			reply, err = h.take(body)
		}
		if err != nil {
			out, err = h.fail(err)
			return consumed, out, err
		}
		if reply != nil {
			out = reply // never the second: a peer cannot write message 3 before message 2 was sent
		}
	}
	if h.state == stateFailed {
		return 0, nil, h.err
	}
	return consumed, out, nil
}

// Completes reports whether in brings what is left of a responder's message 1, so that Feed will do the work of it, and
// not take in a part or refuse what is no message 1 by its first bytes.
func (h *Handshake) Completes(in []byte) bool {
	if h.state != stateWait1 || h.received+len(in) < headerSize+message1Size {
		return false
	}
	return h.received > 0 || bytes.HasPrefix(in, []byte(magic))
}

// Want returns how many bytes complete the header, or the body behind it, that is being read; 0 if nothing is awaited.
// Who reads no more than that from a connection before each Feed takes no byte that belongs to the record protocol.
func (h *Handshake) Want() int {
	if h.state == stateStart || h.state >= stateDone || h.unresolved != nil {
		return 0
	}
	return h.reader.want()
}

// Done reports whether the result is there.
func (h *Handshake) Done() bool { return h.state == stateDone }

// Result returns the result, nil before Done and after Close.
func (h *Handshake) Result() *Result { return h.result }

// ID returns 16 hexadecimal digits that are the same on both sides, for logs; empty before message 1. docs/spec/protocol.md,
// section 7.4.
func (h *Handshake) ID() string { return h.id }

// Abort ends the handshake for a reason of the caller's, such as a deadline, and wipes it. It returns the status frame
// that tells the peer; nil if nothing was said yet, or if the handshake has ended already, in either way, so that
// nothing reaches a record layer or a peer that speaks something else.
func (h *Handshake) Abort(c reason.Code) []byte {
	if h.state == stateStart || h.state >= stateDone {
		h.Close()
		return nil
	}
	out, _ := h.fail(reason.Errorf(c, "the handshake was ended by this daemon: %s", c))
	return out
}

// Close drops the handshake and wipes its keys. A Result that was given out stays.
func (h *Handshake) Close() {
	if h.state != stateFailed {
		_, _ = h.fail(reason.Errorf(reason.Internal, "the handshake was closed"))
	}
}

// fail makes err final: it drops the Noise state, wipes the keys and returns the status frame for the peer, nil for one
// that refused us first or does not speak this protocol.
func (h *Handshake) fail(err error) (out []byte, final error) {
	if h.state == stateFailed {
		return nil, h.err
	}
	if none, ok := err.(*reason.Error); ok && none == nil { // a nil pointer in an interface, by a slip of a callback's
		err = errors.New("a check failed without saying why")
	}
	var e *reason.Error
	if f := (*foreignError)(nil); errors.As(err, &f) {
		e = foreign(f, h.initiator)
	} else if !errors.As(err, &e) || e.Code == reason.Accepted {
		e = reason.Errorf(reason.Internal, "%w", err)
	}
	h.state, h.err, h.result = stateFailed, e, nil
	h.wipe()
	switch {
	case e.ByPeer || errors.Is(e, ErrForeign):
		return nil, e
	case e.Code == reason.UnsupportedVersion:
		return appendStatus(nil, e.Code, highestVersion, h.minVersion), e
	}
	return appendStatus(nil, e.Code, h.version, h.minVersion), e
}

// checkHeader judges a header before anything of its body is stored: version, type, length, in this order.
func (h *Handshake) checkHeader(f header) error {
	if f.typ != frameStatus { // a status is the same in all versions, and ends the handshake wherever it comes
		if err := h.checkVersion(f.version); err != nil {
			return err
		}
		if want := h.state.expects(); f.typ != want {
			return reason.Errorf(reason.Malformed, "the peer sent a %s where a %s must come", f.typ, want)
		}
	}
	if lo, hi := f.typ.bounds(); f.length < lo || f.length > hi {
		return reason.Errorf(reason.Malformed, "the peer sent a %s of %d bytes, it must have %d to %d", f.typ, f.length, lo,
			hi)
	}
	return nil
}

// checkVersion settles the version by the first frame that a responder sees, and keeps to it from then on.
func (h *Handshake) checkVersion(v byte) error {
	switch {
	case h.state == stateWait1 && v >= h.minVersion && v <= highestVersion:
		h.version = v
	case h.state == stateWait1:
		return reason.Errorf(reason.UnsupportedVersion,
			"the peer speaks version %d of the protocol, this daemon serves %s; upgrade the older of the two machines",
			v, versions(h.minVersion, highestVersion))
	case v != h.version:
		return reason.Errorf(reason.UnsupportedVersion,
			"the peer answered in version %d of the protocol, version %d was begun", v, h.version)
	}
	return nil
}

// take does what the tables of docs/spec/protocol.md, sections 7.1 and 7.2, say for a whole frame, and returns the answer.
func (h *Handshake) take(body []byte) (reply []byte, err error) {
	if h.reader.hdr.typ == frameStatus {
		return nil, h.takeStatus(body)
	}
	switch h.state {
	case stateWait1:
		return h.takeMessage1(body)
	case stateWait2:
		return h.takeMessage2(body)
	default: // checkHeader lets no other frame through
		return h.takeMessage3(body)
	}
}

// mayTalk asks whether the two may talk by the protocol that they chose.
func (h *Handshake) mayTalk(p *certbind.Peer, c choice) error {
	if h.permit == nil {
		return nil
	}
	return h.permit(p, c.application)
}

// setPSK hands the ML-KEM shared secret to Noise, which copies it, and wipes it.
func (h *Handshake) setPSK(secret []byte) error {
	defer clear(secret)
	return h.noise.SetPresharedKey(secret)
}

// newFrame returns a header of type t with room for the body of n bytes, and counts the frame as sent.
func (h *Handshake) newFrame(t frameType, n int) []byte {
	frame := make([]byte, headerSize, headerSize+n)
	putHeader(frame, h.version, t, n)
	h.sent += headerSize + n
	return frame
}

func newResult(p *certbind.Peer, keyData [64]byte, c choice, rpc RPCVersions, maxFrame uint32) *Result {
	return &Result{
		Peer: p, KeyData: keyData,
		ApplicationProtocol: c.application, RecordProtocol: c.record, TransportProtocol: c.transport,
		PeerRPCVersions: rpc, PeerMaxFrameSize: maxFrame,
	}
}

// finish hands out the result and wipes everything else.
func (h *Handshake) finish(r *Result) {
	r.Sent, r.Received = h.sent, h.received
	h.state, h.result = stateDone, r
	h.wipe()
}

// endNoise wipes what an initiator no longer needs once message 3 is written.
func (h *Handshake) endNoise() {
	pending := h.pending
	h.wipe()
	h.pending = pending
}

// undecipherable is the refusal of a Noise message that does not authenticate or holds a key of low order.
func undecipherable(message int, err error) error {
	if e := (*reason.Error)(nil); errors.As(err, &e) {
		return e // says already which key it is
	}
	return reason.Errorf(reason.DecryptionFailed,
		"message %d of the peer's does not decrypt; something between the two machines "+
			"changes bytes or joins connections: %w", message, err)
}

// handshakeID returns the first 8 bytes, in hexadecimal, of the SHA-256 of the first frame.
func handshakeID(header, body []byte) string {
	s := sha256.New()
	s.Write(header)
	s.Write(body)
	return hex.EncodeToString(s.Sum(nil)[:8])
}
