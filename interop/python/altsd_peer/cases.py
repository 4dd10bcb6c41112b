"""The table of the conformance suite. A case: name, role of the hostile side, section, what it does, what must come.

`expect` holds what the document allows, first what this package's own implementation does: a number is a status of that
code, otherwise a word of hostile.describe. "told N" means that nothing came, but that a live run learned code N of the
other side's application. A hostile responder meets an initiator, which may fail without a status: for a status that is
expected "told" with its code will do, and where the run is not strict "closed" as well.
"""

import hashlib

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from . import mlkem
from .frames import MAGIC, MESSAGE_1, MESSAGE_2, MESSAGE_3, STATUS, Status, frame
from .handshake import PROLOGUE
from .identity import CONTEXT, signature_input
from .negotiate import Choice, Offer, RpcVersions
from .noise import KeyPair, SymmetricState
from .pki import ODD_NAMES
from .wire import opaque8, opaque16, u8, u16, u64

OK = "accepted"
CUT = "closed"


class Case:
    def __init__(self, name, role, section, expect, how, slow=False):
        self.name, self.role, self.section, self.how, self.slow = name, role, section, how, slow
        expect = expect if isinstance(expect, tuple) else (expect,)
        self.expect = tuple("status %d" % e if isinstance(e, int) else e for e in expect)

    def allows(self, got, strict=False):
        if self.role == "responder" and OK not in self.expect and (
                got == "closed" and not strict or got.replace("told", "status") in self.expect):
            return True
        return got in self.expect


# Small tools ----------------------------------------

def flip(at, bit=1):
    def change(data):
        i = at % len(data)
        return data[:i] + bytes([data[i] ^ bit]) + data[i + 1:]
    return change


def cut(count):
    return lambda data: data[:count]


def put(at, value):
    return lambda data: data[:at] + value + data[at + len(value):]


def length(value):
    """A frame whose header tells another length."""
    return put(6, u16(value))


def field(index, value):
    """Sets a field of a statement."""
    def change(parts):
        parts[index] = value(parts[index]) if callable(value) else value
    return change


def _body(kind, size, fill=b"\x5a"):
    return frame(kind, fill * size)


LOW_ORDER = {
    "zero": bytes(32),
    "one": b"\1" + bytes(31),
    "order-8-a": bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    "order-8-b": bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    "p-minus-1": bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    "p": bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    "p-plus-1": bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    "zero-high-bit": bytes(31) + b"\x80",
}


def prologue(value):
    def change(hs):
        hs.symmetric = SymmetricState()
        hs.symmetric.mix_hash(value)
    return change


def protocol_name(name):
    def change(hs):
        hs.symmetric = SymmetricState(name)
        hs.symmetric.mix_hash(PROLOGUE)
    return change


def coefficient(index, value):
    """Sets one coefficient of an encapsulation key."""
    def change(ek):
        start = 384 * (index // 256)
        poly = int.from_bytes(ek[start:start + 384], "little")
        shift = 12 * (index % 256)
        poly = poly & ~(4095 << shift) | value << shift
        return ek[:start] + poly.to_bytes(384, "little") + ek[start + 384:]
    return change


CLIENT_HELLO = bytes.fromhex("1603010200010001fc0303") + b"\x11" * 64
FOREIGN = {
    "tls-client-hello": CLIENT_HELLO,
    "http2-preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    "http1-request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "ssh-banner": b"SSH-2.0-OpenSSH_9.2\r\n",
    "alts-record": (44).to_bytes(4, "little") + (6).to_bytes(4, "little") + bytes(40),
    "alts-google-handshake": bytes.fromhex("2600000001000000") + bytes(34),
    "zeros": bytes(2048),
    "salt-upper-case": b"SALT" + bytes(60),
    "magic-reversed": b"tlas" + bytes(60),
}


# Statement signatures ----------------------------------------

def _ecdsa(make, digest=None):
    def sign(key, statement):
        return key.sign(make(statement), ec.ECDSA(digest or hashes.SHA256()))
    return sign


def _raw_rs(key, statement):
    r, s = decode_dss_signature(key.sign(signature_input(statement), ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _ber(signature):
    """A length in long form, where DER has the short one."""
    return signature[:1] + b"\x81" + signature[1:]


def _rsa(pad, digest=None):
    def sign(key, statement):
        return key.sign(signature_input(statement), pad, digest or hashes.SHA256())
    return sign


def _pss(digest, salt, mgf=None):
    return padding.PSS(mgf=padding.MGF1(mgf or digest), salt_length=salt)


def _negated_s(key, statement):
    """(r, s + n): the same residue, out of range."""
    n = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551
    r, s = decode_dss_signature(key.sign(signature_input(statement), ec.ECDSA(hashes.SHA256())))

    def integer(x):
        data = x.to_bytes(x.bit_length() // 8 + 1, "big")
        return b"\x02" + u8(len(data)) + data
    body = integer(r) + integer(s + n)
    return b"\x30" + u8(len(body)) + body


TLS13 = b"TLS 1.3, server CertificateVerify"
SIGNATURES = [
    ("flipped", dict(signature=flip(-1))),
    ("first-byte-flipped", dict(signature=flip(0))),
    ("one-byte", dict(signature=lambda s: b"\0")),
    ("all-zero", dict(signature=lambda s: bytes(len(s)))),
    ("truncated", dict(signature=cut(-1))),
    ("byte-after-der", dict(signature=lambda s: s + b"\0")),
    ("ber-length", dict(signature=_ber)),
    ("r-and-s-zero", dict(signature=lambda s: bytes.fromhex("3006020100020100"))),
    ("r-and-s-one", dict(signature=lambda s: bytes.fromhex("3006020101020101"))),
    ("s-out-of-range", dict(sign=_negated_s)),
    ("raw-r-s", dict(sign=_raw_rs)),
    ("without-context", dict(sign=_ecdsa(lambda s: s))),
    ("without-padding", dict(sign=_ecdsa(lambda s: CONTEXT + b"\0" + s))),
    ("without-separator", dict(sign=_ecdsa(lambda s: b" " * 64 + CONTEXT + s))),
    ("padding-63", dict(sign=_ecdsa(lambda s: b" " * 63 + CONTEXT + b"\0" + s))),
    ("padding-zero-bytes", dict(sign=_ecdsa(lambda s: bytes(64) + CONTEXT + b"\0" + s))),
    ("context-of-version-2", dict(sign=_ecdsa(lambda s: b" " * 64 + CONTEXT.replace(b"v1", b"v2") + b"\0" + s))),
    ("context-of-tls13", dict(sign=_ecdsa(lambda s: b" " * 64 + TLS13 + b"\0" + s))),
    ("of-the-hash", dict(sign=_ecdsa(lambda s: hashlib.sha256(signature_input(s)).digest()))),
    ("p256-with-sha384", dict(sign=_ecdsa(signature_input, hashes.SHA384()))),
    ("p256-with-sha512", dict(sign=_ecdsa(signature_input, hashes.SHA512()))),
    ("p384-with-sha256", dict(leaf="peer-p384", sign=_ecdsa(signature_input))),
    ("p384-flipped", dict(leaf="peer-p384", signature=flip(-1))),
    ("ed25519-of-the-hash", dict(leaf="peer-ed25519", sign=lambda k, s: k.sign(
        hashlib.sha512(signature_input(s)).digest()))),
    ("ed25519-flipped", dict(leaf="peer-ed25519", signature=flip(3))),
    ("ed25519-63-bytes", dict(leaf="peer-ed25519", signature=cut(63))),
    ("ed25519-65-bytes", dict(leaf="peer-ed25519", signature=lambda s: s + b"\0")),
    ("ed25519-s-unreduced", dict(leaf="peer-ed25519", signature=lambda s: s[:32] + (
        int.from_bytes(s[32:], "little") + 2 ** 252 + 27742317777372353535851937790883648493).to_bytes(32, "little"))),
    ("rsa-pkcs1v15", dict(leaf="peer-rsa", sign=_rsa(padding.PKCS1v15()))),
    ("rsa-pss-sha384", dict(leaf="peer-rsa", sign=_rsa(_pss(hashes.SHA384(), 48), hashes.SHA384()))),
    ("rsa-pss-mgf-sha1", dict(leaf="peer-rsa", sign=_rsa(_pss(hashes.SHA256(), 32, hashes.SHA1())))),
    ("rsa-pss-salt-0", dict(leaf="peer-rsa", sign=_rsa(_pss(hashes.SHA256(), 0)))),
    ("rsa-pss-salt-20", dict(leaf="peer-rsa", sign=_rsa(_pss(hashes.SHA256(), 20)))),
    ("rsa-pss-salt-33", dict(leaf="peer-rsa", sign=_rsa(_pss(hashes.SHA256(), 33)))),
    ("rsa-pss-salt-longest", dict(leaf="peer-rsa", sign=_rsa(_pss(hashes.SHA256(), padding.PSS.MAX_LENGTH)))),
    ("rsa-byte-before", dict(leaf="peer-rsa", signature=lambda s: b"\0" + s)),
    ("rsa-flipped", dict(leaf="peer-rsa", signature=flip(-1))),
    ("cross-signed-by-another-machine", dict(key="peer-other")),
    ("cross-signed-by-its-ca", dict(key="peer-anchor")),
    ("cross-signed-by-another-kind", dict(key="peer-ed25519")),
    ("account-changed-after", dict(account=b"mallory", after_signing=lambda s: s.replace(b"mallory", b"rooooot"))),
    ("machine-of-other-cross-signed", dict(leaf="peer-other", key="peer-p256")),
    ("uid-changed-after", dict(attributes=[(b"uid", b"1000")], after_signing=lambda s: s.replace(b"1000", b"1001"))),
    ("time-changed-after", dict(after_signing=flip(-1))),
]

# Identity: (name, section, expect, dictionary for make_identity). Each is played in both roles. --------------------

_LONG = b"a" * 63
# Of these the format is broken (5.5, step 1), of the others what they say (step 5).
ATTRIBUTE_FRAMES = ("empty-name", "name-of-33", "value-of-2049", "twice", "out-of-order", "prefix-out-of-order",
                    "seventeen", "truncated", "byte-after", "without-value")
ATTRIBUTES = [
    ("upper-case-name", opaque8(b"Shell") + opaque16(b"x")),
    ("empty-name", opaque8(b"") + opaque16(b"x")),
    ("name-of-33", opaque8(b"a" * 33) + opaque16(b"x")),
    ("name-begins-with-digit", opaque8(b"1a") + opaque16(b"x")),
    ("name-with-dot", opaque8(b"a.b") + opaque16(b"x")),
    ("name-user", opaque8(b"user") + opaque16(b"root")),
    ("name-machine", opaque8(b"machine") + opaque16(b"x")),
    ("value-newline", opaque8(b"a") + opaque16(b"x\ny")),
    ("value-del", opaque8(b"a") + opaque16(b"\x7f")),
    ("value-nul", opaque8(b"a") + opaque16(b"\0")),
    ("value-utf8", opaque8(b"a") + opaque16("ä".encode())),
    ("value-of-2049", opaque8(b"a") + opaque16(b"x" * 2049)),
    ("twice", (opaque8(b"a") + opaque16(b"x")) * 2),
    ("out-of-order", opaque8(b"b") + opaque16(b"x") + opaque8(b"a") + opaque16(b"x")),
    ("prefix-out-of-order", opaque8(b"ab") + opaque16(b"x") + opaque8(b"a") + opaque16(b"x")),
    ("seventeen", b"".join(opaque8(b"a%02d" % i) + opaque16(b"") for i in range(17))),
    ("truncated", opaque8(b"a") + b"\0\5x"),
    ("byte-after", opaque8(b"a") + opaque16(b"x") + b"\0"),
    ("without-value", opaque8(b"a")),
    ("uid-leading-zero", opaque8(b"uid") + opaque16(b"01000")),
    ("uid-negative", opaque8(b"uid") + opaque16(b"-1")),
    ("uid-empty", opaque8(b"uid") + opaque16(b"")),
    ("uid-hexadecimal", opaque8(b"uid") + opaque16(b"0x10")),
    ("uid-of-33-bits", opaque8(b"uid") + opaque16(b"4294967296")),
    ("uid-with-space", opaque8(b"uid") + opaque16(b" 1000")),
    ("uid-with-plus", opaque8(b"uid") + opaque16(b"+1000")),
    ("socket-empty", opaque8(b"socket") + opaque16(b"")),
    ("socket-in-capitals", opaque8(b"socket") + opaque16(b"Blue")),
    ("socket-path", opaque8(b"socket") + opaque16(b"/run/blue/socket")),
    ("socket-of-65", opaque8(b"socket") + opaque16(b"a" * 65)),
    ("groups-empty", opaque8(b"groups") + opaque16(b"")),
    ("groups-twice", opaque8(b"groups") + opaque16(b"adm,adm")),
    ("groups-comma-at-end", opaque8(b"groups") + opaque16(b"adm,")),
    ("groups-out-of-order", opaque8(b"groups") + opaque16(b"wheel,adm")),
    ("groups-upper-case", opaque8(b"groups") + opaque16(b"Wheel")),
    ("groups-empty-entry", opaque8(b"groups") + opaque16(b"adm,,wheel")),
    ("groups-with-space", opaque8(b"groups") + opaque16(b"domain users")),
    ("groups-with-space-after-comma", opaque8(b"groups") + opaque16(b"adm, wheel")),
    ("groups-escape-in-lower-case", opaque8(b"groups") + opaque16(b"adm%2cwheel")),
    ("groups-escape-cut", opaque8(b"groups") + opaque16(b"adm%2")),
    ("groups-escape-of-plain-letter", opaque8(b"groups") + opaque16(b"adm,wh%65el")),
    ("groups-escape-of-capital", opaque8(b"groups") + opaque16(b"%41dm")),
    ("groups-escape-of-line-feed", opaque8(b"groups") + opaque16(b"adm%0A")),
    ("groups-escape-of-nul", opaque8(b"groups") + opaque16(b"adm%00")),
    ("groups-escape-of-c1-control", opaque8(b"groups") + opaque16(b"adm%C2%85")),
    ("groups-escape-of-no-utf8", opaque8(b"groups") + opaque16(b"adm%FF")),
    ("groups-escape-of-surrogate", opaque8(b"groups") + opaque16(b"adm%ED%A0%80")),
    ("groups-begin-with-hyphen", opaque8(b"groups") + opaque16(b"-adm")),
    ("groups-at-sign", opaque8(b"groups") + opaque16(b"adm@corp")),
    ("groups-escaped-at-sign", opaque8(b"groups") + opaque16(b"adm%40corp")),
    ("groups-of-257", opaque8(b"groups") + opaque16(b"a" * 257)),
]
ACCOUNTS = [
    ("upper-case", b"Root"), ("begins-with-hyphen", b"-a"), ("begins-with-dot", b".a"), ("begins-with-plus", b"+a"),
    ("begins-with-dollar", b"$a"), ("space", b"a b"), ("at-sign", b"root@peer"), ("backslash", b"corp\\root"),
    ("slash", b"a/b"), ("colon", b"a:b"), ("nul", b"root\0"), ("newline", b"root\n"), ("escape", b"a\x1b[2J"),
    ("utf8", "rööt".encode()), ("of-65", b"a" * 65), ("of-128", b"a" * 128), ("percent", b"a%s"),
    ("high-byte", b"a\xff"),
]
NAMES = [
    ("another-machine", b"other.example.test"), ("the-verifiers-own", b"daemon.example.test"),
    ("trailing-dot", b"peer.example.test."),
    ("upper-case", b"PEER.example.test"), ("parent-domain", b"example.test"), ("child", b"a.peer.example.test"),
    ("prefix", b"peer.example.tes"), ("nul-inside", b"peer.example.test\0.evil.test"), ("space", b"peer.example.test "),
    ("utf8", "pëer.example.test".encode()), ("empty-label", b"peer..example.test"), ("ip-address", b"127.0.0.1"),
    ("ipv6-address", b"::1"), ("at-sign", b"a@peer.example.test"), ("comma", b"peer.example.test,x"),
    ("of-253", b".".join([_LONG] * 3 + [b"a" * 61])),
]
_SPKI_RSA = "peer-rsa1024 peer-rsa2047 peer-rsa4104 peer-rsa8192 peer-rsa-e3 peer-p521 peer-p224 peer-secp256k1 " \
    "peer-ed448 peer-dsa peer-x25519 peer-sha1 peer-sha224 peer-pss-key"


def _drop(index):
    return lambda parts: parts.pop(index)


def _own_leaf_of(entry):
    return lambda ctx: hashlib.sha256(ctx.env.pki.entry(entry)[1][0]).digest()


IDENTITIES = [
    # format of the identity: code 2
    ("identity-empty-count", "5", 2, dict(encoded=put(0, b"\0"))),
    ("identity-no-certificate", "5", 2, dict(certificates=lambda c: [])),
    ("identity-count-2-of-1", "5", 2, dict(encoded=put(0, b"\2"))),
    ("identity-count-255", "5", 2, dict(encoded=put(0, b"\xff"))),
    ("identity-five-certificates", "5", 2, dict(certificates=lambda c: c * 5)),
    ("identity-empty-certificate", "5", 2, dict(certificates=lambda c: c + [b""])),
    ("identity-certificate-of-16385", "5", 2, dict(certificates=lambda c: [bytes(16385)])),
    ("identity-certificates-over-16384", "5", 2, dict(certificates=lambda c: c + [bytes(8000), bytes(8100)])),
    ("identity-certificate-length-past-end", "5", 2, dict(encoded=put(1, b"\x3f\xff"))),
    ("identity-empty-statement", "5", 2, dict(statement=cut(0))),
    ("identity-statement-of-4097", "5", 2, dict(statement=lambda s: s + bytes(4097 - len(s)))),
    ("identity-empty-signature", "5", 2, dict(signature=cut(0))),
    ("identity-signature-of-1025", "5", 2, dict(signature=lambda s: bytes(1025))),
    ("identity-byte-after", "5", 2, dict(encoded=lambda i: i + b"\0")),
    ("identity-second-identity-after", "5", 2, dict(encoded=lambda i: i + i)),
    ("identity-cut-by-one", "5", 2, dict(encoded=cut(-1))),
    ("identity-cut-in-certificate", "5", 2, dict(encoded=cut(100))),
    ("identity-only-count", "5", 2, dict(encoded=cut(1))),
    ("identity-cut-before-signature", "5", 2, dict(signature=cut(0), encoded=cut(-2))),
    ("identity-of-21504-zeros", "5", 2, dict(encoded=lambda i: bytes(21504))),
    # certificates: code 9
    ("leaf-garbage", "5.5 step 2", 9, dict(certificates=lambda c: [b"\xa5" * 200])),
    ("leaf-one-byte", "5.5 step 2", 9, dict(certificates=lambda c: [b"\x30"])),
    ("leaf-cut-by-one", "5.5 step 2", 9, dict(certificates=lambda c: [c[0][:-1]])),
    ("leaf-byte-after", "5.5 step 2", 9, dict(certificates=lambda c: [c[0] + b"\0"])),
    ("leaf-twice-in-one-field", "5.5 step 2", 9, dict(certificates=lambda c: [c[0] * 2])),
    ("leaf-as-pem-text", "5.5 step 2", 9, dict(certificates=lambda c: [b"-----BEGIN CERTIFICATE-----\nMIIB\n"])),
    ("leaf-nested-sequences", "5.5 step 2", 9, dict(certificates=lambda c: [b"\x30\x80" * 2000])),
    ("leaf-length-of-4-gib", "5.5 step 2", 9, dict(certificates=lambda c: [b"\x30\x84\xff\xff\xff\xff" + c[0]])),
    ("intermediate-garbage", "5.5 step 2", 9, dict(certificates=lambda c: c + [b"\x30\x03\x02\x01\x01"])),
] + [("leaf-" + e[5:], "5.5 step 2", 9, dict(leaf=e)) for e in _SPKI_RSA.split()] + [
    (e[5:], "5.5 step 2", 9, dict(leaf=e)) for e in ("peer-int-rsa1024", "peer-int-rsa8200", "peer-int-p521")] + [
    # format of the statement: code 10
    ("statement-version-0", "5.1", 10, dict(fields=field(0, b"\0"))),
    ("statement-version-2", "5.1", 10, dict(fields=field(0, b"\2"))),
    ("statement-version-empty", "5.1", 10, dict(fields=field(0, b""))),
    ("statement-version-two-bytes", "5.1", 10, dict(fields=field(0, b"\0\1"))),
    ("statement-static-key-of-31", "5.1", 10, dict(fields=field(1, cut(31)))),
    ("statement-static-key-of-33", "5.1", 10, dict(fields=field(1, lambda k: k + b"\0"))),
    ("statement-static-key-empty", "5.1", 10, dict(fields=field(1, b""))),
    ("statement-leaf-of-31", "5.1", 10, dict(fields=field(2, cut(31)))),
    ("statement-leaf-of-33", "5.1", 10, dict(fields=field(2, lambda k: k + b"\0"))),
    ("statement-leaf-empty", "5.1", 10, dict(fields=field(2, b""))),
    ("statement-machine-empty", "5.1", 10, dict(fields=field(3, b""))),
    ("statement-machine-of-254", "5.1", 10, dict(fields=field(3, b"a" * 254))),
    ("statement-account-empty", "5.1", 10, dict(fields=field(4, b""))),
    ("statement-account-of-129", "5.1", 10, dict(fields=field(4, b"a" * 129))),
    ("statement-attributes-of-3073", "5.1", 10, dict(fields=field(5, bytes(3073)))),
    ("statement-not-before-of-7", "5.1", 10, dict(fields=field(6, cut(7)))),
    ("statement-not-before-of-9", "5.1", 10, dict(fields=field(6, lambda t: b"\0" + t))),
    ("statement-not-after-empty", "5.1", 10, dict(fields=field(7, b""))),
    ("statement-not-after-of-4", "5.1", 10, dict(fields=field(7, lambda t: t[4:]))),
    ("statement-not-after-year-10000", "5.1", 10, dict(fields=field(7, u64(253402300800)))),
    ("statement-not-after-2-to-the-64", "5.1", 10, dict(fields=field(7, u64(2 ** 64 - 1)))),
    ("statement-not-before-2-to-the-63", "5.1", 10, dict(fields=field(6, u64(2 ** 63)))),
    ("statement-byte-after", "5.1", 10, dict(statement=lambda s: s + b"\0")),
    ("statement-empty-field-after", "5.1", 10, dict(statement=lambda s: s + b"\0\0")),
    ("statement-cut-by-one", "5.1", 10, dict(statement=cut(-1))),
    ("statement-cut-to-one", "5.1", 10, dict(statement=cut(1))),
    ("statement-without-account", "5.1", 10, dict(fields=_drop(4))),
    ("statement-without-attributes", "5.1", 10, dict(fields=_drop(5))),
    ("statement-fields-swapped", "5.1", 10, dict(fields=lambda p: p.insert(3, p.pop(4)) or p.insert(0, p.pop(1)))),
    ("statement-random", "5.1", 10, dict(statement=lambda s: b"\x99" * len(s))),
    ("statement-length-past-end", "5.1", 10, dict(statement=put(0, b"\xff\xff"))),
    # binding: code 10
    ("binding-another-static-key", "5.5 step 3", 10, dict(static=lambda ctx: KeyPair.generate().public)),
    ("binding-static-key-flipped", "5.5 step 3", 10, dict(static=lambda ctx: flip(31, 0x80)(ctx.static.public))),
    ("binding-static-key-zero", "5.5 step 3", 10, dict(static=bytes(32))),
    ("binding-the-verifiers-static-key", "5.5 step 3", 10, dict(static=lambda ctx: ctx.noise.rs or bytes(32))),
    ("binding-an-ephemeral-key", "5.5 step 3", 10, dict(static=lambda ctx: ctx.noise.e.public)),
    ("binding-another-leaf", "5.5 step 3", 10, dict(leaf_hash=_own_leaf_of("peer-other"))),
    ("binding-leaf-zero", "5.5 step 3", 10, dict(leaf_hash=bytes(32))),
    ("binding-leaf-flipped", "5.5 step 3", 10, dict(fields=field(2, flip(0)))),
    ("binding-hash-of-the-intermediate", "5.5 step 3", 10, dict(leaf="peer-int", leaf_hash=lambda ctx: hashlib.sha256(
        ctx.env.pki.entry("peer-int")[1][1]).digest())),
    ("binding-leaf-exchanged", "5.5 step 3", 10, dict(leaf="peer-p256", leaf_hash=_own_leaf_of("peer-p384"))),
    # window
    ("window-past", "5.5 step 4", 11, dict(window=(-7200, -60))),
    ("window-future", "5.5 step 4", 11, dict(window=(120, 7200))),
    ("window-over-24-hours", "5.5 step 4", 11, dict(window=(-300, 86400 - 300 + 1))),
    ("window-of-a-year", "5.5 step 4", 11, dict(window=(-300, 300 * 86400))),
    ("window-reversed", "5.5 step 4", 11, dict(window=(3600, -300))),
    ("window-outlives-leaf", "5.5 step 4", 11, dict(leaf="peer-short", window=(-300, 3 * 3600))),
    ("window-from-zero", "5.5 step 4", 11, dict(fields=field(6, u64(0)))),
    ("leaf-expired", "5.5 step 4", 5, dict(leaf="peer-expired")),
    ("leaf-not-yet-valid", "5.5 step 4", 6, dict(leaf="peer-not-yet")),
    ("leaf-expired-and-window-past", "5.5 step 4", 5, dict(leaf="peer-expired", window=(-2 * 86400, -86400 - 7200))),
] + [("machine-" + n, "5.2", 12, dict(machine=m)) for n, m in NAMES] + [
    ("machine-in-certificate-" + n, "5.2", 12, dict(
        leaf="peer-odd-" + n, machine=m.encode())) for n, m in ODD_NAMES.items()] + [
    ("machine-by-wildcard", "5.2", 12, dict(leaf="peer-wildcard", machine=b"peer.example.test")),
    ("machine-by-common-name-only", "5.2", 12, dict(leaf="peer-no-san", machine=b"peer-no-san")),
    ("machine-by-ip-san", "5.2", 12, dict(leaf="peer-ip-san", machine=b"127.0.0.1")),
    ("machine-by-mail-san", "5.2", 12, dict(leaf="peer-mail-san", machine=b"peer.example.test")),
    ("machine-by-uri-san", "5.2", 12, dict(leaf="peer-uri-san", machine=b"peer.example.test")),
] + [("account-" + n, "5.3", 13, dict(account=a)) for n, a in ACCOUNTS] + [
    ("attribute-" + n, "5.4", 10 if n in ATTRIBUTE_FRAMES else 13, dict(raw_attributes=a)) for n, a in ATTRIBUTES] + [
    # chain
    (e[5:], "5.5 step 6", x, dict(leaf=e)) for e, x in [
        ("peer-unknown", 4), ("peer-rogue", 4), ("peer-self-signed", 4), ("peer-by-leaf", 4),
        ("peer-int-missing", 4), ("peer-int-not-ca", 4), ("peer-int-no-basic", 4),
        ("peer-int-no-sign", 4), ("peer-int-path", 4), ("peer-int-critical", 9),
        ("peer-critical", 9), ("peer-anchor-key", 9), ("peer-ca-unknown", 9), ("peer-no-usage-unknown", 9),
        ("peer-revoked-stale", 7), ("peer-limited-outside", 4), ("peer-limited-suffix", 4),
        ("peer-int-expired", 5), ("peer-int-not-yet", 6), ("peer-revoked", 7), ("peer-int-revoked", 7),
        ("peer-stale", 8), ("peer-lists-users-int", 8), ("peer-lists-cas", 8), ("peer-lists-cas-revoked", 7),
        ("peer-lists-place-none", 8), ("peer-lists-place-other", 8), ("peer-lists-place-reasons", 8),
        ("peer-crossed-other", 4), ("peer-nc-outside", 12), ("peer-nc-second-outside", 12), ("peer-nc-suffix", 12),
        ("peer-nc-excluded", 12), ("peer-nc-below", 12), ("peer-int-eku-code", 9), ("peer-ca", 9), ("peer-anchor", 9),
        ("peer-no-usage", 9), ("peer-usage-encipher", 9), ("peer-eku-code", 9), ("peer-eku-mail", 9)]] + [
    ("chain-signature-of-leaf-flipped", "5.5 step 6", 4, dict(certificates=lambda c: [flip(-1)(c[0])] + c[1:])),
    # the order of the checks: the first that fails names the code
    ("order-certificates-before-binding", "5.5", 9, dict(leaf="peer-rsa1024", leaf_hash=bytes(32))),
    ("order-statement-before-certificates", "5.5", 10, dict(leaf="peer-rsa1024", fields=field(0, b"\2"))),
    ("order-binding-before-expiry", "5.5", 10, dict(leaf="peer-expired", static=bytes(32))),
    ("order-expiry-before-window", "5.5", 5, dict(leaf="peer-expired", window=(-86400 * 3, 86400))),
    ("order-window-before-names", "5.5", 11, dict(window=(-7200, -60), machine=b"other.example.test")),
    ("order-machine-before-account", "5.5", 12, dict(machine=b"other.example.test", account=b"Root")),
    ("order-account-before-chain", "5.5", 13, dict(leaf="peer-unknown", account=b"Root")),
    ("order-attributes-before-chain", "5.5", 13, dict(leaf="peer-unknown", attributes=[(b"user", b"root")])),
    ("order-attribute-frames-before-binding", "5.5", 10, dict(static=bytes(32), raw_attributes=b"\0")),
    ("order-chain-before-signature", "5.5", 4, dict(leaf="peer-unknown", signature=flip(-1))),
    ("order-revocation-before-signature", "5.5", 7, dict(leaf="peer-revoked", signature=flip(-1))),
    ("chain-of-another-leaf", "5.5 step 6", 4, dict(leaf="peer-int-missing", certificates=lambda c: c * 2)),
] + [("signature-" + n, "5.5 step 7", 10, d) for n, d in SIGNATURES] + [
    # and what must be accepted
    ("good-" + e[5:], "5.5", OK, dict(leaf=e)) for e in (
        "peer-p256", "peer-p384", "peer-ed25519", "peer-rsa", "peer-eku-any", "peer-eku-server", "peer-eku-client",
        "peer-no-basic", "peer-int", "peer-deep", "peer-int-root-sent", "peer-int-path-ok", "peer-int-eku-server",
        "peer-nc-inside", "peer-limited", "peer-limited-self", "peer-sha512", "peer-rsa-pss", "peer-int-idle",
        "peer-deep-reordered", "peer-crossed", "peer-crossed-both", "peer-lists-divided", "peer-lists-divided-int",
        "peer-lists-users", "peer-lists-cas-int", "peer-lists-place", "peer-lists-place-one-of-two")] + [
    ("good-machine-of-upper-case-san", "5.2", OK, dict(leaf="peer-odd-upper-case", machine=b"upper.example.test")),
    ("good-window-of-24-hours", "5.5 step 4", OK, dict(window=(-300, 86400 - 300))),
    ("good-account-of-64", "5.3", OK, dict(account=b"a" * 64)),
    ("good-uid-of-32-bits", "5.4", OK, dict(attributes=[(b"uid", b"4294967295")])),
    ("good-uid-0", "5.4", OK, dict(attributes=[(b"uid", b"0")])),
    ("good-account-digits", "5.3", OK, dict(account=b"1000")),
    ("good-account-all-signs", "5.3", OK, dict(account=b"_a.b$c+d-e")),
    ("good-attributes", "5.4", OK, dict(attributes=[
        (b"groups", b"adm,wheel"), (b"uid", b"1000"), (b"x-other_1", b"~ ")])),
    ("good-socket", "5.4", OK, dict(attributes=[(b"socket", b"blue-7.a")])),
    ("good-longest-socket", "5.4", OK, dict(attributes=[(b"socket", b"a" * 64)])),
    ("good-groups-escaped", "5.4", OK, dict(attributes=[
        (b"groups", b"%20,a%2Cwheel,dom%C3%A4nen-benutzer,domain%20users,r%26d%25,wheel")])),
    ("good-group-of-256", "5.4", OK, dict(attributes=[(b"groups", b"a" * 255 + b"%20")])),
    ("good-sixteen-attributes", "5.4", OK, dict(attributes=[(b"a%02d" % i, b"") for i in range(16)])),
    ("good-longest-attribute", "5.4", OK, dict(attributes=[(b"a" * 32, b"x" * 2048)])),
]


# Choices and offers ----------------------------------------

def chosen(**more):
    def change(choice):
        values = dict(application=choice.application, record=choice.record, rpc=choice.rpc,
                      frame_size=choice.frame_size, transport=choice.transport)
        values.update(more)
        return Choice(**values).encode()
    return change


def on_choice(change):
    return lambda choice: change(choice.encode())


def raw_choice(application=None, record=None, transport=b"\0"):
    def change(choice):
        return ((opaque8(choice.application.encode()) if application is None else application)
                + (opaque8(choice.record.encode()) if record is None else record)
                + choice.rpc.encode() + bytes(4) + transport)
    return change


CHOICES = [
    ("application-not-offered", 18, chosen(application="not-offered")),
    ("application-prefix", 18, lambda c: chosen(application=c.application[:-1])(c)),
    ("application-upper-case", 18, lambda c: chosen(application=c.application.upper())(c)),
    ("record-not-offered", 18, chosen(record="ALTSRP_GCM_AES128")),
    ("record-integrity-only", 18, chosen(record="ALTSRP_GMAC_128")),
    ("transport-not-offered", 18, chosen(transport="not-offered")),
    ("rpc-too-new", 17, chosen(rpc=RpcVersions((99, 0), (98, 0)))),
    ("rpc-too-old", 17, chosen(rpc=RpcVersions((0, 1), (0, 0)))),
    ("rpc-reversed", 17, chosen(rpc=RpcVersions((0, 0), (99, 0)))),
    ("application-empty", 2, raw_choice(application=b"\0")),
    ("application-of-65", 2, raw_choice(application=opaque8(b"a" * 65))),
    ("application-with-space", 18, raw_choice(application=opaque8(b"grpc x"))),
    ("application-with-nul", 18, raw_choice(application=opaque8(b"grpc\0"))),
    ("record-with-high-byte", 18, raw_choice(record=opaque8(b"ALTSRP_GCM_AES128_REKEY\xff"[1:]))),
    ("transport-with-space", 18, raw_choice(transport=opaque8(b" "))),
    ("not-offered-and-rpc-too-new", 18, chosen(application="not-offered", rpc=RpcVersions((99, 0), (98, 0)))),
    ("record-empty", 2, raw_choice(record=b"\0")),
    ("record-of-65", 2, raw_choice(record=opaque8(b"a" * 65))),
    ("transport-of-65", 2, raw_choice(transport=opaque8(b"a" * 65))),
    ("cut-by-one", 2, on_choice(cut(-1))),
    ("byte-after", 2, on_choice(lambda c: c + b"\0")),
    ("one-byte", 2, on_choice(cut(1))),
    ("twice", 2, on_choice(lambda c: c + c)),
    ("length-past-end", 2, on_choice(put(0, b"\xff"))),
    ("empty", 2, lambda c: b""),
    ("of-2049", 2, lambda c: bytes(2049)),
    ("largest-frame-size", OK, chosen(frame_size=2 ** 32 - 1)),
    ("wide-rpc", OK, chosen(rpc=RpcVersions((2 ** 32 - 1, 2 ** 32 - 1), (0, 0)))),
]


def offered(**more):
    def change(offer):
        values = dict(application=offer.application, record=offer.record, rpc=offer.rpc,
                      frame_size=offer.frame_size, transport=offer.transport)
        values.update({k: v(values[k]) if callable(v) else v for k, v in more.items()})
        return Offer(**values).encode()
    return change


def on_offer(change):
    return lambda offer: change(offer.encode())


OFFERS = [
    ("no-application-in-common", 15, offered(application=["not-known"])),
    ("no-record-in-common", 16, offered(record=["ALTSRP_GMAC_128"])),
    ("rpc-too-new", 17, offered(rpc=RpcVersions((99, 0), (98, 0)))),
    ("rpc-too-old", 17, offered(rpc=RpcVersions((0, 1), (0, 0)))),
    ("rpc-reversed", 17, offered(rpc=RpcVersions((0, 0), (99, 0)))),
    ("nothing-in-common", 15, offered(application=["not-known"], record=["not-known"],
                                      rpc=RpcVersions((99, 0), (98, 0)))),
    ("no-record-and-no-rpc-in-common", 16, offered(record=["not-known"], rpc=RpcVersions((99, 0), (98, 0)))),
    ("no-applications", 2, offered(application=[])),
    ("seventeen-applications", 2, offered(application=lambda a: a + ["a%d" % i for i in range(16)])),
    ("application-twice", 2, offered(application=lambda a: a + a)),
    ("application-empty", 2, offered(application=lambda a: a + [""])),
    ("application-of-65", 2, offered(application=lambda a: a + ["a" * 65])),
    ("application-with-space", 2, offered(application=lambda a: a + ["a b"])),
    ("application-with-high-byte", 2, offered(application=lambda a: a + ["a\xff"])),
    ("no-records", 2, offered(record=[])),
    ("seventeen-records", 2, offered(record=lambda a: a + ["a%d" % i for i in range(16)])),
    ("record-twice", 2, offered(record=lambda a: a + a)),
    ("seventeen-transports", 2, offered(transport=["a%d" % i for i in range(17)])),
    ("transport-empty", 2, offered(transport=[""])),
    ("transport-twice", 2, offered(transport=["a", "a"])),
    ("cut-by-one", 2, on_offer(cut(-1))),
    ("byte-after", 2, on_offer(lambda o: o + b"\0")),
    ("one-byte", 2, on_offer(cut(1))),
    ("twice", 2, on_offer(lambda o: o + o)),
    ("empty", 2, lambda o: b""),
    ("of-2049", 2, lambda o: bytes(2049)),
    ("more-than-needed", OK, offered(application=lambda a: ["first"] + a + ["last"], record=lambda a: ["other"] + a,
                                     transport=["unknown"], frame_size=2 ** 32 - 1)),
    ("sixteen-of-each", OK, offered(application=lambda a: ["a%d" % i for i in range(15)] + a,
                                    record=lambda a: ["a%d" % i for i in range(15)] + a,
                                    transport=["a%d" % i for i in range(16)])),
]

# Frames of both sides: (name, section, expect, key, change) ----------------------------------------

NO_ANSWER = ("closed", "told 2")


def _frame_cases(kind, hook, low, high):
    other = [k for k in (MESSAGE_1, MESSAGE_2, MESSAGE_3) if k != kind]
    out = [
        ("version-0", "3.1", 1, put(4, b"\0")),
        ("version-2", "3.1", 1, put(4, b"\2")),
        ("version-255", "3.1", 1, put(4, b"\xff")),
        ("version-2-and-type-9", "3.1", 1, put(4, b"\2\x09")),
        ("version-2-and-length-0", "3.1", 1, lambda f: put(4, b"\2")(length(0)(f))),
        ("type-9-and-length-0", "3", 2, lambda f: put(5, b"\x09")(length(0)(f))),
        ("type-0", "3", 2, put(5, b"\0")),
        ("type-%d" % other[0], "3", 2, put(5, u8(other[0]))),
        ("type-%d" % other[1], "3", 2, put(5, u8(other[1]))),
        ("type-5", "3", 2, put(5, b"\5")),
        ("type-255", "3", 2, put(5, b"\xff")),
        ("length-0", "3", 2, length(0)),
        ("length-below", "3", 2, length(low - 1)),
        ("length-above", "3", 2, length(high + 1)),
        ("length-65535", "3", 2, length(65535)),
        ("type-status-with-its-length", "3", 2, put(5, u8(STATUS))),
        ("status-of-0-bytes", "3.2", 2, lambda f: frame(STATUS, b"")),
        ("status-of-5-bytes", "3.2", 2, lambda f: frame(STATUS, bytes([0, 2, 1, 1, 0]))),
        ("status-0", "3.2", 2, lambda f: Status(0).frame()),
    ]
    for i in range(4):
        out.append(("magic-byte-%d" % i, "7.2", NO_ANSWER, flip(i, 0x20)))
    return [("%s-%s" % (hook, n), s, e, {hook: c}) for n, s, e, c in out]


def _cut_cases(kind, hook, sizes):
    return [("%s-cut-to-%d" % (hook, n), "3", CUT, {hook: cut(n), "eof": True}) for n in sizes] + [
        ("%s-cut-by-one" % hook, "3", CUT, {hook: cut(-1), "eof": True})]


INITIATOR = (
    [("foreign-" + n, "3", NO_ANSWER, dict(raw1=d)) for n, d in FOREIGN.items()]
    + [("nothing-then-eof", "3", CUT, dict(raw1=b"", eof=True)),
       ("magic-then-eof", "3", CUT, dict(raw1=MAGIC, eof=True)),
       ("status-first", "3", NO_ANSWER, dict(raw1=Status(22).frame(), eof=True)),
       ("status-0-first", "3.2", 2, dict(raw1=Status(0).frame())),
       ("status-of-5-bytes-first", "3.2", 2, dict(raw1=frame(STATUS, bytes([0, 2, 1, 1, 0])))),
       ("message-3-first", "3", 2, dict(raw1=_body(MESSAGE_3, 1232))),
       ("message-2-first", "3", 2, dict(raw1=_body(MESSAGE_2, 1232))),
       ("message-1-of-random-bytes", "4.1", 3, dict(raw1=_body(MESSAGE_1, 1232))),
       ("message-1-of-zeros", "4.1", 3, dict(raw1=_body(MESSAGE_1, 1232, b"\0"))),
       ("message-1-twice-at-once", "3", 2, dict(after1=_body(MESSAGE_1, 1232))),
       ("header-of-message-3-with-message-1", "3", 2, dict(after1=_body(MESSAGE_3, 69)[:8]))]
    + _frame_cases(MESSAGE_1, "frame1", 1232, 1232)
    + _cut_cases(MESSAGE_1, "frame1", (1, 3, 7, 8, 9, 40, 1239))
    + [("message-1-ephemeral-flipped", "4.1", 3, dict(frame1=flip(8))),
       ("message-1-ephemeral-high-bit", "4.1", 3, dict(frame1=flip(39, 0x80))),
       ("message-1-payload-flipped", "4.1", 3, dict(frame1=flip(600))),
       ("message-1-tag-flipped", "4.1", 3, dict(frame1=flip(-1)))]
    + [("message-1-ephemeral-low-order-" + n, "2", 3, dict(ephemeral=p)) for n, p in LOW_ORDER.items()]
    + [("ek-coefficient-%d-is-%d" % (i, v), "2", 3, dict(ek=coefficient(i, v)))
       for i, v in ((0, 3329), (0, 4095), (1, 3329), (255, 3329), (256, 4095), (511, 3330), (767, 3329), (767, 4095))]
    + [("ek-all-ones", "2", 3, dict(ek=lambda ek: b"\xff" * 1184)),
       ("ek-without-rho-is-out-of-range", "2", 3, dict(ek=lambda ek: b"\xff" * 1152 + ek[1152:])),
       ("ek-of-another-key", "2", 3, dict(ek=lambda ek: mlkem.keygen()[0], psk=lambda k: k)),
       ("ek-zero-polynomials", "2", 3, dict(ek=lambda ek: bytes(1152) + ek[1152:], psk=lambda k: k))]
    + [("prologue-empty", "2", 3, dict(noise=prologue(b""))),
       ("prologue-version-2", "2", 3, dict(noise=prologue(PROLOGUE[:-1] + b"\2"))),
       ("prologue-without-version", "2", 3, dict(noise=prologue(PROLOGUE[:-1]))),
       ("prologue-ascii-version", "2", 3, dict(noise=prologue(PROLOGUE[:-1] + b"1"))),
       ("noise-name-xx", "2", 3, dict(noise=protocol_name(b"Noise_XX_25519_AESGCM_SHA256"))),
       ("noise-name-xxpsk0", "2", 3, dict(noise=protocol_name(b"Noise_XXpsk0_25519_AESGCM_SHA256"))),
       ("noise-name-chachapoly", "2", 3, dict(noise=protocol_name(b"Noise_XXpsk3_25519_ChaChaPoly_SHA256"))),
       ("noise-name-sha512", "2", 3, dict(noise=protocol_name(b"Noise_XXpsk3_25519_AESGCM_SHA512")))]
    + _frame_cases(MESSAGE_3, "frame3", 70, 24576)
    + _cut_cases(MESSAGE_3, "frame3", (0, 1, 4, 7, 8, 9, 77, 200))
    + [("message-3-static-flipped", "4.3", 3, dict(frame3=flip(8))),
       ("message-3-static-tag-flipped", "4.3", 3, dict(frame3=flip(8 + 47))),
       ("message-3-payload-flipped", "4.3", 3, dict(frame3=flip(8 + 48))),
       ("message-3-payload-middle-flipped", "4.3", 3, dict(frame3=flip(400))),
       ("message-3-tag-flipped", "4.3", 3, dict(frame3=flip(-1))),
       ("message-3-random-of-70", "4.3", 3, dict(raw3=lambda ctx: _body(MESSAGE_3, 70))),
       ("message-3-random-of-24576", "4.3", 3, dict(raw3=lambda ctx: _body(MESSAGE_3, 24576))),
       ("message-3-without-its-last-byte", "4.3", 3, dict(frame3=lambda f: frame(MESSAGE_3, f[8:-1]))),
       ("message-3-with-a-byte-more", "4.3", 3, dict(frame3=lambda f: frame(MESSAGE_3, f[8:] + b"\0"))),
       ("message-3-psk-zero", "2", 3, dict(psk=lambda k: bytes(32))),
       ("message-3-psk-flipped", "2", 3, dict(psk=flip(0))),
       ("message-3-psk-hashed", "2", 3, dict(psk=lambda k: hashlib.sha256(k).digest())),
       ("message-3-replayed-from-another-handshake", "2", 3, dict(raw3=lambda ctx: ctx.env.recorded["message 3"])),
       ("message-1-replayed", "2", 3, dict(replay1=True, raw3=lambda ctx: ctx.env.recorded["message 3"])),
       ("message-2-reflected", "3", 2, dict(raw3=lambda ctx: ctx.frame2)),
       ("message-2-reflected-as-message-3", "4.3", 3, dict(raw3=lambda ctx: frame(MESSAGE_3, ctx.frame2[8:]))),
       ("message-1-again", "3", 2, dict(raw3=lambda ctx: ctx.frame1)),
       ("message-1-again-as-message-3", "4.3", 3, dict(raw3=lambda ctx: frame(MESSAGE_3, ctx.frame1[8:]))),
       ("record-in-place-of-message-3", "3", NO_ANSWER, dict(raw3=lambda ctx: FOREIGN["alts-record"])),
       ("tls-in-place-of-message-3", "3", NO_ANSWER, dict(raw3=lambda ctx: CLIENT_HELLO)),
       ("status-in-place-of-message-3", "7.2", NO_ANSWER, dict(raw3=lambda ctx: Status(14).frame(), eof=True)),
       ("status-of-version-9-in-place-of-message-3", "3.1", NO_ANSWER, dict(
           raw3=lambda ctx: put(4, b"\x09")(Status(14).frame()), eof=True)),
       ("status-of-unknown-code-in-place-of-message-3", "3.2", NO_ANSWER, dict(
           raw3=lambda ctx: Status(65535).frame(), eof=True)),
       ("static-is-the-responders", "5.5 step 3", 3, dict(static_of_peer=True))]
    + [("message-3-static-low-order-" + n, "2", 3, dict(static=p)) for n, p in LOW_ORDER.items()]
    + [("static-of-somebody-else", "2", 3, dict(static=KeyPair(b"\x42" * 32).public, static_low=False)),
       ("identity-of-the-responder-reflected", "5.5 step 3", 10, dict(identity=dict(
           replace=lambda ctx: ctx.peer_identity))),
       ("identity-recorded-elsewhere", "5.5 step 3", 10, dict(identity=dict(
           replace=lambda ctx: ctx.env.recorded["identity"])))]
    + [("payload-3-empty", "4.3", 2, dict(payload3=lambda p: bytes(6))),
       ("payload-3-identity-length-0", "4.3", 2, dict(payload3=put(0, b"\0\0"))),
       ("payload-3-identity-length-21505", "4.3", 2, dict(payload3=lambda p: opaque16(bytes(21505)) + opaque16(b"x"))),
       ("payload-3-identity-length-past-end", "4.3", 2, dict(payload3=put(0, b"\x50\0"))),
       ("payload-3-byte-after", "4.3", 2, dict(payload3=lambda p: p + b"\0")),
       ("payload-3-choice-twice", "4.3", 2, dict(payload3=lambda p: p + opaque16(b"x"))),
       ("payload-3-cut-by-one", "4.3", 2, dict(payload3=cut(-1))),
       ("payload-3-without-choice", "4.3", 2, dict(payload3=lambda p: p[:2 + int.from_bytes(p[:2], "big")])),
       ("order-identity-before-choice", "7.2", 10, dict(identity=dict(static=bytes(32)), choice=lambda c: b"\xff")),
       ("order-format-of-choice-before-offered", "6", 2, dict(choice=lambda c: chosen(application="x")(c) + b"\0")),
       ("payload-3-of-largest-size", "4.3", 2, dict(payload3=lambda p: p + bytes(24576 - 64 - len(p))))]
    + [("choice-" + n, "6", e, dict(choice=c)) for n, e, c in CHOICES]
    + [("good-byte-by-byte", "3", OK, dict(bytewise=True)),
       ("good-record-right-behind-message-3", "3", OK, dict(after3=FOREIGN["alts-record"])),
       ("good-garbage-right-behind-message-3", "3", OK, dict(after3=b"\xff" * 4000))]
)

RESPONDER = (
    [("foreign-" + n, "3", NO_ANSWER, dict(raw2=(lambda d: lambda ctx: d)(d))) for n, d in FOREIGN.items()]
    + [("nothing-then-eof", "3", CUT, dict(raw2=lambda ctx: b"", eof=True)),
       ("message-1-reflected", "3", 2, dict(raw2=lambda ctx: ctx.frame1)),
       ("message-1-reflected-as-message-2", "4.2", 3, dict(raw2=lambda ctx: frame(MESSAGE_2, ctx.frame1[8:]))),
       ("message-3-in-place-of-2", "3", 2, dict(raw2=lambda ctx: _body(MESSAGE_3, 1232))),
       ("message-2-random-of-1190", "4.2", 3, dict(raw2=lambda ctx: _body(MESSAGE_2, 1190))),
       ("message-2-random-of-24576", "4.2", 3, dict(raw2=lambda ctx: _body(MESSAGE_2, 24576))),
       ("message-2-replayed-from-another-handshake", "2", 3, dict(raw2=lambda ctx: ctx.env.recorded["message 2"])),
       ("status-in-place-of-message-2", "7.1", ("closed", "told 19"), dict(raw2=lambda ctx: Status(19).frame())),
       ("status-of-version-9", "3.1", ("closed", "told 1"), dict(
           raw2=lambda ctx: put(4, b"\x09")(Status(1, 2, 9).frame()))),
       ("status-of-unknown-code", "3.2", "closed", dict(raw2=lambda ctx: Status(4711).frame()))]
    + _frame_cases(MESSAGE_2, "frame2", 1190, 24576)
    + _cut_cases(MESSAGE_2, "frame2", (1, 4, 7, 8, 9, 40, 1190))
    + [("message-2-ephemeral-flipped", "4.2", 3, dict(frame2=flip(8))),
       ("message-2-static-flipped", "4.2", 3, dict(frame2=flip(40))),
       ("message-2-static-tag-flipped", "4.2", 3, dict(frame2=flip(87))),
       ("message-2-ciphertext-flipped", "4.2", 3, dict(frame2=flip(88))),
       ("message-2-payload-flipped", "4.2", 3, dict(frame2=flip(88 + 1088 + 40))),
       ("message-2-tag-flipped", "4.2", 3, dict(frame2=flip(-1))),
       ("message-2-without-its-last-byte", "4.2", 3, dict(frame2=lambda f: frame(MESSAGE_2, f[8:-1]))),
       ("message-2-with-a-byte-more", "4.2", 3, dict(frame2=lambda f: frame(MESSAGE_2, f[8:] + b"\0")))]
    + [("message-2-ephemeral-low-order-" + n, "2", 3, dict(ephemeral=p)) for n, p in LOW_ORDER.items()]
    + [("message-2-static-low-order-" + n, "2", 3, dict(static=p)) for n, p in LOW_ORDER.items()]
    + [("static-of-somebody-else", "2", 3, dict(static=KeyPair(b"\x42" * 32).public, static_low=False)),
       ("identity-recorded-elsewhere", "5.5 step 3", 10, dict(identity=dict(
           replace=lambda ctx: ctx.env.recorded["identity"])))]
    + [("ciphertext-flipped-under-noise", "2", "wrong message 3", dict(ciphertext=flip(0))),
       ("ciphertext-zero", "2", "wrong message 3", dict(ciphertext=lambda c: bytes(1088))),
       ("ciphertext-all-ones", "2", "wrong message 3", dict(ciphertext=lambda c: b"\xff" * 1088)),
       ("ciphertext-for-another-key", "2", "wrong message 3", dict(
           ciphertext=lambda c: mlkem.encaps(mlkem.keygen()[0])[1]))]
    + [("payload-2-identity-length-0", "4.2", 2, dict(payload2=put(1088, b"\0\0"))),
       ("payload-2-identity-length-21505", "4.2", 2, dict(
           payload2=lambda p: p[:1088] + opaque16(bytes(21505)) + opaque16(b"x"))),
       ("payload-2-identity-length-past-end", "4.2", 2, dict(payload2=put(1088, b"\x50\0"))),
       ("payload-2-byte-after", "4.2", 2, dict(payload2=lambda p: p + b"\0")),
       ("payload-2-cut-by-one", "4.2", 2, dict(payload2=cut(-1))),
       ("order-identity-before-offer", "7.1", 10, dict(identity=dict(static=bytes(32)), offer=lambda o: b"\xff")),
       ("payload-2-shortest", "4.2", 2, dict(payload2=cut(1094))),
       ("payload-2-without-ciphertext", "4.2", 2, dict(payload2=lambda p: p[1088:] + bytes(4000)))]
    + [("offer-" + n, "6", e, dict(offer=c)) for n, e, c in OFFERS]
    + [("final-" + n, s, e, dict(raw4=d, **m)) for n, s, e, d, m in (
        ("status-refused", "7.1", ("closed", "told 13"), Status(13).frame(), {}),
        ("status-unknown-code", "3.2", "closed", Status(4711).frame(), {}),
        ("status-of-5-bytes", "3.2", 2, frame(STATUS, bytes(5)), {}),
        ("status-of-3-bytes", "3.2", 2, frame(STATUS, bytes(3)), {}),
        ("message-1", "3", 2, _body(MESSAGE_1, 1232), {}),
        ("message-2-again", "3", 2, _body(MESSAGE_2, 1200), {}),
        ("message-3", "3", 2, _body(MESSAGE_3, 1200), {}),
        ("record-without-status", "3", NO_ANSWER, FOREIGN["alts-record"], {}),
        ("type-0", "3", 2, frame(0, bytes(4)), {}),
        ("status-cut", "3.2", CUT, Status(0).frame()[:-1], dict(eof4=True)),
        ("eof-without-status", "7.1", CUT, b"", dict(eof4=True)))]
    + [("good-byte-by-byte", "3", OK, dict(bytewise=True))]
)


def table():
    """All cases, in order; names are unique.

    A responder's deadline runs from the first byte of the peer's, so silence from the start is answered by silence.
    """
    out = []
    for role, own in (("initiator", INITIATOR), ("responder", RESPONDER)):
        letter = role[0]
        for name, section, expect, how in own:
            how = {k: v for k, v in how.items() if v is not None}
            out.append(Case("%s/%s" % (letter, name), role, section, expect, how))
        for name, section, expect, identity in IDENTITIES:
            out.append(Case("%s/%s" % (letter, name), role, section, expect, {"identity": identity}))
    out.append(Case("i/silent-from-the-start", "initiator", "7.2", ("closed", 20, "silent"), {"raw1": b""}, slow=True))
    out.append(Case("i/silent-after-header", "initiator", "7.2", (20, "closed"),
                    {"raw1": _body(1, 1232)[:8]}, slow=True))
    out.append(Case("i/silent-in-message-3", "initiator", "7.2", (20, "closed"),
                    {"raw3": lambda ctx: _body(3, 1232)[:100]}, slow=True))
    out.append(Case("r/silent-after-message-1", "responder", "7.1", (20, "closed"),
                    {"raw2": lambda ctx: b""}, slow=True))
    out.append(Case("r/silent-after-message-3", "responder", "7.1", (20, "closed"), {"raw4": b""}, slow=True))
    names = [c.name for c in out]
    assert len(set(names)) == len(names), sorted(n for n in names if names.count(n) > 1)
    return out
