"""Section 7: both state machines, bytes in and bytes out. All randomness comes from one injectable function.

The order in which the initiator draws: X25519 ephemeral (32), ML-KEM d (32), z (32). The responder: ML-KEM m (32),
X25519 ephemeral (32).
"""

import hashlib
import os
import time

from . import mlkem
from .frames import (ACCEPTED, DECRYPTION_FAILED, MALFORMED, MESSAGE_1, MESSAGE_2, MESSAGE_3, STATUS, TARGET_MISMATCH,
                     VERSION, FrameReader, PeerRefused, Refusal, Status, frame)
from .identity import verify
from .negotiate import Choice, Offer, check_choice, choose
from .noise import HandshakeState, KeyPair, NoiseError
from .wire import Reader, WireError, opaque16

PROLOGUE = b"shared-altsd" + bytes([VERSION])
MAX_IDENTITY = 21504
MAX_NEGOTIATION = 2048


class Config:
    """What one side brings. `identity` is a function of the static public key, or the bytes themselves."""

    def __init__(self, static, identity, trust, negotiation=None, target=None, now=None, random=os.urandom):
        self.static, self.identity, self.trust = static, identity, trust
        self.negotiation = negotiation or Offer()
        self.target = target or (lambda peer: True)
        self.now = now or time.time
        self.random = random

    def identity_bytes(self):
        return self.identity(self.static.public) if callable(self.identity) else self.identity


class Result:
    def __init__(self, peer, key_data, choice, peer_frame_size, peer_rpc, handshake_id, initiator):
        self.peer, self.key_data, self.choice = peer, key_data, choice
        self.peer_frame_size, self.peer_rpc = peer_frame_size, peer_rpc
        self.handshake_id, self.initiator = handshake_id, initiator

    def as_json(self):
        return {
            "ok": True,
            "role": "initiator" if self.initiator else "responder",
            "peer_identity": self.peer.name,
            "peer_account": self.peer.account,
            "peer_machine": self.peer.machine,
            "peer_attributes": dict(self.peer.attributes),
            "application_protocol": self.choice.application,
            "record_protocol": self.choice.record,
            "transport_protocol": self.choice.transport,
            "peer_rpc_versions": self.peer_rpc.as_json(),
            "peer_max_frame_size": self.peer_frame_size,
            "key_data_sha256": hashlib.sha256(self.key_data).hexdigest(),
            "handshake_id": self.handshake_id,
        }


def handshake_id(first_frame):
    return hashlib.sha256(first_frame).digest()[:8].hex()


def parse_envelope(data, second):
    """Payload of message 3, and of message 2 after its ciphertext: identity and offer or choice."""
    r = Reader(data)
    try:
        identity = r.opaque16(1, MAX_IDENTITY, "the identity")
        other = r.opaque16(1, MAX_NEGOTIATION, second)
        r.end()
    except WireError as err:
        raise Refusal(MALFORMED, "payload: %s" % err) from err
    return identity, other


class _Machine:
    initiator = None

    def __init__(self, config, trace=None):
        self.config = config
        self.reader = FrameReader()
        self.state = "start"
        self.result = None
        self.error = None
        self.trace = trace
        self.noise = HandshakeState(self.initiator, config.static, PROLOGUE, random=config.random, trace=trace)
        self.id = None
        self.expected = None

    @property
    def done(self):
        return self.state in ("done", "failed")

    @property
    def rest(self):
        """Bytes after the last frame of the handshake: they belong to the record protocol."""
        return self.reader.rest

    def fail(self, error):
        """Ends the handshake; returns the bytes that tell the peer why, if any."""
        self.state, self.error, self.noise = "failed", error, None
        if isinstance(error, Refusal) and error.answer:
            return Status(error.code).frame()
        return b""

    def feed(self, data):
        """Takes bytes of the peer, in any segmentation; returns bytes to send."""
        if self.done:
            self.reader.feed(data)
            return b""
        self.reader.feed(data)
        out = b""
        try:
            while not self.done:
                got = self.reader.next(self.expected)
                if got is None:
                    break
                kind, body, whole = got
                if kind == STATUS:
                    self._on_status(Status.parse(body))
                else:
                    try:
                        out += self._on_message(body, whole)
                    except NoiseError as err:
                        raise Refusal(DECRYPTION_FAILED, str(err)) from err
        except (Refusal, PeerRefused) as err:
            out += self.fail(err)
        return out

    def _on_status(self, status):
        if status.code == ACCEPTED:
            raise Refusal(MALFORMED, "a status of acceptance out of place")
        raise PeerRefused(status)

    def _split(self):
        k1, k2 = self.noise.split()
        return k1 + k2


class Initiator(_Machine):
    initiator = True

    def start(self):
        self.noise.e = KeyPair.generate(self.config.random)
        self.ek, self.dk = mlkem.keygen(self.config.random)
        out = frame(MESSAGE_1, self.noise.write_message(self.ek))
        self.id = handshake_id(out)
        self.state, self.expected = "wait-2", MESSAGE_2
        return out

    def _on_status(self, status):
        if self.state == "wait-status" and status.code == ACCEPTED:
            self.state, self.result = "done", self.pending
            return
        super()._on_status(status)

    def _on_message(self, body, whole):
        payload = self.noise.read_message(body)
        ciphertext, rest = payload[:mlkem.CT_SIZE], payload[mlkem.CT_SIZE:]
        identity, offer = parse_envelope(rest, "the offer")
        self.noise.psk = mlkem.decaps(self.dk, ciphertext)
        peer = verify(identity, self.noise.rs, self.config.trust, self.config.now())
        if not self.config.target(peer):
            raise Refusal(TARGET_MISMATCH, "the peer is not the one asked for")
        offer = Offer.parse(offer)
        choice = choose(self.config.negotiation, offer)
        out = frame(MESSAGE_3, self.noise.write_message(
            opaque16(self.config.identity_bytes()) + opaque16(choice.encode())))
        self.pending = Result(peer, self._split(), choice, offer.frame_size, offer.rpc, self.id, True)
        self.state, self.expected = "wait-status", STATUS
        return out


class Responder(_Machine):
    initiator = False

    def __init__(self, config, trace=None):
        super().__init__(config, trace)
        self.state, self.expected = "wait-1", MESSAGE_1

    def _on_message(self, body, whole):
        if self.state == "wait-1":
            return self._on_message_1(body, whole)
        identity, choice = parse_envelope(self.noise.read_message(body), "the choice")
        peer = verify(identity, self.noise.rs, self.config.trust, self.config.now())
        choice = Choice.parse(choice)
        check_choice(self.config.negotiation, choice)
        self.result = Result(peer, self._split(), choice, choice.frame_size, choice.rpc, self.id, False)
        self.state = "done"
        return Status(ACCEPTED).frame()

    def _on_message_1(self, body, whole):
        self.id = handshake_id(whole)
        ek = self.noise.read_message(body)
        if not mlkem.check_encapsulation_key(ek):
            raise Refusal(DECRYPTION_FAILED, "the encapsulation key is not valid")
        shared, ciphertext = mlkem.encaps_internal(ek, self.config.random(32))
        out = frame(MESSAGE_2, self.noise.write_message(
            ciphertext + opaque16(self.config.identity_bytes()) + opaque16(self.config.negotiation.encode())))
        self.noise.psk = shared
        self.state, self.expected = "wait-3", MESSAGE_3
        return out
