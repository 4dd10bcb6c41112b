import hashlib
import json
import os
import unittest

from support import DATA
from altsd_peer import mlkem, noise

H = bytes.fromhex


def load(name):
    with open(os.path.join(DATA, name)) as f:
        return json.load(f)


class MLKEM(unittest.TestCase):
    v = load("mlkem768.json")

    def test_keygen(self):
        for t in self.v["keyGen"]:
            ek, dk = mlkem.keygen_internal(H(t["d"]), H(t["z"]))
            self.assertEqual((ek.hex(), dk.hex()), (t["ek"], t["dk"]))

    def test_encapsulation(self):
        for t in self.v["encapsulation"]:
            self.assertTrue(mlkem.check_encapsulation_key(H(t["ek"])))
            k, c = mlkem.encaps_internal(H(t["ek"]), H(t["m"]))
            self.assertEqual((k.hex(), c.hex()), (t["k"], t["c"]))

    def test_decapsulation_with_valid_and_modified_ciphertexts(self):
        dk = H(self.v["decapsulation"]["dk"])
        for t in self.v["decapsulation"]["tests"]:
            self.assertEqual(mlkem.decaps(dk, H(t["c"])).hex(), t["k"], t["tcId"])

    def test_accumulated(self):
        a = self.v["accumulated"]
        stream = hashlib.shake_128().digest(a["rounds"] * 1184)
        total = hashlib.shake_128()
        for i in range(a["rounds"]):
            s = stream[1184 * i:1184 * (i + 1)]
            ek, dk = mlkem.keygen_internal(s[:32], s[32:64])
            k, c = mlkem.encaps_internal(ek, s[64:96])
            self.assertEqual(mlkem.decaps_internal(dk, c), k)
            total.update(ek + c + k + mlkem.decaps_internal(dk, s[96:]))
        self.assertEqual(total.hexdigest(32), a["shake128"])

    def test_modulus_check_at_every_coefficient(self):
        ek, _ = mlkem.keygen_internal(bytes(32), bytes(32))
        self.assertTrue(mlkem.check_encapsulation_key(ek))
        for i in range(0, 768, 7):
            for value in (3329, 4095):
                poly = int.from_bytes(ek[384 * (i // 256):384 * (i // 256 + 1)], "little")
                shift = 12 * (i % 256)
                poly = poly & ~(4095 << shift) | value << shift
                bad = ek[:384 * (i // 256)] + poly.to_bytes(384, "little") + ek[384 * (i // 256 + 1):]
                self.assertFalse(mlkem.check_encapsulation_key(bad))
        self.assertFalse(mlkem.check_encapsulation_key(ek[:-1]))
        self.assertFalse(mlkem.check_encapsulation_key(ek + b"\0"))


class Noise(unittest.TestCase):
    def test_vectors(self):
        vectors = load("noise_xxpsk3.json")["vectors"]
        self.assertGreaterEqual(len(vectors), 4)
        for v in vectors:
            prologue, psk = H(v.get("prologue", "")), H(v["preshared_key"])

            def state(initiator, side):
                return noise.HandshakeState(initiator, noise.KeyPair(H(v[side + "_static"])), prologue,
                                            noise.KeyPair(H(v["gen_%s_ephemeral" % side])), psk)
            a, b = state(True, "init"), state(False, "resp")
            for i in range(3):
                w, r = (b, a) if i % 2 else (a, b)
                message = w.write_message(H(v["msg_%d_payload" % i]))
                self.assertEqual(message.hex(), v["msg_%d_ciphertext" % i])
                self.assertEqual(r.read_message(message), H(v["msg_%d_payload" % i]))
            self.assertEqual(a.split(), b.split())
            self.assertEqual(a.rs, b.s.public)
            self.assertEqual(b.rs, a.s.public)
            k1, k2 = (noise.CipherState(k) for k in a.split())
            for i in (3, 4):
                cipher = k1 if i % 2 else k2  # these vectors begin anew with the initiator after the handshake
                got = cipher.encrypt_with_ad(b"", H(v["msg_%d_payload" % i]))
                self.assertEqual(got.hex(), v["msg_%d_ciphertext" % i])

    def test_any_error_is_final(self):
        a = noise.HandshakeState(True, noise.KeyPair.generate())
        b = noise.HandshakeState(False, noise.KeyPair.generate())
        message = a.write_message(b"x")
        with self.assertRaises(noise.NoiseError):
            b.read_message(message[:-1] + bytes([message[-1] ^ 1]))
        with self.assertRaises(noise.NoiseError):
            b.read_message(message)

    def test_low_order_points(self):
        key = noise.KeyPair.generate()
        for point in (bytes(32), b"\1" + bytes(31),
                      H("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
                      H("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
                      H("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
                      H("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
                      H("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f")):
            with self.assertRaises(noise.NoiseError):
                key.dh(point)

    def test_message_three_needs_the_psk(self):
        a = noise.HandshakeState(True, noise.KeyPair.generate())
        b = noise.HandshakeState(False, noise.KeyPair.generate())
        b.read_message(a.write_message(b""))
        a.read_message(b.write_message(b""))
        with self.assertRaises(noise.NoiseError):
            a.write_message(b"")


if __name__ == "__main__":
    unittest.main()
