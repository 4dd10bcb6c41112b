"""Verdicts on input, for differential tests: a line of JSON in, a line of JSON out, until the end of the input.

The first line says what is trusted and what the application speaks, byte strings in hexadecimal, as in docs/spec/vectors.md:

    {"trust": [{"certificate": HEX, "names": []}], "revocation_lists": [HEX], "complete_lists": [HEX],
     "under_dns": [NAME], "parameters": {...}}

Each line after it has "do" and what that needs; the answer's "code" is 0 where all is well:

    identity    identity, static, now, and true for what is set of domain_accounts, stale_lists_accepted, dns (the names of
                under_dns are under DNS); require_eku; tlsa, what DNS says of the machine, absent if nothing
    payload2    payload, static, now: what an initiator does with the payload of message 2 after its decryption
    payload3    payload, static, now: what a responder does with that of message 3
    frames      chunks, a list: what a responder (initiator: true, an initiator that has sent message 1) does with these
                bytes. The answer has by_peer, answer (true if bytes were sent) and status (they, if a status), too.
"""

import json
import sys
import time

from cryptography.x509 import ObjectIdentifier

from . import mlkem
from .frames import STATUS, PeerRefused, Refusal
from .handshake import Config, Initiator, Responder, parse_envelope
from .identity import Certificate, RevocationList, Trust, verify
from .negotiate import Choice, Offer, RpcVersions, check_choice, choose
from .noise import KeyPair


def parameters(p):
    return Offer(p["application_protocols"], p["record_protocols"], RpcVersions(p["rpc_max"], p["rpc_min"]),
                 p["max_frame_size"], p["transport_protocols"])


class Judge:
    def __init__(self, setup):
        self.cas = [(Certificate(bytes.fromhex(ca["certificate"])), ca["names"] or None) for ca in setup["trust"]]
        self.lists = [RevocationList(bytes.fromhex(x)) for x in setup["revocation_lists"]]
        self.lists += [RevocationList(bytes.fromhex(x), complete=True) for x in setup["complete_lists"]]
        self.under_dns = setup["under_dns"]
        self.parameters = parameters(setup["parameters"])
        self.static = KeyPair.generate()
        self.policies = {}
        self.kinds = {f.__name__: f for f in (self.identity, self.payload2, self.payload3, self.frames)}

    def trust(self, case):
        key = tuple(case.get(k) for k in ("domain_accounts", "stale_lists_accepted", "require_eku", "dns"))
        if key not in self.policies:
            eku = ObjectIdentifier(key[2]) if key[2] else None
            self.policies[key] = Trust(self.cas, self.lists, bool(key[1]), eku, bool(key[0]),
                                       self.under_dns if key[3] else ())
        trust, records = self.policies[key], case.get("tlsa")
        trust.tlsa = lambda machine: None if records is None else [bytes.fromhex(r) for r in records]
        return trust

    def identity(self, case):
        verify(bytes.fromhex(case["identity"]), bytes.fromhex(case["static"]), self.trust(case), case["now"])

    def _envelope(self, case, start, second):
        identity, other = parse_envelope(bytes.fromhex(case["payload"])[start:], second)
        verify(identity, bytes.fromhex(case["static"]), self.trust(case), case["now"])
        return other

    def payload2(self, case):
        choose(self.parameters, Offer.parse(self._envelope(case, mlkem.CT_SIZE, "the offer")))

    def payload3(self, case):
        check_choice(self.parameters, Choice.parse(self._envelope(case, 0, "the choice")))

    def frames(self, case):
        config = Config(self.static, b"none", self.trust(case), self.parameters, now=time.time)
        machine = (Initiator if case.get("initiator") else Responder)(config)
        if case.get("initiator"):
            machine.start()
        out = b"".join(machine.feed(bytes.fromhex(chunk)) for chunk in case["chunks"])
        return {"code": machine.error.code if machine.error else 0, "by_peer": isinstance(machine.error, PeerRefused),
                "answer": bool(out), "status": out.hex() if out[5:6] == bytes([STATUS]) else ""}

    def judge(self, case):
        try:
            return self.kinds[case["do"]](case) or {"code": 0}
        except Refusal as err:
            return {"code": err.code, "detail": err.text}


def main():
    judge = Judge(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        sys.stdout.write(json.dumps(judge.judge(json.loads(line))) + "\n")
        sys.stdout.flush()
    return 0
