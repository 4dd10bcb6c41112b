"""The Noise Protocol Framework, revision 34, for Noise_XXpsk3_25519_AESGCM_SHA256.

The three objects of section 5 of the specification, by hand, over the library's X25519, AES-GCM, SHA-256 and HMAC.
"""

import hashlib
import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PROTOCOL_NAME = b"Noise_XXpsk3_25519_AESGCM_SHA256"
DHLEN = 32
HASHLEN = 32
TAGLEN = 16

# Section 9.4: XXpsk3. Pattern by message, the initiator first.
XXPSK3 = (("e",), ("e", "ee", "s", "es"), ("s", "se", "psk"))


class NoiseError(Exception):
    """A message that does not authenticate, is too short, or holds a key that is not valid. Always final."""


class KeyPair:
    def __init__(self, private):
        self.private = private
        self._key = X25519PrivateKey.from_private_bytes(private)
        self.public = self._key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw)

    @classmethod
    def generate(cls, random=os.urandom):
        return cls(random(32))

    def dh(self, public):
        """Section 12.1. OpenSSL refuses a result of all zero bytes; so does the check after it."""
        try:
            shared = self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError as err:
            raise NoiseError("the Diffie-Hellman result is not valid") from err
        if shared == bytes(32):
            raise NoiseError("the Diffie-Hellman result is all zero")
        return shared


def hkdf(chaining_key, material, outputs):
    """Section 4.3."""
    temp = hmac.digest(chaining_key, material, "sha256")
    out, last = [], b""
    for i in range(1, outputs + 1):
        last = hmac.digest(temp, last + bytes([i]), "sha256")
        out.append(last)
    return out


class CipherState:
    """Section 5.1."""

    def __init__(self, key=None):
        self.k = key
        self.n = 0

    def _nonce(self):
        if self.n == 2 ** 64 - 1:
            raise NoiseError("the nonce is used up")
        return bytes(4) + self.n.to_bytes(8, "big")  # section 12.4: AESGCM has a big-endian nonce

    def encrypt_with_ad(self, ad, plaintext):
        if self.k is None:
            return plaintext
        out = AESGCM(self.k).encrypt(self._nonce(), plaintext, ad)
        self.n += 1
        return out

    def decrypt_with_ad(self, ad, ciphertext):
        if self.k is None:
            return ciphertext
        try:
            out = AESGCM(self.k).decrypt(self._nonce(), ciphertext, ad)
        except (InvalidTag, ValueError) as err:
            raise NoiseError("a ciphertext does not authenticate") from err
        self.n += 1
        return out


class SymmetricState:
    """Section 5.2."""

    def __init__(self, name=PROTOCOL_NAME):
        self.h = name.ljust(HASHLEN, b"\0") if len(name) <= HASHLEN else hashlib.sha256(name).digest()
        self.ck = self.h
        self.cipher = CipherState()

    def mix_key(self, material):
        self.ck, key = hkdf(self.ck, material, 2)
        self.cipher = CipherState(key)

    def mix_hash(self, data):
        self.h = hashlib.sha256(self.h + data).digest()

    def mix_key_and_hash(self, material):
        self.ck, temp_h, key = hkdf(self.ck, material, 3)
        self.mix_hash(temp_h)
        self.cipher = CipherState(key)

    def encrypt_and_hash(self, plaintext):
        out = self.cipher.encrypt_with_ad(self.h, plaintext)
        self.mix_hash(out)
        return out

    def decrypt_and_hash(self, ciphertext):
        out = self.cipher.decrypt_with_ad(self.h, ciphertext)
        self.mix_hash(ciphertext)
        return out

    def split(self):
        k1, k2 = hkdf(self.ck, b"", 2)
        return k1, k2


class HandshakeState:
    """Section 5.3 with the psk modifier of section 9. `psk` is set once it is known, before message 3.

    `ephemeral` injects the ephemeral key pair; `trace`, if given, gets (token, chaining key, hash) after each token.
    """

    def __init__(self, initiator, static, prologue=b"", ephemeral=None, psk=None, random=os.urandom, trace=None):
        self.initiator = initiator
        self.s = static
        self.e = ephemeral
        self.rs = None
        self.re = None
        self.psk = psk
        self.random = random
        self.trace = trace
        self.index = 0
        self.dead = False
        self.symmetric = SymmetricState()
        self.symmetric.mix_hash(prologue)

    def _note(self, token):
        if self.trace is not None:
            self.trace.append((token, self.symmetric.ck, self.symmetric.h))

    def _start(self, writing):
        mine = (self.index % 2 == 0) == self.initiator
        if self.dead or self.index >= len(XXPSK3) or mine != writing:
            raise NoiseError("out of order, or after an error")
        self.dead = True  # until the whole message has gone through
        return XXPSK3[self.index]

    def _done(self):
        self.index += 1
        self.dead = False

    def _mix_dh(self, token):
        if token == "ee":
            shared = self.e.dh(self.re)
        elif token == "es":
            shared = self.e.dh(self.rs) if self.initiator else self.s.dh(self.re)
        else:
            shared = self.s.dh(self.re) if self.initiator else self.e.dh(self.rs)
        self.symmetric.mix_key(shared)

    def _mix_psk(self):
        if self.psk is None or len(self.psk) != 32:
            raise NoiseError("no psk is set")
        self.symmetric.mix_key_and_hash(self.psk)

    def write_message(self, payload):
        out = b""
        for token in self._start(True):
            if token == "e":
                if self.e is None:
                    self.e = KeyPair.generate(self.random)
                out += self.e.public
                self.symmetric.mix_hash(self.e.public)
                self.symmetric.mix_key(self.e.public)  # section 9.2
            elif token == "s":
                out += self.symmetric.encrypt_and_hash(self.s.public)
            elif token == "psk":
                self._mix_psk()
            else:
                self._mix_dh(token)
            self._note(token)
        out += self.symmetric.encrypt_and_hash(payload)
        self._note("payload")
        self._done()
        return out

    def read_message(self, message):
        rest = message

        def take(count):
            nonlocal rest
            if len(rest) < count:
                raise NoiseError("the message is too short")
            head, rest = rest[:count], rest[count:]
            return head

        for token in self._start(False):
            if token == "e":
                self.re = take(DHLEN)
                self.symmetric.mix_hash(self.re)
                self.symmetric.mix_key(self.re)
            elif token == "s":
                self.rs = self.symmetric.decrypt_and_hash(take(DHLEN + (TAGLEN if self.symmetric.cipher.k else 0)))
            elif token == "psk":
                self._mix_psk()
            else:
                self._mix_dh(token)
            self._note(token)
        payload = self.symmetric.decrypt_and_hash(rest)
        self._note("payload")
        self._done()
        return payload

    def split(self):
        """k1 of initiator to responder and k2 of responder to initiator."""
        if self.dead or self.index != len(XXPSK3):
            raise NoiseError("the handshake is not finished")
        return self.symmetric.split()
