"""The engine of the conformance suite: one attack over one connection, as either side, driven by a case's data.

A case's `how` is a dictionary; every key is optional. Callables get what the text says and return what is sent.

    both roles
      identity    dictionary for make_identity, below
      noise       callable(HandshakeState): changes it before the first message
      static      32 bytes: sent as the static public key in place of the real one
      ephemeral   32 bytes: sent as the ephemeral public key in place of the real one
      eof         True: the sending side of the connection is closed after the last bytes sent
    initiator
      replay1     True: the first frame of an earlier handshake
      static_of_peer  True: the responder's own static key in the place of ours
      raw1        bytes in place of the first frame
      ek          callable(encapsulation key) -> payload of message 1
      frame1      callable(frame) -> frame
      after1      bytes right after the first frame, before anything is read
      raw3        callable(Context) -> bytes in place of the third frame
      psk         callable(psk) -> psk
      choice      callable(Choice) -> bytes
      payload3    callable(payload) -> payload
      frame3      callable(frame) -> frame
      after3      bytes right after the third frame
      bytewise    True: everything is sent byte by byte
    responder
      raw2        callable(Context) -> bytes in place of the second frame
      ciphertext  callable(ciphertext) -> ciphertext
      offer       callable(Offer) -> bytes
      payload2    callable(payload) -> payload
      frame2      callable(frame) -> frame
      after2      bytes right after the second frame
      raw4        bytes in place of the final status
"""

import hashlib
import socket
import time

from . import mlkem
from .frames import MESSAGE_1, MESSAGE_2, MESSAGE_3, STATUS, FrameReader, Refusal, Status, frame
from .handshake import PROLOGUE, parse_envelope
from .identity import Identity, Statement, encode_attributes, sign_statement
from .negotiate import Choice, Offer, choose
from .noise import HandshakeState, KeyPair, NoiseError
from .wire import opaque16


class Closed(Exception):
    """The peer closed the connection."""


class Silent(Exception):
    """Nothing came in time."""


class FakeKey:
    """A public key whose private key nobody holds. Its Diffie-Hellman results are what a point of low order has."""

    def __init__(self, public, real=None):
        self.public, self.real = public, real

    def dh(self, public):
        return self.real.dh(public) if self.real else bytes(32)


class Context:
    """What an attack has learned so far."""

    def __init__(self, env, initiator):
        self.env, self.initiator = env, initiator
        self.static = KeyPair.generate()
        self.noise = None
        self.frame1 = self.frame2 = b""
        self.peer_identity = b""
        self.ek = b""


class Env:
    """What all the attacks of a run share: the PKI, what the other side's application speaks, patience."""

    def __init__(self, pki, application="grpc", account="mallory", timeout=10.0, good="peer-p256"):
        self.pki, self.application, self.account, self.timeout, self.good = pki, application, account, timeout, good
        self.recorded = {}

    def offer(self):
        return Offer((self.application,))


class Wire:
    """A connection, frame by frame, with patience that ends."""

    def __init__(self, conn, timeout, bytewise=False):
        self.conn, self.reader, self.bytewise, self.patience = conn, FrameReader(), bytewise, timeout
        self.deadline = time.monotonic() + timeout
        if conn.family in (socket.AF_INET, socket.AF_INET6):
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data):
        try:
            self.conn.settimeout(self.patience)
            if self.bytewise:
                for i in range(len(data)):
                    self.conn.sendall(data[i:i + 1])
            else:
                self.conn.sendall(data)
        except OSError:
            pass  # the answer, or its absence, is what counts

    def eof(self):
        try:
            self.conn.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def frame(self, expected):
        """The next frame: (type, body, whole)."""
        while True:
            got = self.reader.next(expected)
            if got is not None:
                return got
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise Silent()
            try:
                self.conn.settimeout(left)
                data = self.conn.recv(65536)
            except socket.timeout as err:
                raise Silent() from err
            except OSError as err:
                raise Closed() from err
            if not data:
                raise Closed()
            self.reader.feed(data)


def make_identity(ctx, leaf=None, certificates=None, account=None, machine=None, attributes=(), raw_attributes=None,
                  fields=None, statement=None, after_signing=None, key=None, sign=None, signature=None, window=None,
                  static=None, leaf_hash=None, encoded=None, replace=None):
    """An identity, good but for what is asked for.

    leaf: entry of the PKI. certificates: callable([DER]) -> [DER]. fields: callable(list of the statement's fields),
    in place. statement: callable(bytes) -> bytes, before signing. after_signing: the same, after. key: entry whose key
    signs. sign: callable(key, statement) -> signature. signature: callable(signature) -> signature. window: seconds
    from now, (not before, not after). static, leaf_hash: bytes, or callable(Context) -> bytes. encoded:
    callable(identity bytes) -> bytes. replace: callable(Context) -> identity bytes, in place of everything.
    """
    if replace is not None:
        return replace(ctx)
    private, chain, its_machine = ctx.env.pki.entry(leaf or ctx.env.good)
    if key is not None:
        private = ctx.env.pki.entry(key)[0]
    if certificates is not None:
        chain = certificates(list(chain))

    def value(x, default):
        return default if x is None else x(ctx) if callable(x) else x
    now = int(time.time())
    low, high = window or (-300, 3600)
    s = Statement(value(static, ctx.static.public),
                  value(leaf_hash, hashlib.sha256(chain[0] if chain else b"").digest()),
                  its_machine.encode() if machine is None else machine,
                  ctx.env.account.encode() if account is None else account,
                  encode_attributes(attributes) if raw_attributes is None else raw_attributes, now + low, now + high)
    parts = s.fields()
    if fields is not None:
        fields(parts)
    signed = b"".join(opaque16(p) for p in parts)
    if statement is not None:
        signed = statement(signed)
    try:
        mark = (sign or sign_statement)(private, signed)
    except (AttributeError, TypeError, ValueError):
        mark = b"\0" * 64  # a key that signs nothing: it is to be refused before
    if signature is not None:
        mark = signature(mark)
    if after_signing is not None:
        signed = after_signing(signed)
    out = Identity(chain, signed, mark).encode()
    return encoded(out) if encoded is not None else out


def _state(ctx, how):
    static = ctx.static
    if "static" in how:
        static = FakeKey(how["static"], None if how.get("static_low", True) else ctx.static)
    hs = HandshakeState(ctx.initiator, static, PROLOGUE)
    hs.e = FakeKey(how["ephemeral"]) if "ephemeral" in how else KeyPair.generate()
    if "noise" in how:
        how["noise"](hs)
    ctx.noise = hs
    return hs


def _same(x):
    return x


def attack_as_initiator(env, conn, how):
    """Returns what the other side did: ("status", code), ("accepted", key data), ("closed",), ("silent",), ..."""
    ctx = Context(env, True)
    wire = Wire(conn, env.timeout, how.get("bytewise", False))
    try:
        hs = _state(ctx, how)
        if "raw1" in how:
            wire.send(how["raw1"])
            if how.get("eof"):
                wire.eof()
            return _observe(wire.frame(MESSAGE_2))
        ek, dk = mlkem.keygen()
        ctx.ek = ek
        ctx.frame1 = how.get("frame1", _same)(frame(MESSAGE_1, hs.write_message(how.get("ek", _same)(ek))))
        if "replay1" in how:
            ctx.frame1 = env.recorded["message 1"]
        wire.send(ctx.frame1 + how.get("after1", b""))
        last = not any(k in how for k in LATER)
        if how.get("eof") and last:
            wire.eof()
        kind, body, ctx.frame2 = wire.frame(MESSAGE_2)
        if kind == STATUS:
            return _observe((kind, body, b""))
        if "raw3" in how:
            wire.send(how["raw3"](ctx))
        else:
            payload = hs.read_message(body)
            shared = mlkem.decaps(dk, payload[:mlkem.CT_SIZE])
            hs.psk = how.get("psk", _same)(shared)
            if "static_of_peer" in how:
                hs.s = FakeKey(hs.rs, ctx.static)
            ctx.peer_identity, offer = parse_envelope(payload[mlkem.CT_SIZE:], "the offer")
            choice = choose(env.offer(), Offer.parse(offer))
            identity = make_identity(ctx, **how.get("identity", {}))
            data = how.get("choice", Choice.encode)(choice)
            payload = how.get("payload3", _same)(opaque16(identity) + opaque16(data))
            out = how.get("frame3", _same)(frame(MESSAGE_3, hs.write_message(payload)))
            wire.send(out + how.get("after3", b""))
            if not how:
                env.recorded.update({"message 1": ctx.frame1, "message 3": out, "identity": identity})
        if how.get("eof"):
            wire.eof()
        kind, body, _ = wire.frame(STATUS)
        if kind == STATUS and Status.parse(body).code == 0:
            k1, k2 = hs.split()
            return ("accepted", k1 + k2)
        return _observe((kind, body, b""))
    except Closed:
        return ("closed",)
    except Silent:
        return ("silent",)
    except NoiseError as err:
        return ("noise", str(err))
    except Refusal as err:
        return ("nonsense", str(err))


LATER = ("raw3", "psk", "choice", "payload3", "frame3", "after3", "identity")


def attack_as_responder(env, conn, how):
    """The same for the other side. ("accepted", key data) means that message 3 came and was in order."""
    ctx = Context(env, False)
    wire = Wire(conn, env.timeout, how.get("bytewise", False))
    try:
        hs = _state(ctx, how)
        kind, body, ctx.frame1 = wire.frame(MESSAGE_1)
        if kind == STATUS:
            return _observe((kind, body, b""))
        ek = hs.read_message(body)
        shared, ciphertext = mlkem.encaps(ek)
        ciphertext = how.get("ciphertext", _same)(ciphertext)
        if "raw2" in how:
            wire.send(how["raw2"](ctx))
        else:
            identity = make_identity(ctx, **how.get("identity", {}))
            offer = how.get("offer", Offer.encode)(env.offer())
            payload = how.get("payload2", _same)(ciphertext + opaque16(identity) + opaque16(offer))
            out = how.get("frame2", _same)(frame(MESSAGE_2, hs.write_message(payload)))
            wire.send(out + how.get("after2", b""))
            if not how:
                env.recorded.update({"message 2": out, "identity": identity})
        if how.get("eof"):
            wire.eof()
        kind, body, _ = wire.frame(MESSAGE_3)
        if kind == STATUS:
            return _observe((kind, body, b""))
        if "raw2" in how:
            return ("message 3", "")
        hs.psk = how.get("psk", _same)(shared)
        try:
            hs.read_message(body)
        except NoiseError:
            wire.send(Status(3).frame())
            return ("wrong message 3",)
        if "raw4" in how:
            wire.send(how["raw4"])
            if how.get("eof4"):
                wire.eof()
            return _observe(wire.frame(STATUS))
        wire.send(Status(0).frame())
        k1, k2 = hs.split()
        return ("accepted", k1 + k2)
    except Closed:
        return ("closed",)
    except Silent:
        return ("silent",)
    except NoiseError as err:
        return ("noise", str(err))
    except Refusal as err:
        return ("nonsense", str(err))


def _observe(got):
    kind, body, _ = got
    if kind == STATUS:
        return ("status", Status.parse(body).code)
    return ("message %d" % kind, "")


def describe(outcome):
    return "status %d" % outcome[1] if outcome[0] == "status" else outcome[0]
