"""Reproduces and checks a file of test vectors in the form of docs/spec/vectors.md. Every field of it must be looked at."""

import calendar
import hmac
import json
import time

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.x509 import ObjectIdentifier

from . import mlkem
from .frames import CODES, PeerRefused, Refusal
from .handshake import PROLOGUE, Config, Initiator, Responder
from .identity import (Certificate, Identity, RevocationList, Statement, Trust, signature_input, verify,
                       verify_statement)
from .negotiate import Offer, RpcVersions, choose
from .noise import PROTOCOL_NAME, KeyPair


class Mismatch(Exception):
    pass


class Fields:
    """An object of the file that knows which of its fields were used."""

    def __init__(self, data, where):
        self.data, self.where, self.used = data, where, set()

    def get(self, name):
        if name not in self.data:
            raise Mismatch("%s: no field %s" % (self.where, name))
        self.used.add(name)
        return self.data[name]

    def hex(self, name):
        text = self.get(name)
        value = bytes.fromhex(text)
        if value.hex() != text:
            raise Mismatch("%s: %s is not lower-case hexadecimal" % (self.where, name))
        return value

    def sub(self, name):
        return Fields(self.get(name), "%s.%s" % (self.where, name))

    def items(self, name):
        return [Fields(x, "%s.%s[%d]" % (self.where, name, i)) for i, x in enumerate(self.get(name))]

    def check(self, name, value):
        want = self.get(name)
        got = value.hex() if isinstance(value, bytes) else value
        if got != want:
            raise Mismatch("%s: %s is %.200s, reproduced %.200s" % (self.where, name, want, got))

    def end(self):
        left = set(self.data) - self.used
        if left:
            raise Mismatch("%s: fields that were not checked: %s" % (self.where, ", ".join(sorted(left))))


def _scripted(*chunks):
    """A source of randomness that gives what the vector says, in the order in which handshake.py draws."""
    left = list(chunks)

    def random(count):
        chunk = left.pop(0)
        if len(chunk) != count:
            raise Mismatch("%d bytes of randomness are drawn where the vector has %d" % (count, len(chunk)))
        return chunk
    return random


def _parameters(fields):
    p = fields.sub("parameters")
    offer = Offer(p.get("application_protocols"), p.get("record_protocols"),
                  RpcVersions(p.get("rpc_max"), p.get("rpc_min")), p.get("max_frame_size"),
                  p.get("transport_protocols"))
    p.end()
    return offer


class _Side:
    """One side of a vector, checked by itself and ready to take part."""

    def __init__(self, fields):
        self.fields = fields
        self.static = KeyPair(fields.hex("static_private"))
        self.ephemeral = fields.hex("ephemeral_private")
        fields.check("static_public", self.static.public)
        fields.check("ephemeral_public", KeyPair(self.ephemeral).public)
        leaf = fields.hex("certificate")
        self.certificate = Certificate(leaf, leaf=True)
        statement, signature = fields.hex("statement"), fields.hex("signature")
        fields.check("signature_input", signature_input(statement))
        if not verify_statement(self.certificate.key, statement, signature):
            raise Mismatch("%s: the statement's signature does not verify" % fields.where)
        parsed = Statement.parse(statement)
        fields.check("machine", parsed.machine.decode())
        fields.check("account", parsed.account.decode())
        if parsed.attribute_list() != [(b"uid", b"1000")] or parsed.static_key != self.static.public:
            raise Mismatch("%s: the statement's attributes or static key" % fields.where)
        if parsed.encode() != statement:
            raise Mismatch("%s: the statement does not encode to itself" % fields.where)
        fields.check("identity", Identity([leaf], statement, signature).encode())
        self.identity = fields.hex("identity")
        self.parameters = _parameters(fields)


_KEY_KIND = {"p256": "secp256r1", "p384": "secp384r1"}


class Vector:
    def __init__(self, fields, now):
        self.f, self.now = fields, now
        self.trust = Trust([(fields.hex("trust"), None)])
        self.initiator = _Side(fields.sub("initiator"))
        self.responder = _Side(fields.sub("responder"))
        self.seed, self.m = fields.hex("mlkem_seed"), fields.hex("mlkem_randomness")
        self.frames = []

    def machines(self, traces=(None, None)):
        a = Initiator(Config(self.initiator.static, self.initiator.identity, self.trust, self.initiator.parameters,
                             now=lambda: self.now,
                             random=_scripted(self.initiator.ephemeral, self.seed[:32], self.seed[32:])), traces[0])
        b = Responder(Config(self.responder.static, self.responder.identity, self.trust, self.responder.parameters,
                             now=lambda: self.now, random=_scripted(self.m, self.responder.ephemeral)), traces[1])
        return a, b

    def check(self):
        f = self.f
        key = self.initiator.certificate.key
        kind = f.get("name")
        if _KEY_KIND.get(kind, "") not in getattr(getattr(key, "curve", None), "name", "") \
                or (kind == "rsa2048") != (getattr(key, "key_size", 0) == 2048):
            raise Mismatch("%s: the leaf's key is not of the kind %s" % (f.where, kind))
        ek, dk = mlkem.keygen_internal(self.seed[:32], self.seed[32:])
        shared, ciphertext = mlkem.encaps_internal(ek, self.m)
        f.check("mlkem_encapsulation_key", ek)
        f.check("mlkem_ciphertext", ciphertext)
        f.check("psk", shared)
        if mlkem.decaps(dk, ciphertext) != shared:
            raise Mismatch("%s: decapsulation" % f.where)
        f.check("prologue", PROLOGUE)
        choice = choose(self.initiator.parameters, self.responder.parameters).encode()
        offer = self.responder.parameters.encode()
        self.responder.fields.check("negotiation", offer)
        self.initiator.fields.check("negotiation", choice)

        traces = ([], [])
        a, b = self.machines(traces)
        start = f.sub("start")
        for machine in (a, b):
            start.check("chaining_key", machine.noise.symmetric.ck)
            start.check("hash", machine.noise.symmetric.h)
        start.end()
        messages = f.items("messages")
        if len(messages) != 3:
            raise Mismatch("%s: %d messages" % (f.where, len(messages)))
        self.frames = [a.start()]
        self.frames.append(b.feed(self.frames[0]))
        self.frames.append(a.feed(self.frames[1]))
        self.frames.append(b.feed(self.frames[2]))
        last = a.feed(self.frames[3])
        for machine in (a, b):
            if machine.error:
                raise Mismatch("%s: %s" % (f.where, machine.error))
        if last or a.state != "done" or b.state != "done" or a.rest or b.rest:
            raise Mismatch("%s: the handshake did not end as it should" % f.where)
        payloads = [ek, ciphertext + _two(self.responder.identity, offer), _two(self.initiator.identity, choice)]
        for i, message in enumerate(messages):
            message.check("frame", self.frames[i])
            message.check("payload", payloads[i])
            after = message.sub("after")
            for trace in traces:
                states = [x for x in trace if x[0] == "payload"]
                after.check("chaining_key", states[i][1])
                after.check("hash", states[i][2])
            after.end()
            message.end()
        f.check("status", self.frames[3])
        for machine, other in ((a, self.responder), (b, self.initiator)):
            f.check("key_data", machine.result.key_data)
            f.check("handshake_id", machine.result.handshake_id)
            r = machine.result
            if (r.peer.account, r.peer.machine) != (other.fields.get("account"), other.fields.get("machine")) \
                    or r.peer_frame_size != other.parameters.frame_size \
                    or r.peer_rpc.as_json() != other.parameters.rpc.as_json():
                raise Mismatch("%s: what is told of the peer" % f.where)
        for r in f.items("records"):
            r.check("frame", record(a.result.key_data, r.get("from") == "responder", r.get("number"), r.hex("payload")))
            r.end()
        for side in (self.initiator, self.responder):
            side.fields.end()
        f.end()

    def _receiver(self, place):
        """The side that expects the frame in that place, with everything before it taken."""
        a, b = self.machines()
        a.start()
        if place == 3:
            b.feed(self.frames[0])
        elif place == 4:
            a.feed(self.frames[1])
        return b if place in (1, 3) else a

    def check_accepted(self, f):
        name, place, data = f.get("name"), f.get("place"), f.hex("input")
        for step in (len(data), 1):
            target = self._receiver(place)
            for i in range(0, len(data), step):
                target.feed(data[i:i + step])
            if target.state == "failed":
                raise Mismatch("%s (%s): refused: %s" % (f.where, name, target.error))
            f.check("done", target.done)
        f.end()

    def check_negative(self, f):
        name, place, data = f.get("name"), f.get("place"), f.hex("input")
        for step in (len(data) or 1, 1):  # at once, and byte by byte
            target = self._receiver(place)
            if "target" in f.data:
                wanted = f.get("target")
                target.config.target = lambda peer: peer.name == wanted
            answer = b"".join(target.feed(data[i:i + step]) for i in range(0, len(data), step))
            if target.state != "failed":
                raise Mismatch("%s (%s): not refused" % (f.where, name))
            f.check("code", CODES.get(target.error.code, "unknown_%d" % target.error.code))
            f.check("by_peer", isinstance(target.error, PeerRefused))
            f.check("answer", answer)
        f.end()


def check_verification(f, now, dns=False):
    """Yields, for each case of the group, what does not match, or None. The group dns has machines under DNS."""
    cas = [(ca.hex("certificate"), ca.get("names") or None) for ca in f.items("trust")]
    lists = [RevocationList(bytes.fromhex(x)) for x in f.get("revocation_lists")]
    if not dns:
        lists += [RevocationList(bytes.fromhex(x), complete=True) for x in f.get("complete_lists")]
    under_dns = f.get("under_dns") if dns else []
    static = f.hex("static_public")
    for case in f.items("cases"):
        policy = {option: case.get(name) for name, option in (
            ("domain_accounts", "domain_accounts"), ("stale_lists_accepted", "crl_stale_ok")) if name in case.data}
        if "require_eku" in case.data:
            policy["require_eku"] = ObjectIdentifier(case.get("require_eku"))
        if dns:
            records = [bytes.fromhex(x) for x in case.get("tlsa")] if "tlsa" in case.data else None
            policy.update(under_dns=under_dns, tlsa=lambda machine, records=records: records)
        name = case.get("name")
        try:
            try:
                code = 0 if verify(case.hex("identity"), static, Trust(cas, lists, **policy), now) else None
            except Refusal as err:
                code = err.code
            case.check("code", CODES.get(code))
            case.end()
            yield None
        except Exception as err:  # whatever it is, it is reported with its place
            yield "%s (%s): %s: %s" % (case.where, name, type(err).__name__, err)
    f.end()


def record(key_data, from_responder, number, payload):
    """A frame of the record protocol, section 7.3."""
    counter = number.to_bytes(8, "little") + bytes(3) + (b"\x80" if from_responder else b"\0")
    key = hmac.digest(key_data[:32], counter[2:8] + b"\1", "sha256")[:16]
    nonce = bytes(a ^ b for a, b in zip(counter, key_data[32:44]))
    sealed = AESGCM(key).encrypt(nonce, payload, None)
    return (4 + len(sealed)).to_bytes(4, "little") + (6).to_bytes(4, "little") + sealed


def _two(identity, other):
    return len(identity).to_bytes(2, "big") + identity + len(other).to_bytes(2, "big") + other


def check_file(path):
    """Returns (handshakes, negative cases, verifications, list of what does not match)."""
    with open(path) as fp:
        top = Fields(json.load(fp), "file")
    wrong, first, count, negative = [], None, 0, 0
    try:
        top.check("protocol", PROTOCOL_NAME.decode())
        top.check("version", PROLOGUE[-1])
        now = calendar.timegm(time.strptime(top.get("time"), "%Y-%m-%dT%H:%M:%SZ"))
    except (Mismatch, ValueError) as err:
        return 0, 0, 0, [str(err)]
    for f in top.items("vectors"):
        count += 1
        try:
            v = Vector(f, now)
            v.check()
            first = first or v
        except Exception as err:  # whatever it is, it is reported with its place
            wrong.append("%s: %s: %s" % (f.where, type(err).__name__, err))
    for kind in ("accepted", "negative"):
        for f in top.items(kind):
            negative += kind == "negative"
            try:
                if first is None:
                    raise Mismatch("%s: no handshake to base it on" % f.where)
                getattr(first, "check_" + kind)(f)
            except Exception as err:
                wrong.append("%s: %s: %s" % (f.where, type(err).__name__, err))
    verifications = 0
    try:
        for group in ("verification", "dns"):
            for text in check_verification(top.sub(group), now, group == "dns"):
                verifications += 1
                wrong += [text] if text else []
        top.end()
    except Mismatch as err:
        wrong.append(str(err))
    return count, negative, verifications, wrong


def main(path):
    count, negative, verifications, wrong = check_file(path)
    for text in wrong:
        print("FAIL " + text)
    print("%d handshakes, %d negative cases, %d identities, %d failures" % (count, negative, verifications, len(wrong)))
    return 1 if wrong or not count else 0
