"""make-pki: keys and certificates for tests, good and bad, in a directory that a daemon can be started with.

NAME.pem holds the chain, leaf first; NAME.key the private key, PKCS #8. What a daemon is given:

    ca.pem              CAs to be trusted for every name
    ca-limited.pem      a CA to be trusted for limited.test and under it only
    crl.pem             revocation lists: in force, past their next update, and for some certificates only
    daemon-KIND.pem, .key   a machine certificate for daemon.example.test; KIND is p256, p384, ed25519 or rsa

pki.json lists everything. Nothing here may be trusted outside a test.
"""

import datetime
import ipaddress
import json
import os

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa, x25519
from cryptography.x509.oid import ExtendedKeyUsageOID as EKU
from cryptography.x509.oid import NameOID

from .identity import Certificate, RevocationList, Signer, Trust

DAEMON = "daemon.example.test"
PEER = "peer.example.test"
LIMIT = "limited.test"
ODD_NAMES = {"localhost": "localhost", "under-localhost": "x.localhost", "underscore": "under_score.example.test",
             "literal-wildcard": "*.wild.example.test", "dotted-quad": "10.1.2.3",
             "trailing-dot": "trailing.example.test.", "leading-hyphen": "-hyphen.example.test",
             "hyphen-at-end": "hyphen-.example.test", "last-label-digits": "digits.123",
             "upper-case": "UPPER.example.test", "label-of-64": "a" * 64 + ".example.test"}


def new_key(kind):
    if kind == "p256":
        return ec.generate_private_key(ec.SECP256R1())
    if kind == "p384":
        return ec.generate_private_key(ec.SECP384R1())
    if kind == "p521":
        return ec.generate_private_key(ec.SECP521R1())
    if kind == "p224":
        return ec.generate_private_key(ec.SECP224R1())
    if kind == "secp256k1":
        return ec.generate_private_key(ec.SECP256K1())
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "ed448":
        return ed448.Ed448PrivateKey.generate()
    if kind == "x25519":
        return x25519.X25519PrivateKey.generate()
    if kind == "dsa":
        return dsa.generate_private_key(1024)
    return rsa.generate_private_key(65537, int(kind[3:] or 2048))


def _modulus(bits, exponent=65537):
    """A public key whose modulus nobody can factor: enough where it must be refused for its size."""
    n = int.from_bytes(os.urandom(bits // 8), "big") | 1 << (bits - 1) | 1
    return rsa.RSAPublicNumbers(exponent, n).public_key()


def _name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(sign=True, cert=False):
    return x509.KeyUsage(digital_signature=sign, content_commitment=False, key_encipherment=not sign and not cert,
                         data_encipherment=False, key_agreement=False, key_cert_sign=cert, crl_sign=cert,
                         encipher_only=False, decipher_only=False)


def _der(tag, content):
    size = len(content)
    return bytes([tag]) + (bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")) + content


_SHA256 = _der(0x30, bytes.fromhex("0609608648016503040201") + b"\x05\0")
_PSS_PARAMETERS = _der(0x30, _der(0xa0, _SHA256)
                       + _der(0xa1, _der(0x30, bytes.fromhex("06092a864886f70d010108") + _SHA256))
                       + _der(0xa2, b"\x02\x01\x20"))
PSS_ALGORITHM = _der(0x30, bytes.fromhex("06092a864886f70d01010a") + _PSS_PARAMETERS)


def pss_signed(certificate, key):
    """The certificate signed anew with RSASSA-PSS, which the library of Debian 12 does not do by itself."""
    tbs = certificate.tbs_certificate_bytes
    old = _der(0x30, bytes.fromhex("06092a864886f70d01010b") + b"\x05\0")  # sha256WithRSAEncryption
    assert tbs[0] == 0x30 and tbs.count(old) == 1
    header = 2 + (tbs[1] & 127 if tbs[1] & 128 else 0)
    tbs = _der(0x30, tbs[header:].replace(old, PSS_ALGORITHM))
    signature = key.sign(tbs, padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32), hashes.SHA256())
    return x509.load_der_x509_certificate(_der(0x30, tbs + PSS_ALGORITHM + _der(3, b"\0" + signature)))


def signed_anew(certificate, tbs, key):
    """The certificate with another content, signed with ECDSA and SHA-256 as it was before."""
    algorithm = _der(0x30, bytes.fromhex("06082a8648ce3d040302"))
    assert certificate.signature_algorithm_oid.dotted_string == "1.2.840.10045.4.3.2"
    assert tbs != certificate.tbs_certificate_bytes
    signature = key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    return x509.load_der_x509_certificate(_der(0x30, tbs + algorithm + _der(3, b"\0" + signature)))


class CA:
    def __init__(self, name, key, certificate, chain=()):
        self.name, self.key, self.certificate = name, key, certificate
        self.chain = list(chain)  # certificates to send, this CA's own first; empty for a root


class Builder:
    def __init__(self):
        self.now = datetime.datetime.utcnow().replace(microsecond=0)
        self.entries = {}

    def make(self, subject, public, issuer=None, key=None, ca=False, names=(), start=-1, end=365, usage="default",
             eku=None, path=None, constraints=None, digest=None, extra=(), sans=None, basic=True, plain=()):
        """A certificate; start and end are days from now."""
        signer = issuer.key if issuer else key
        b = (x509.CertificateBuilder().subject_name(_name(subject))
             .issuer_name(issuer.certificate.subject if issuer else _name(subject))
             .public_key(public).serial_number(x509.random_serial_number())
             .not_valid_before(self.now + datetime.timedelta(days=start))
             .not_valid_after(self.now + datetime.timedelta(days=end)))
        if basic:
            b = b.add_extension(x509.BasicConstraints(ca, path if ca else None), True)
        if usage == "default":
            usage = _usage(not ca, ca)
        if usage is not None:
            b = b.add_extension(usage, True)
        if eku is not None:
            b = b.add_extension(x509.ExtendedKeyUsage(eku), False)
        general = [x509.DNSName(n) for n in names] + list(sans or [])
        if general:
            b = b.add_extension(x509.SubjectAlternativeName(general), False)
        if constraints is not None:
            b = b.add_extension(constraints, True)
        b = b.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
        if issuer:
            b = b.add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.certificate.public_key()), False)
        for e in extra:
            b = b.add_extension(e, True)
        for e in plain:
            b = b.add_extension(e, False)
        if isinstance(signer, (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey)):
            return b.sign(signer, None)
        default = hashes.SHA384() if isinstance(signer, ec.EllipticCurvePrivateKey) and signer.key_size == 384 \
            else hashes.SHA256()
        return b.sign(signer, digest or default)

    def root(self, name, kind, **more):
        key = new_key(kind)
        return CA(name, key, self.make(more.pop("subject", "altsd test " + name), key.public_key(), key=key, ca=True,
                                       **more))

    def intermediate(self, name, issuer, kind="p256", **more):
        key = more.pop("key", None) or new_key(kind)
        public = more.pop("public", None) or key.public_key()
        certificate = self.make("altsd test " + name, public, issuer, ca=more.pop("ca", True), **more)
        return CA(name, key, certificate, [certificate] + issuer.chain)

    def leaf(self, name, issuer, kind="p256", names=(PEER,), public=None, note="", **more):
        key = new_key(kind) if public is None else new_key("p256")
        certificate = self.make(name, public or key.public_key(), issuer, names=names, **more)
        self.entries[name] = (key, [certificate] + issuer.chain, (list(names) + [PEER])[0], note)
        return certificate


def make_pki(directory):
    os.makedirs(directory, exist_ok=True)
    b = Builder()
    roots = {k: b.root("root-" + k, "rsa2048" if k == "rsa" else k,
                       **({"names": ["root.example.test"]} if k == "p256" else {}))
             for k in ("p256", "p384", "ed25519", "rsa")}
    root = roots["p256"]
    limited = b.root("root-limited", "p256")
    stale = b.root("root-stale", "p256")
    rogue = b.root("rogue", "p256", subject="altsd test root-p256")
    unknown = b.root("root-unknown", "p256")

    for kind, r in roots.items():
        b.leaf("daemon-" + kind, r, "rsa2048" if kind == "rsa" else kind, (DAEMON,), note="a machine certificate")
        b.leaf("peer-" + kind, r, "rsa2048" if kind == "rsa" else kind, note="good")
    b.leaf("peer-other", root, names=("other.example.test",), note="good, another machine")
    for odd, name in ODD_NAMES.items():
        b.leaf("peer-odd-" + odd, root, names=(name,))
    b.leaf("peer-wildcard", root, names=("*.example.test",))
    b.leaf("peer-no-san", root, names=())
    b.leaf("peer-ip-san", root, names=(), sans=[x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    b.leaf("peer-mail-san", root, names=(), sans=[x509.RFC822Name("peer.example.test")])
    b.leaf("peer-uri-san", root, names=(), sans=[x509.UniformResourceIdentifier("https://peer.example.test")])
    b.leaf("peer-expired", root, start=-10, end=-1)
    b.leaf("peer-not-yet", root, start=1, end=10)
    b.leaf("peer-short", root, end=2 / 24)
    b.leaf("peer-ca", root, ca=True, usage=_usage(True, True))
    b.leaf("peer-no-usage", root, usage=None)
    b.leaf("peer-usage-encipher", root, usage=_usage(False))
    b.leaf("peer-eku-code", root, eku=[EKU.CODE_SIGNING])
    b.leaf("peer-eku-mail", root, eku=[EKU.EMAIL_PROTECTION, EKU.TIME_STAMPING])
    b.leaf("peer-eku-any", root, eku=[EKU.ANY_EXTENDED_KEY_USAGE])
    b.leaf("peer-eku-server", root, eku=[EKU.SERVER_AUTH])
    b.leaf("peer-eku-client", root, eku=[EKU.CLIENT_AUTH])
    b.leaf("peer-no-basic", root, basic=False)
    b.leaf("peer-critical", root, extra=[x509.UnrecognizedExtension(
        x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00")])
    revoked = b.leaf("peer-revoked", root)
    b.leaf("peer-stale", stale)
    b.leaf("peer-limited", limited, names=("a.limited.test",))
    b.leaf("peer-limited-self", limited, names=("limited.test",))
    b.leaf("peer-limited-outside", limited)
    b.leaf("peer-limited-suffix", limited, names=("unlimited.test",))
    b.leaf("peer-rogue", rogue)
    b.leaf("peer-unknown", unknown)
    for kind in ("p521", "p224", "secp256k1", "ed448", "dsa", "x25519"):
        b.leaf("peer-" + kind, root, kind)
    b.leaf("peer-rsa1024", root, public=_modulus(1024))
    b.leaf("peer-rsa2047", root, public=rsa.RSAPublicNumbers(
        65537, _modulus(2048).public_numbers().n >> 1 | 1).public_key())
    b.leaf("peer-rsa4104", root, public=_modulus(4104))
    b.leaf("peer-rsa8192", root, public=_modulus(8192))
    b.leaf("peer-rsa-e3", root, public=_modulus(2048, 3))
    b.leaf("peer-sha1", roots["rsa"], digest=hashes.SHA1())
    b.leaf("peer-sha224", roots["rsa"], digest=hashes.SHA224())
    b.leaf("peer-sha512", roots["rsa"], digest=hashes.SHA512())
    plain = b.leaf("peer-pss-key", root, "rsa2048")
    b.entries["peer-pss-key"][1][0] = signed_anew(plain, plain.tbs_certificate_bytes.replace(
        bytes.fromhex("06092a864886f70d010101"), bytes.fromhex("06092a864886f70d01010a")), root.key)
    b.leaf("peer-anchor-key", limited, public=root.key.public_key())
    b.entries["peer-anchor-key"] = (root.key,) + b.entries["peer-anchor-key"][1:]
    b.leaf("peer-ca-unknown", unknown, ca=True, usage=_usage(True, True))
    b.leaf("peer-no-usage-unknown", unknown, usage=None)
    revoked_stale = b.leaf("peer-revoked-stale", stale)
    key = new_key("p256")
    plain = b.make("peer-rsa-pss", key.public_key(), roots["rsa"], names=[PEER])
    b.entries["peer-rsa-pss"] = (key, [pss_signed(plain, roots["rsa"].key)], PEER, "good: its CA signs by RSASSA-PSS")

    inter = b.intermediate("int", root)
    b.leaf("peer-int", inter)
    deep = b.intermediate("int-deep-2", b.intermediate("int-deep-1", root, "p384"), "ed25519")
    b.leaf("peer-deep", deep)
    b.leaf("peer-int-expired", b.intermediate("int-expired", root, start=-10, end=-1))
    b.leaf("peer-int-not-yet", b.intermediate("int-not-yet", root, start=1, end=10))
    b.leaf("peer-int-not-ca", b.intermediate("int-not-ca", root, ca=False, usage=_usage(True, True)))
    b.leaf("peer-int-no-basic", b.intermediate("int-no-basic", root, ca=False, basic=False))
    b.leaf("peer-int-no-sign", b.intermediate("int-no-sign", root, usage=_usage(True, False)))
    zero = b.intermediate("int-path-0", root, path=0)
    b.leaf("peer-int-path-ok", zero)
    b.leaf("peer-int-path", b.intermediate("int-below-path-0", zero))
    b.leaf("peer-int-eku-code", b.intermediate("int-eku-code", root, eku=[EKU.CODE_SIGNING]))
    b.leaf("peer-int-eku-server", b.intermediate("int-eku-server", root, eku=[EKU.SERVER_AUTH]))
    b.leaf("peer-int-rsa1024", b.intermediate("int-rsa1024", root, public=_modulus(1024)))
    b.leaf("peer-int-rsa8200", b.intermediate("int-rsa8200", root, public=_modulus(8200)))
    b.leaf("peer-int-p521", b.intermediate("int-p521", root, "p521"))
    b.leaf("peer-int-critical", b.intermediate("int-critical", root, extra=[x509.UnrecognizedExtension(
        x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00")]))

    b.leaf("peer-int-idle", root)
    b.entries["peer-int-idle"][1].append(b.entries["peer-int-path"][1][1])
    whole = b.entries["peer-deep"]
    b.entries["peer-deep-reordered"] = (whole[0], whole[1][:1] + whole[1][:0:-1], PEER,
                                        "its intermediates in reverse order")

    def constraints(permitted=None, excluded=None):
        return x509.NameConstraints([x509.DNSName(x) for x in permitted] if permitted else None,
                                    [x509.DNSName(x) for x in excluded] if excluded else None)
    nc = b.intermediate("int-nc", root, constraints=constraints(permitted=["nc.example.test"]))
    b.leaf("peer-nc-inside", nc, names=("a.nc.example.test",))
    b.leaf("peer-nc-outside", nc)
    b.leaf("peer-nc-second-outside", nc, names=("a.nc.example.test", PEER))
    b.leaf("peer-nc-suffix", nc, names=("anc.example.test",))
    b.leaf("peer-nc-excluded", b.intermediate("int-nc-ex", root, constraints=constraints(excluded=["example.test"])))
    b.leaf("peer-nc-below", b.intermediate("int-nc-below", nc))
    revoked_int = b.intermediate("int-revoked", root)
    b.leaf("peer-int-revoked", revoked_int)
    signer = CA("leaf", b.entries["peer-other"][0], b.entries["peer-other"][1][0], b.entries["peer-other"][1])
    b.leaf("peer-by-leaf", signer)
    key = new_key("p256")
    own = b.make("peer-self-signed", key.public_key(), key=key, names=[PEER])
    b.entries["peer-self-signed"] = (key, [own], PEER, "")
    b.entries["peer-anchor"] = (root.key, [root.certificate], "root.example.test", "the trusted root itself")
    half = b.entries["peer-int"]
    b.entries["peer-int-missing"] = (half[0], half[1][:1], PEER, "its intermediate is not sent")
    b.entries["peer-int-root-sent"] = (half[0], half[1] + [root.certificate], PEER, "the root is sent as well")

    # Both certificates of an intermediate that two roots have signed; the second root is not trusted.
    crossed = b.intermediate("int-crossed", root)
    b.leaf("peer-crossed", crossed)
    second = b.intermediate("int-crossed", unknown, key=crossed.key)
    key, chain, _, _ = b.entries["peer-crossed"]
    b.entries["peer-crossed-both"] = (key, [chain[0], second.certificate, chain[1]], PEER, "both are sent")
    b.entries["peer-crossed-other"] = (key, [chain[0], second.certificate], PEER, "only the other is sent")

    # CAs whose lists are for some of their certificates: users and CAs apart, users alone, CAs alone, at a place.
    place, elsewhere = "http://ca.example.test/crl", "http://ca.example.test/other.crl"

    def at(*uris, **more):
        return dict(plain=[x509.CRLDistributionPoints([x509.DistributionPoint(
            [x509.UniformResourceIdentifier(u) for u in uris], None, more.get("reasons"), None)])])
    divided = {n: b.root("root-" + n, "p256") for n in ("divided", "users", "cas", "place")}
    for n in ("divided", "users", "cas"):
        b.leaf("peer-lists-" + n, divided[n])
        b.leaf("peer-lists-%s-int" % n, b.intermediate("int-" + n, divided[n]))
    revoked_other = b.leaf("peer-lists-cas-revoked", divided["cas"])
    b.leaf("peer-lists-place", divided["place"], **at(place))
    b.leaf("peer-lists-place-one-of-two", divided["place"], **at(elsewhere, place))
    b.leaf("peer-lists-place-none", divided["place"])
    b.leaf("peer-lists-place-other", divided["place"], **at(elsewhere))
    b.leaf("peer-lists-place-reasons", divided["place"], **at(place, reasons=frozenset(
        [x509.ReasonFlags.key_compromise])))

    def crl(ca, certificates, start, end, users=False, cas=False, name=None):
        c = (x509.CertificateRevocationListBuilder().issuer_name(ca.certificate.subject)
             .last_update(b.now + datetime.timedelta(days=start)).next_update(b.now + datetime.timedelta(days=end))
             .add_extension(x509.CRLNumber(1), False)
             .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), False))
        if users or cas or name:
            c = c.add_extension(x509.IssuingDistributionPoint(
                [x509.UniformResourceIdentifier(name)] if name else None, None, users, cas, None, False, False), True)
        for x in certificates:
            c = c.add_revoked_certificate(x509.RevokedCertificateBuilder().serial_number(x.serial_number)
                                          .revocation_date(b.now - datetime.timedelta(days=1)).build())
        return c.sign(ca.key, hashes.SHA256())

    def write(name, data):
        with open(os.path.join(directory, name), "wb", opener=lambda p, f: os.open(p, f, 0o600)) as f:
            f.write(data)

    def pem(x):
        return x.public_bytes(serialization.Encoding.PEM)

    write("ca.pem", b"".join(pem(r.certificate) for r in list(roots.values()) + [stale] + list(divided.values())))
    write("ca-limited.pem", pem(limited.certificate))
    write("crl.pem", pem(crl(root, [revoked, revoked_int.certificate], -1, 30))
          + pem(crl(stale, [revoked_stale], -10, -1))
          + pem(crl(divided["divided"], [], -1, 30, users=True)) + pem(crl(divided["divided"], [], -1, 30, cas=True))
          + pem(crl(divided["users"], [], -1, 30, users=True))
          + pem(crl(divided["cas"], [revoked_other], -1, 30, cas=True))
          + pem(crl(divided["place"], [], -1, 30, name=place)))
    for name, (key, chain, _, _) in b.entries.items():
        write(name + ".pem", b"".join(pem(c) for c in chain))
        write(name + ".key", key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                               serialization.NoEncryption()))
    write("pki.json", json.dumps({
        "ca": ["ca.pem"], "ca_limited": {"file": "ca-limited.pem", "names": [LIMIT]}, "crl": ["crl.pem"],
        "daemon_machine": DAEMON, "peer_machine": PEER,
        "entries": {n: {"machine": m, "certificates": len(c), "note": t} for n, (_, c, m, t) in b.entries.items()},
    }, indent=1, sort_keys=True).encode() + b"\n")


def pem_blocks(data, label):
    out = []
    begin, end = b"-----BEGIN " + label + b"-----", b"-----END " + label + b"-----"
    while begin in data:
        block, data = data[data.index(begin):].split(end, 1)
        out.append(block + end + b"\n")
    return out


def read_certificates(path):
    with open(path, "rb") as f:
        return [x509.load_pem_x509_certificate(p).public_bytes(serialization.Encoding.DER)
                for p in pem_blocks(f.read(), b"CERTIFICATE")]


def read_lists(path):
    with open(path, "rb") as f:
        return [RevocationList(x509.load_pem_x509_crl(p).public_bytes(serialization.Encoding.DER))
                for p in pem_blocks(f.read(), b"X509 CRL")]


def read_key(path):
    with open(path, "rb") as f:
        return serialization.load_pem_private_key(f.read(), None)


class PKI:
    """A directory of make-pki."""

    def __init__(self, directory):
        self.directory = directory
        with open(os.path.join(directory, "pki.json")) as f:
            self.entries = json.load(f)["entries"]
        self.cache = {}

    def entry(self, name):
        """(private key, [DER], machine)"""
        if name not in self.cache:
            path = os.path.join(self.directory, name)
            self.cache[name] = (read_key(path + ".key"), read_certificates(path + ".pem"),
                                self.entries[name]["machine"])
        return self.cache[name]

    def signer(self, name):
        key, chain, _ = self.entry(name)
        return Signer(key, chain)

    def trust(self, **more):
        join = os.path.join
        cas = [(Certificate(c), None) for c in read_certificates(join(self.directory, "ca.pem"))]
        cas += [(Certificate(c), [LIMIT]) for c in read_certificates(join(self.directory, "ca-limited.pem"))]
        return Trust(cas, read_lists(join(self.directory, "crl.pem")), **more)
