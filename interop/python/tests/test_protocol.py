import io
import json
import os
import shutil
import socket
import tempfile
import threading
import unittest
import warnings

from support import ROOT
from altsd_peer import conformance, vectors
from altsd_peer.cases import table
from altsd_peer.frames import PeerRefused, Refusal, Status
from altsd_peer.handshake import Config, Initiator, Responder, handshake_id
from altsd_peer.hostile import Env
from altsd_peer.identity import RevocationList, sign_statement, verify_statement
from altsd_peer.negotiate import Offer
from altsd_peer.noise import KeyPair
from altsd_peer.pki import PKI, make_pki

VECTORS = os.path.join(ROOT, "noiseproto", "testdata", "vectors.json")


def setUpModule():
    global DIRECTORY, THE_PKI
    warnings.simplefilter("ignore")  # the library deprecates SHA-1, which a bad certificate here needs
    DIRECTORY = tempfile.mkdtemp()
    make_pki(DIRECTORY)
    THE_PKI = PKI(DIRECTORY)


def tearDownModule():
    shutil.rmtree(DIRECTORY)


def config(entry, **more):
    _, _, machine = THE_PKI.entry(entry)
    signer = THE_PKI.signer(entry)
    return Config(KeyPair.generate(), lambda public: signer.identity(public, machine, "alice", [("uid", "1000")]),
                  more.pop("trust", None) or THE_PKI.trust(), **more)


class Handshake(unittest.TestCase):
    def run_pair(self, a, b):
        out = a.start()
        while out:
            out = b.feed(out)
            a, b = b, a

    def test_every_kind_of_key_in_both_roles(self):
        for kind in ("p256", "p384", "ed25519", "rsa"):
            a = Initiator(config("peer-" + kind, negotiation=Offer(("x", "grpc"), transport=("t",), frame_size=7)))
            b = Responder(config("daemon-" + kind, negotiation=Offer(("grpc", "x"), transport=("t", "u"))))
            self.run_pair(a, b)
            self.assertIsNone(a.error)
            self.assertEqual(a.result.key_data, b.result.key_data)
            self.assertEqual(len(a.result.key_data), 64)
            self.assertEqual(a.result.handshake_id, b.result.handshake_id)
            self.assertEqual(a.result.peer.name, "alice@daemon.example.test")
            self.assertEqual(b.result.peer.name, "alice@peer.example.test")
            self.assertEqual((a.result.choice.application, a.result.choice.transport), ("x", "t"))
            self.assertEqual((a.result.peer_frame_size, b.result.peer_frame_size), (0, 7))
            self.assertNotIn(a.result.key_data.hex(), json.dumps(a.result.as_json()))

    def test_segmentation_and_what_follows(self):
        a, b = Initiator(config("peer-p256")), Responder(config("daemon-p256"))
        first = a.start()
        self.assertEqual(a.id, handshake_id(first))
        second = b"".join(b.feed(first[i:i + 1]) for i in range(len(first)))
        third = b"".join(a.feed(second[i:i + 1]) for i in range(len(second)))
        status = b.feed(third + b"the first record")
        self.assertEqual(b.rest, b"the first record")
        a.feed(status + b"another")
        self.assertEqual(a.rest, b"another")
        self.assertEqual(a.result.key_data, b.result.key_data)

    def test_target_and_negotiation_are_refused_before_message_3(self):
        for more, code in ((dict(target=lambda peer: False), 14), (dict(negotiation=Offer(("other",))), 15)):
            a, b = Initiator(config("peer-p256", **more)), Responder(config("daemon-p256"))
            out = a.feed(b.feed(a.start()))
            self.assertEqual(out, Status(code).frame())
            self.assertIsInstance(a.error, Refusal)
            b.feed(out)
            self.assertIsInstance(b.error, PeerRefused)

    def test_policies_of_trust(self):
        from cryptography.x509.oid import ExtendedKeyUsageOID as EKU
        for entry, more, code in (("peer-stale", dict(crl_stale_ok=True), None), ("peer-stale", {}, 8),
                                  ("peer-eku-client", dict(require_eku=EKU.CLIENT_AUTH), None),
                                  ("peer-p256", dict(require_eku=EKU.CLIENT_AUTH), 9),
                                  ("peer-eku-any", dict(require_eku=EKU.CLIENT_AUTH), 9)):
            a = Initiator(config(entry))
            b = Responder(config("daemon-p256", trust=THE_PKI.trust(**more)))
            self.run_pair(a, b)
            self.assertEqual(b.error and b.error.code, code, entry)

    def test_revocation_lists_with_critical_extensions_are_refused(self):
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        key = THE_PKI.entry("peer-p256")[0]
        import datetime
        now = datetime.datetime.utcnow()
        b = x509.CertificateRevocationListBuilder().issuer_name(x509.Name([])).last_update(now).next_update(now)
        RevocationList(b.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER))
        reasons = frozenset([x509.ReasonFlags.key_compromise])
        point = x509.IssuingDistributionPoint
        for refused in (x509.DeltaCRLIndicator(1), point(None, None, False, False, reasons, False, False),
                        point(None, None, False, False, None, True, False),
                        point(None, None, False, False, None, False, True)):
            made = b.add_extension(refused, True).sign(key, hashes.SHA256())
            with self.assertRaises(ValueError):
                RevocationList(made.public_bytes(serialization.Encoding.DER))

    def test_signatures_of_statements(self):
        for kind in ("p256", "p384", "ed25519", "rsa"):
            key = THE_PKI.entry("peer-" + kind)[0]
            signature = sign_statement(key, b"statement")
            self.assertTrue(verify_statement(key.public_key(), b"statement", signature))
            self.assertFalse(verify_statement(key.public_key(), b"Statement", signature))


class Vectors(unittest.TestCase):
    def setUp(self):
        if not os.path.exists(VECTORS):
            self.skipTest("no file of vectors")

    def test_every_field(self):
        count, negative, verifications, wrong = vectors.check_file(VECTORS)
        self.assertEqual(wrong, [])
        self.assertGreaterEqual(count, 4)
        self.assertGreater(negative, 100)
        self.assertGreater(verifications, 250)

    def test_a_changed_or_new_field_is_noticed(self):
        with open(VECTORS) as f:
            text = f.read()
        for path in (("handshake_id",), ("key_data",), ("messages", 1, "after", "hash"), ("messages", 0, "payload"),
                     ("initiator", "signature"), ("psk",), ("start", "hash"), ("responder", "negotiation"), ("records", 3, "frame"), ("new",)):
            data = json.loads(text)
            data["vectors"] = data["vectors"][:1]
            data["accepted"], data["negative"], data["verification"]["cases"] = [], [], []
            data["dns"]["cases"] = []
            at = data["vectors"][0]
            for step in path[:-1]:
                at = at[step]
            value = at.get(path[-1], "00")
            at[path[-1]] = value[:-1] + ("0" if value[-1] != "0" else "1")
            with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
                json.dump(data, f)
                f.flush()
                self.assertEqual(len(vectors.check_file(f.name)[3]), 1, path)


class Conformance(unittest.TestCase):
    def test_the_table(self):
        cases = table()
        self.assertGreaterEqual(len({c.name for c in cases}), 150)
        self.assertTrue(all(c.expect and c.section for c in cases))

    def test_a_part_against_this_package(self):
        """Every seventh case; `conformance --self` plays all."""
        cases = conformance.selected(("initiator", "responder"))[::7]
        out = io.StringIO()
        env = Env(THE_PKI, timeout=60)
        _, failures = conformance.run(conformance.SelfTarget(THE_PKI, 60), env, cases, 25, True, False, out)
        self.assertEqual(failures, [], out.getvalue())

    def test_over_tcp_and_by_dialling(self):
        """The two targets of live runs: a listener that is attacked, and a dialler that is."""
        target = conformance.SelfTarget(THE_PKI, 60)
        listener = socket.create_server(("127.0.0.1", 0))

        def serve():
            while True:
                try:
                    conn, _ = listener.accept()
                except OSError:
                    return
                conformance.run_machine(conn, Responder(target.config()), 60)
                conformance.close(conn)
        threading.Thread(target=serve, daemon=True).start()
        env = Env(THE_PKI, timeout=60)
        cases = conformance.selected(("initiator",))[::40]
        _, failures = conformance.run(conformance.ConnectTarget(listener.getsockname(), 60), env, cases, 10, False, False,
                                      io.StringIO())
        self.assertEqual(failures, [])
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()

        dialled = conformance.ListenTarget(("127.0.0.1", 0), 60)
        cases = conformance.selected(("responder",))[::40]
        host, _, port = dialled.address.rpartition(":")
        stop = threading.Event()

        def dial():
            while not stop.is_set():
                try:
                    conn = socket.create_connection((host, int(port)), 60)
                except OSError:
                    return
                conformance.run_machine(conn, Initiator(target.config()), 60)
                conformance.close(conn)
        thread = threading.Thread(target=dial, daemon=True)
        thread.start()
        _, failures = conformance.run(dialled, Env(THE_PKI, timeout=60), cases, 10, False, False, io.StringIO())
        stop.set()
        dialled.listener.close()
        self.assertEqual(failures, [])

    def test_a_broken_peer_is_noticed(self):
        """A verifier that takes anything fails the suite."""
        target = conformance.SelfTarget(THE_PKI, 60)
        target.trust = THE_PKI.trust(crl_stale_ok=True, domain_accounts=True)
        cases = [c for c in conformance.selected(("initiator",)) if c.name in ("i/stale", "i/account-at-sign", "i/unknown")]
        _, failures = conformance.run(target, Env(THE_PKI, timeout=60), cases, 10, True, False, io.StringIO())
        self.assertEqual(sorted(f["name"] for f in failures), ["i/account-at-sign", "i/stale"])


if __name__ == "__main__":
    unittest.main()
