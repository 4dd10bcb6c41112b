"""Section 5: statements, identities, and their verification, X.509 path building included.

python3-cryptography 38 verifies no chains, so paths, name constraints and revocation lists are checked here after
RFC 5280, section 6, as far as the protocol needs it.
"""

import calendar
import hashlib
import hmac
import ipaddress
import re
import time

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID as EKU
from cryptography.x509.oid import ExtensionOID, NameOID

from .frames import (ACCOUNT_UNACCEPTABLE, CERTIFICATE_EXPIRED, CERTIFICATE_NOT_YET_VALID, CERTIFICATE_REVOKED,
                     CERTIFICATE_UNACCEPTABLE, DNS_UNKNOWN, MACHINE_NAME_MISMATCH, MALFORMED, REVOCATION_UNKNOWN,
                     STATEMENT_EXPIRED, STATEMENT_INVALID, UNKNOWN_CA, Refusal)
from .wire import Reader, WireError, opaque8, opaque16, u8, u64

CONTEXT = b"shared-altsd v1 machine statement"
LAST_TIME = 253402300799
MAX_WINDOW = 24 * 3600
BACKDATE = 300


# Statement and identity ----------------------------------------

def encode_attributes(attributes):
    """Attributes as a sequence of (name, value), both bytes."""
    return b"".join(opaque8(n) + opaque16(v) for n, v in attributes)


class Statement:
    def __init__(self, static_key, leaf, machine, account, attributes=b"", not_before=0, not_after=0, version=b"\x01"):
        self.version, self.static_key, self.leaf = version, static_key, leaf
        self.machine, self.account, self.attributes = machine, account, attributes
        self.not_before, self.not_after = not_before, not_after

    def fields(self):
        return [self.version, self.static_key, self.leaf, self.machine, self.account, self.attributes,
                u64(self.not_before), u64(self.not_after)]

    def encode(self):
        return b"".join(opaque16(x) for x in self.fields())

    @classmethod
    def parse(cls, data):
        r = Reader(data)
        try:
            version = r.opaque16(1, 1, "the format version")
            if version != b"\x01":
                raise WireError("format version %d" % version[0])
            static_key = r.opaque16(32, 32, "the static key")
            leaf = r.opaque16(32, 32, "the leaf")
            machine = r.opaque16(1, 253, "the machine")
            account = r.opaque16(1, 128, "the account")
            attributes = split_attributes(r.opaque16(0, 3072, "the attributes"))
            not_before = int.from_bytes(r.opaque16(8, 8, "not before"), "big")
            not_after = int.from_bytes(r.opaque16(8, 8, "not after"), "big")
            r.end()
            if not_before > LAST_TIME or not_after > LAST_TIME:
                raise WireError("a time after the year 9999")
        except WireError as err:
            raise Refusal(STATEMENT_INVALID, "statement: %s" % err) from err
        return cls(static_key, leaf, machine, account, encode_attributes(attributes), not_before, not_after)

    def attribute_list(self):
        """The attributes of a statement that was parsed, as pairs."""
        return split_attributes(self.attributes)


def split_attributes(data):
    """The attributes as a list of pairs; their lengths, number and order belong to the format (WireError)."""
    r = Reader(data)
    out = []
    while r.left:
        if len(out) == 16:
            raise WireError("more than 16 attributes")
        name = r.opaque8(1, 32, "an attribute's name")
        value = r.opaque16(0, 2048, "an attribute's value")
        if out and name <= out[-1][0]:
            raise WireError("the attributes are not in order")
        out.append((name, value))
    return out


class Identity:
    def __init__(self, certificates, statement, signature):
        self.certificates, self.statement, self.signature = certificates, statement, signature

    def encode(self):
        return (u8(len(self.certificates)) + b"".join(opaque16(c) for c in self.certificates)
                + opaque16(self.statement) + opaque16(self.signature))

    @classmethod
    def parse(cls, data):
        r = Reader(data)
        try:
            count = r.integer(1)
            if not 1 <= count <= 4:
                raise WireError("%d certificates" % count)
            certificates = [r.opaque16(1, 16384, "a certificate") for _ in range(count)]
            if sum(map(len, certificates)) > 16384:
                raise WireError("the certificates are too large")
            statement = r.opaque16(1, 4096, "the statement")
            signature = r.opaque16(1, 1024, "the signature")
            r.end()
        except WireError as err:
            raise Refusal(MALFORMED, "identity: %s" % err) from err
        return cls(certificates, statement, signature)


def signature_input(statement):
    return b"\x20" * 64 + CONTEXT + b"\0" + statement


def _pss(algorithm, salt):
    return padding.PSS(mgf=padding.MGF1(algorithm), salt_length=salt)


def sign_statement(key, statement):
    data = signature_input(statement)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(data, ec.ECDSA(hashes.SHA384() if key.curve.key_size == 384 else hashes.SHA256()))
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, _pss(hashes.SHA256(), 32), hashes.SHA256())
    return key.sign(data)


def verify_statement(public, statement, signature):
    """False where the signature is wrong; the scheme is the one that the key fixes."""
    data = signature_input(statement)
    try:
        if isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(signature, data, ec.ECDSA(hashes.SHA384() if public.curve.key_size == 384
                                                    else hashes.SHA256()))
        elif isinstance(public, rsa.RSAPublicKey):
            if len(signature) != (public.key_size + 7) // 8:
                return False
            public.verify(signature, data, _pss(hashes.SHA256(), 32), hashes.SHA256())
        else:
            public.verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


# Names ----------------------------------------

_LABEL = re.compile(rb"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_ACCOUNT = re.compile(rb"[a-z0-9_][a-z0-9._$+-]{0,63}\Z")
_DOMAIN_ACCOUNT = re.compile(rb"[a-z0-9_][a-z0-9._$+@\\-]{0,127}\Z")
_PLAIN = re.compile(rb"[a-z0-9_.$+@\\-]")
_GROUP = re.compile(rb"([a-z0-9_]|%[0-9A-F]{2})([a-z0-9_.$+@\\-]|%[0-9A-F]{2})*\Z")
_ATTRIBUTE = re.compile(rb"[a-z][a-z0-9_-]*\Z")
_UID = re.compile(rb"(0|[1-9][0-9]{0,9})\Z")
_SOCKET = re.compile(rb"[a-z0-9.-]{1,64}\Z")


def valid_machine(name):
    if not 1 <= len(name) <= 253:
        return False
    labels = name.split(b".")
    if not all(_LABEL.match(x) for x in labels) or labels[-1].isdigit():
        return False
    return labels[-1] != b"localhost"


def valid_account(name, domain=False):
    return bool((_DOMAIN_ACCOUNT if domain else _ACCOUNT).match(name))


def valid_group(encoded, domain=False):
    """One entry of the attribute groups, as it travels."""
    if not _GROUP.match(encoded):
        return False
    name = re.sub(rb"%(..)", lambda m: bytes.fromhex(m.group(1).decode()), encoded)
    for escape in re.findall(rb"%(..)", encoded):
        if _PLAIN.match(bytes.fromhex(escape.decode())):
            return False
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    if any(ord(c) < 0x20 or 0x7f <= ord(c) < 0xa0 or "A" <= c <= "Z" for c in text):
        return False
    return len(name) <= 256 and (domain or not re.search(rb"[@\\]", name))


def check_attributes(attributes, domain=False):
    """What the attributes say (5.4), in their order: Refusal with code 13."""
    for name, value in attributes:
        if not _ATTRIBUTE.match(name) or name in (b"user", b"machine"):
            raise Refusal(ACCOUNT_UNACCEPTABLE, "an attribute's name")
        if any(not 0x20 <= x <= 0x7e for x in value):
            raise Refusal(ACCOUNT_UNACCEPTABLE, "an attribute's value is not printable ASCII")
        if name == b"uid" and (not _UID.match(value) or int(value) > 4294967295):
            raise Refusal(ACCOUNT_UNACCEPTABLE, "the uid is not a decimal number below 2^32")
        if name == b"socket" and not _SOCKET.match(value):
            raise Refusal(ACCOUNT_UNACCEPTABLE, "the socket is no label")
        if name == b"groups":
            groups = value.split(b",")
            if not all(valid_group(g, domain) for g in groups) or groups != sorted(set(groups)):
                raise Refusal(ACCOUNT_UNACCEPTABLE, "the groups")


def _ascii_lower(text):
    return "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in text)


def _under(name, suffix):
    return name == suffix or name.endswith("." + suffix)


# Certificates ----------------------------------------

class DerError(ValueError):
    pass


def _tlv(data, at):
    """One DER element: (tag, start of content, end)."""
    if at + 2 > len(data):
        raise DerError("truncated")
    tag, length = data[at], data[at + 1]
    at += 2
    if length & 0x80:
        size = length & 0x7f
        if not 1 <= size <= 4 or at + size > len(data):
            raise DerError("length")
        length = int.from_bytes(data[at:at + size], "big")
        at += size
    if at + length > len(data):
        raise DerError("truncated")
    return tag, at, at + length


def _encoded(data, number):
    """The element of that number, with its header."""
    at = 0
    for _ in range(number):
        at = _tlv(data, at)[2]
    return data[at:_tlv(data, at)[2]]


def _children(data):
    out, at = [], 0
    while at < len(data):
        tag, start, end = _tlv(data, at)
        out.append((tag, data[start:end]))
        at = end
    return out


_HASHES = {
    bytes.fromhex("0609608648016503040201"): hashes.SHA256(),
    bytes.fromhex("0609608648016503040202"): hashes.SHA384(),
    bytes.fromhex("0609608648016503040203"): hashes.SHA512(),
}
_SIGNATURES = {  # contents of the signature algorithm's OID
    bytes.fromhex("2a864886f70d01010b"): ("rsa", hashes.SHA256()),
    bytes.fromhex("2a864886f70d01010c"): ("rsa", hashes.SHA384()),
    bytes.fromhex("2a864886f70d01010d"): ("rsa", hashes.SHA512()),
    bytes.fromhex("2a8648ce3d040302"): ("ecdsa", hashes.SHA256()),
    bytes.fromhex("2a8648ce3d040303"): ("ecdsa", hashes.SHA384()),
    bytes.fromhex("2a8648ce3d040304"): ("ecdsa", hashes.SHA512()),
    bytes.fromhex("2b6570"): ("ed25519", None),
}
_RSASSA_PSS = bytes.fromhex("2a864886f70d01010a")
_MGF1 = bytes.fromhex("2a864886f70d010108")


def _oid_der(content):
    return b"\x06" + u8(len(content)) + content


def _signature_scheme(algorithm):
    """(kind, hash) of an AlgorithmIdentifier's contents, or None where it is not one of section 5.5, step 2."""
    parts = _children(algorithm)
    oid = parts[0][1]
    if oid != _RSASSA_PSS:
        return _SIGNATURES.get(oid)
    if len(parts) != 2:
        return None
    fields = {tag: content for tag, content in _children(parts[1][1])}
    digest = _HASHES.get(_oid_der(_children(_children(fields[0xa0])[0][1])[0][1])) if 0xa0 in fields else None
    if digest is None or 0xa1 not in fields or 0xa2 not in fields or 0xa3 in fields:
        return None
    mgf = _children(_children(fields[0xa1])[0][1])
    if mgf[0][1] != _MGF1 or _HASHES.get(_oid_der(_children(mgf[1][1])[0][1])) is not digest:
        return None
    if int.from_bytes(_children(fields[0xa2])[0][1], "big") != digest.digest_size:
        return None
    return "pss", digest


def _seconds(moment):
    return calendar.timegm(moment.timetuple())


class Certificate:
    """A parsed certificate with all that the verification asks of it. Refusal 9 where it cannot be used at all."""

    def __init__(self, der, leaf=False):
        self.der = der
        try:
            self.x = x509.load_der_x509_certificate(der)
            tag, start, end = _tlv(der, 0)
            if tag != 0x30 or end != len(der):
                raise DerError("bytes after the certificate")
            outer = _children(der[start:end])
            self.scheme = _signature_scheme(outer[1][1])
            tbs = _children(outer[0][1])
            at = 6 if tbs[0][0] == 0xa0 else 5
            spki = tbs[at][1]
            self.spki_der = _encoded(outer[0][1], at)
            key_algorithm = _children(_children(spki)[0][1])[0][1]
            self.tbs = self.x.tbs_certificate_bytes
            self.signature = self.x.signature
            self.version = self.x.version
            self.subject = self.x.subject.public_bytes()
            self.issuer = self.x.issuer.public_bytes()
            self.not_before = _seconds(self.x.not_valid_before)
            self.not_after = _seconds(self.x.not_valid_after)
            self.extensions = {e.oid: e for e in self.x.extensions}
            self.key = self.x.public_key()
            if self.x.serial_number < 0:
                raise DerError("a serial number below zero")
        except Exception as err:  # the library raises several kinds that share no base
            raise Refusal(CERTIFICATE_UNACCEPTABLE, "a certificate does not parse: %s" % type(err).__name__) from err
        if key_algorithm == _RSASSA_PSS or not acceptable_key(self.key, 4096 if leaf else 8192):
            raise Refusal(CERTIFICATE_UNACCEPTABLE, "the kind or size of a certificate's key")
        if self.scheme is None:
            raise Refusal(CERTIFICATE_UNACCEPTABLE, "a certificate's signature algorithm")

    def extension(self, kind):
        found = self.extensions.get(kind.oid)
        return found.value if found is not None else None

    @property
    def spki(self):
        return self.key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

    @property
    def is_ca(self):
        basic = self.extension(x509.BasicConstraints)
        return bool(basic and basic.ca)

    def sans(self, kind):
        names = self.extension(x509.SubjectAlternativeName)
        return [x for x in names.get_values_for_type(kind)] if names is not None else []


def acceptable_key(key, rsa_bits):
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.curve.name in ("secp256r1", "secp384r1")
    if isinstance(key, rsa.RSAPublicKey):
        return 2048 <= key.key_size <= rsa_bits and key.public_numbers().e == 65537
    return isinstance(key, ed25519.Ed25519PublicKey)


def verify_signature(key, scheme, signature, data):
    kind, digest = scheme
    try:
        if kind == "ecdsa" and isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, data, ec.ECDSA(digest))
        elif kind == "ed25519" and isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, data)
        elif kind == "rsa" and isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, padding.PKCS1v15(), digest)
        elif kind == "pss" and isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, _pss(digest, digest.digest_size), digest)
        else:
            return False
    except (InvalidSignature, ValueError):
        return False
    return True


def _scope(point):
    """(only, names) of an issuing distribution point; ValueError where it cannot be honoured."""
    if point.only_some_reasons or point.indirect_crl or point.only_contains_attribute_certs or point.relative_name:
        raise ValueError("a list by reasons, of other issuers, of attribute certificates or at a relative name")
    if point.only_contains_user_certs and point.only_contains_ca_certs:
        raise ValueError("a list for user certificates only and for CA certificates only")
    only = "user" if point.only_contains_user_certs else "CA" if point.only_contains_ca_certs else None
    if only is None and not point.full_name:
        raise ValueError("an empty issuing distribution point")
    return only, list(point.full_name or [])


class RevocationList:
    """complete: the administrator's word that the list's place does not limit what it is for."""

    def __init__(self, der, complete=False):
        self.x = x509.load_der_x509_crl(der)
        tag, start, end = _tlv(der, 0)
        self.scheme = _signature_scheme(_children(der[start:end])[1][1])
        if self.scheme is None or self.x.next_update is None:
            raise ValueError("the list's signature algorithm, or no nextUpdate")
        self.only, self.names = None, []
        for e in self.x.extensions:
            if e.oid == ExtensionOID.ISSUING_DISTRIBUTION_POINT:
                self.only, self.names = _scope(e.value)
            elif e.critical or e.oid == ExtensionOID.DELTA_CRL_INDICATOR:
                raise ValueError("an extension of the list that cannot be honoured")
        if complete:
            self.names = []
        self.next_update = _seconds(self.x.next_update)

    def signed_by(self, key):
        return verify_signature(key, self.scheme, self.x.signature, self.x.tbs_certlist_bytes)

    def revokes(self, certificate):
        return self.x.get_revoked_certificate_by_serial_number(certificate.x.serial_number) is not None

    def answers_for(self, certificate, leaf):
        if self.only and (self.only == "user") != leaf:
            return False
        if not self.names:
            return True
        points = certificate.extension(x509.CRLDistributionPoints)
        places = [n for p in points or [] if not p.reasons and not p.crl_issuer for n in p.full_name or []]
        return any(n in places for n in self.names)


class Trust:
    """What the verifier trusts. `cas` holds pairs of certificate and the names that it is limited to, or None;
    `under_dns` the names that are given to DNS. `tlsa` is DNS: a function of a machine's name that returns the data of
    its records, as a list, or None where that cannot be found out."""

    def __init__(self, cas, lists=(), crl_stale_ok=False, require_eku=None, domain_accounts=False, under_dns=(),
                 tlsa=lambda machine: None):
        self.cas = [(c if isinstance(c, Certificate) else Certificate(c), names) for c, names in cas]
        self.lists = list(lists)
        self.crl_stale_ok = crl_stale_ok
        self.require_eku = require_eku
        self.domain_accounts = domain_accounts
        self.under_dns = list(under_dns)
        self.tlsa = tlsa

    def is_under_dns(self, machine):
        """The longest of all names that the machine's is equal to or under decides."""
        def longest(names):
            return max([len(n) for n in names if _under(machine, n)], default=-1)
        return longest(self.under_dns) > longest([n for _, names in self.cas for n in names or []])


_KNOWN_CRITICAL = {x509.BasicConstraints.oid, x509.KeyUsage.oid, x509.ExtendedKeyUsage.oid, x509.NameConstraints.oid,
                   x509.SubjectAlternativeName.oid}
_PURPOSES = (EKU.SERVER_AUTH, EKU.CLIENT_AUTH, EKU.ANY_EXTENDED_KEY_USAGE)


def _eku_allows(certificate, required, leaf):
    usage = certificate.extension(x509.ExtendedKeyUsage)
    oids = list(usage) if usage is not None else None
    if oids is not None and not any(o in oids for o in _PURPOSES) and required is None:
        return False
    if required is not None:
        if leaf:
            return oids is not None and required in oids
        return oids is None or required in oids or EKU.ANY_EXTENDED_KEY_USAGE in oids
    return True


# Name constraints: RFC 5280, section 4.2.1.10

def _dns_in(name, base):
    name, base = name.lower(), base.lower()
    if base.startswith("."):
        return name.endswith(base)
    return base == "" or _under(name, base)


def _mail_in(name, base):
    host = name.rpartition("@")[2].lower()
    if "@" in base:
        return name.rpartition("@")[0] == base.rpartition("@")[0] and host == base.rpartition("@")[2].lower()
    return host.endswith(base.lower()) if base.startswith(".") else host == base.lower()


def _uri_in(name, base):
    host = re.sub(r"^[^:]*://([^/@]*@)?", "", name).split("/")[0].split(":")[0].lower()
    return host.endswith(base.lower()) if base.startswith(".") else host == base.lower()


def _directory_in(name, base):
    return list(name.rdns)[:len(list(base.rdns))] == list(base.rdns)


def _ip_in(name, base):
    return isinstance(base, (ipaddress.IPv4Network, ipaddress.IPv6Network)) and name.version == base.version \
        and name in base


_MATCH = {x509.DNSName: _dns_in, x509.RFC822Name: _mail_in, x509.UniformResourceIdentifier: _uri_in,
          x509.DirectoryName: _directory_in, x509.IPAddress: _ip_in}


def _constrained(constraints, certificate):
    """True where the constraints forbid a name of the certificate."""
    san = certificate.extension(x509.SubjectAlternativeName)
    names = list(san) if san is not None else []
    if certificate.x.subject.rdns:
        names.append(x509.DirectoryName(certificate.x.subject))
    permitted, excluded = constraints.permitted_subtrees or [], constraints.excluded_subtrees or []
    for name in names:
        match = _MATCH.get(type(name))
        same = [b for b in permitted if type(b) is type(name)]
        if match is None:
            if same or any(type(b) is type(name) for b in excluded):
                return True
            continue
        if any(type(b) is type(name) and match(name.value, b.value) for b in excluded):
            return True
        if same and not any(match(name.value, b.value) for b in same):
            return True
    return False


# Verification ----------------------------------------

class Peer:
    """The outcome of a verification."""

    def __init__(self, statement, attributes, leaf):
        self.machine = statement.machine.decode()
        self.account = statement.account.decode()
        self.attributes = [(n.decode(), v.decode()) for n, v in attributes]
        self.not_before, self.not_after = statement.not_before, statement.not_after
        self.leaf = leaf

    @property
    def name(self):
        return "%s@%s" % (self.account, self.machine)


def verify(data, noise_static, trust, now=None):
    """Section 5.5 in its order. Returns a Peer or raises Refusal. now is in seconds and may have a fraction."""
    now = time.time() if now is None else now
    # 1. Format
    identity = Identity.parse(data)
    statement = Statement.parse(identity.statement)
    # 2. Bounds on the certificates
    chain = [Certificate(der, leaf=i == 0) for i, der in enumerate(identity.certificates)]
    leaf = chain[0]
    # 3. Static key and leaf
    if not hmac.compare_digest(statement.static_key, noise_static):
        raise Refusal(STATEMENT_INVALID, "the statement names another static key")
    if statement.leaf != hashlib.sha256(leaf.der).digest():
        raise Refusal(STATEMENT_INVALID, "the statement names another leaf")
    if trust.is_under_dns(statement.machine.decode("latin-1")):
        return verify_dns(identity, statement, leaf, trust, now)
    # 4. Window
    if now > leaf.not_after:
        raise Refusal(CERTIFICATE_EXPIRED, "the leaf has expired")
    if now < leaf.not_before:
        raise Refusal(CERTIFICATE_NOT_YET_VALID, "the leaf is not yet valid")
    check_window(statement, now)
    if statement.not_after > leaf.not_after:
        raise Refusal(STATEMENT_EXPIRED, "the window outlives the leaf")
    # 5. Names
    attributes = check_names(statement, [_ascii_lower(x) for x in leaf.sans(x509.DNSName)], trust)
    # 6. Chain
    check_leaf(leaf, trust)
    find_path(leaf, chain[1:], trust, statement.machine.decode(), now)
    # 7. The statement's signature
    if not verify_statement(leaf.key, identity.statement, identity.signature):
        raise Refusal(STATEMENT_INVALID, "the statement's signature is wrong")
    return Peer(statement, attributes, leaf)


def check_window(statement, now):
    if not statement.not_before <= now <= statement.not_after:
        raise Refusal(STATEMENT_EXPIRED, "now is outside the statement's window")
    if statement.not_after - statement.not_before > MAX_WINDOW:
        raise Refusal(STATEMENT_EXPIRED, "the window is too long")


def check_names(statement, names, trust):
    """The names of the statement, of which the machine's has to be among names. Returns the attributes."""
    if not valid_machine(statement.machine):
        raise Refusal(MACHINE_NAME_MISMATCH, "the machine name is not valid")
    if statement.machine.decode() not in names:
        raise Refusal(MACHINE_NAME_MISMATCH, "the machine name is not in the certificate")
    if not valid_account(statement.account, trust.domain_accounts):
        raise Refusal(ACCOUNT_UNACCEPTABLE, "the account name")
    attributes = statement.attribute_list()
    check_attributes(attributes, trust.domain_accounts)
    return attributes


def verify_dns(identity, statement, leaf, trust, now):
    """Section 5.7, from step 4 on."""
    check_window(statement, now)
    names = [_ascii_lower(x) for x in leaf.sans(x509.DNSName)]
    if leaf.extension(x509.SubjectAlternativeName) is None:
        common = leaf.x.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        names = [_ascii_lower(c.value) for c in common] if len(common) == 1 else []
    attributes = check_names(statement, names, trust)
    check_no_anchor(leaf, trust)
    if not verify_statement(leaf.key, identity.statement, identity.signature):
        raise Refusal(STATEMENT_INVALID, "the statement's signature is wrong")
    records = trust.tlsa(statement.machine.decode())
    if records is None or len(records) > 16:
        raise Refusal(DNS_UNKNOWN, "what DNS says of the machine cannot be found out")
    if not any(tlsa_matches(r, leaf) for r in records):
        raise Refusal(UNKNOWN_CA, "DNS has no record of the certificate")
    return Peer(statement, attributes, leaf)


def tlsa_matches(record, leaf):
    """Whether the data of a record are usable and match."""
    usage, selector, matching, data = record[0], record[1], record[2], record[3:]
    selected = {0: leaf.der, 1: leaf.spki_der}.get(selector)
    if usage != 3 or selected is None or not data:
        return False
    return data == {0: selected, 1: hashlib.sha256(selected).digest(), 2: hashlib.sha512(selected).digest()}.get(matching)


def check_no_anchor(leaf, trust):
    if any(leaf.spki == ca.spki for ca, _ in trust.cas):
        raise Refusal(CERTIFICATE_UNACCEPTABLE, "the leaf's key is that of a trust anchor")


def check_leaf(leaf, trust):
    if leaf.is_ca:
        raise Refusal(CERTIFICATE_UNACCEPTABLE, "the leaf is a CA")
    check_no_anchor(leaf, trust)
    usage = leaf.extension(x509.KeyUsage)
    if usage is None or not usage.digital_signature:
        raise Refusal(CERTIFICATE_UNACCEPTABLE, "the leaf's key usage")
    if not _eku_allows(leaf, trust.require_eku, True):
        raise Refusal(CERTIFICATE_UNACCEPTABLE, "the leaf's extended key usage")
    check_critical(leaf)


def check_critical(certificate):
    if any(e.critical and e.oid not in _KNOWN_CRITICAL for e in certificate.extensions.values()):
        raise Refusal(CERTIFICATE_UNACCEPTABLE, "a critical extension that is not known")
    constraints = certificate.extensions.get(x509.NameConstraints.oid)
    if constraints is not None and constraints.critical:
        subtrees = (constraints.value.permitted_subtrees or []) + (constraints.value.excluded_subtrees or [])
        if any(type(b) not in _MATCH or isinstance(b, x509.DirectoryName) for b in subtrees):
            raise Refusal(CERTIFICATE_UNACCEPTABLE, "critical name constraints of a form that is not known")


def find_path(leaf, others, trust, machine, now):
    """Depth-first over the certificates sent and the trusted CAs. Of several reasons a revocation is named first, then
    the first that is not "unknown"."""
    kept = []

    def extend(path):
        last = path[-1]
        anchors = [(ca, names) for ca, names in trust.cas if ca.subject == last.issuer]
        for ca, names in anchors:
            if not verify_signature(ca.key, last.scheme, last.signature, last.tbs):
                continue
            if names is not None and not any(_under(machine, n) for n in names):
                continue
            try:
                check_path(path + [ca], trust, now)
                return path + [ca]
            except Refusal as err:
                kept.append(err)
        for other in others:
            if other.subject != last.issuer or any(other.der == p.der for p in path):
                continue
            if verify_signature(other.key, last.scheme, last.signature, last.tbs):
                found = extend(path + [other])
                if found:
                    return found
        return None

    found = extend([leaf])
    if not found:
        for wanted in (lambda e: e.code == CERTIFICATE_REVOKED, lambda e: e.code != UNKNOWN_CA):
            for error in kept:
                if wanted(error):
                    raise error
        raise Refusal(UNKNOWN_CA, "no path to a CA that is trusted for this name")
    return found


def check_path(path, trust, now):
    """All of a path whose signatures have been verified, from the leaf to the trusted CA."""
    for certificate in path:
        if now > certificate.not_after:
            raise Refusal(CERTIFICATE_EXPIRED, "a certificate of the chain has expired")
        if now < certificate.not_before:
            raise Refusal(CERTIFICATE_NOT_YET_VALID, "a certificate of the chain is not yet valid")
        check_critical(certificate)
    below = 0
    for i, ca in enumerate(path[1:], 1):
        basic = ca.extension(x509.BasicConstraints)
        usage = ca.extension(x509.KeyUsage)
        if ca.version != x509.Version.v3 or not ca.is_ca or (usage is not None and not usage.key_cert_sign):
            raise Refusal(UNKNOWN_CA, "an issuer may not sign certificates")
        if basic.path_length is not None and below > basic.path_length:
            raise Refusal(UNKNOWN_CA, "a path longer than an issuer allows")
        below += 1
        if i < len(path) - 1 and not _eku_allows(ca, trust.require_eku, False):
            raise Refusal(CERTIFICATE_UNACCEPTABLE, "an intermediate's extended key usage")
        constraints = ca.extension(x509.NameConstraints)
        if constraints is not None:
            if any(_constrained(constraints, lower) for lower in path[:i]):
                raise Refusal(MACHINE_NAME_MISMATCH, "a name constraint forbids a name")
    unknown = None
    for i, (certificate, issuer) in enumerate(zip(path, path[1:])):
        lists = [crl for crl in trust.lists if crl.signed_by(issuer.key)]
        if any(crl.revokes(certificate) for crl in lists):
            raise Refusal(CERTIFICATE_REVOKED, "a certificate of the chain is revoked")
        answers = [crl for crl in lists if crl.answers_for(certificate, i == 0)]
        if lists and not answers:
            unknown = "no list of its issuer answers for a certificate of the chain"
        if any(now > crl.next_update for crl in answers) and not trust.crl_stale_ok:
            unknown = "the revocation list is past its next update"
    if unknown:
        raise Refusal(REVOCATION_UNKNOWN, unknown)


class Signer:
    """A machine's side: makes identities for a static key and an account."""

    def __init__(self, key, chain):
        self.key = key
        self.chain = list(chain)
        self.leaf = Certificate(self.chain[0], leaf=True) if self.chain else None

    def identity(self, static_public, machine, account, attributes=(), now=None, lifetime=4 * 3600):
        now = int(time.time()) if now is None else int(now)
        end = min(now + lifetime, self.leaf.not_after)
        statement = Statement(static_public, hashlib.sha256(self.chain[0]).digest(), machine.encode(),
                              account.encode(), encode_attributes([(a.encode(), b.encode()) for a, b in attributes]),
                              now - BACKDATE, end).encode()
        return Identity(self.chain, statement, sign_statement(self.key, statement)).encode()
