"""Frames of section 3: header checks byte by byte, status bodies, and the refusals with their codes."""

import struct

MAGIC = b"salt"
VERSION = 1
HEADER = 8
MESSAGE_1, MESSAGE_2, MESSAGE_3, STATUS = 1, 2, 3, 4
LENGTHS = {MESSAGE_1: (1232, 1232), MESSAGE_2: (1190, 24576), MESSAGE_3: (70, 24576), STATUS: (4, 4)}

CODES = {
    0: "accepted", 1: "unsupported_version", 2: "malformed", 3: "decryption_failed", 4: "unknown_ca",
    5: "certificate_expired", 6: "certificate_not_yet_valid", 7: "certificate_revoked", 8: "revocation_unknown",
    9: "certificate_unacceptable", 10: "statement_invalid", 11: "statement_expired", 12: "machine_name_mismatch",
    13: "account_unacceptable", 14: "target_mismatch", 15: "no_application_protocol", 16: "no_record_protocol",
    17: "no_rpc_version", 18: "bad_choice", 19: "overloaded", 20: "timed_out", 21: "local_account",
    22: "shutting_down", 23: "internal", 24: "denied_by_policy", 25: "dns_unknown", 26: "own_certificate",
}
ACCEPTED, UNSUPPORTED_VERSION, MALFORMED, DECRYPTION_FAILED, UNKNOWN_CA = 0, 1, 2, 3, 4
CERTIFICATE_EXPIRED, CERTIFICATE_NOT_YET_VALID, CERTIFICATE_REVOKED, REVOCATION_UNKNOWN = 5, 6, 7, 8
CERTIFICATE_UNACCEPTABLE, STATEMENT_INVALID, STATEMENT_EXPIRED, MACHINE_NAME_MISMATCH = 9, 10, 11, 12
ACCOUNT_UNACCEPTABLE, TARGET_MISMATCH, NO_APPLICATION_PROTOCOL, NO_RECORD_PROTOCOL = 13, 14, 15, 16
NO_RPC_VERSION, BAD_CHOICE, OVERLOADED, TIMED_OUT, LOCAL_ACCOUNT, SHUTTING_DOWN, INTERNAL = range(17, 24)
DENIED_BY_POLICY, DNS_UNKNOWN, OWN_CERTIFICATE = 24, 25, 26


class Refusal(Exception):
    """This side refuses. `answer` is False where nothing may be answered (bytes without the magic)."""

    def __init__(self, code, text, answer=True):
        super().__init__("%s (%d): %s" % (CODES.get(code, "unknown"), code, text))
        self.code = code
        self.text = text
        self.answer = answer


class PeerRefused(Exception):
    """The peer sent a status with a code other than 0."""

    def __init__(self, status):
        super().__init__("the peer refused: %s (%d)" % (CODES.get(status.code, "an unknown reason"), status.code))
        self.code = status.code
        self.status = status


class Status:
    def __init__(self, code, lowest=VERSION, highest=VERSION):
        self.code, self.lowest, self.highest = code, lowest, highest

    def body(self):
        return struct.pack(">HBB", self.code, self.lowest, self.highest)

    def frame(self):
        return frame(STATUS, self.body())

    @classmethod
    def parse(cls, body):
        return cls(*struct.unpack(">HBB", body))


def frame(kind, body, version=VERSION, magic=MAGIC, length=None):
    return magic + struct.pack(">BBH", version, kind, len(body) if length is None else length) + body


class FrameReader:
    """Collects exactly one frame at a time and leaves what follows it in `rest`."""

    def __init__(self):
        self.buffer = b""

    def feed(self, data):
        self.buffer += data

    @property
    def rest(self):
        return self.buffer

    def next(self, expected):
        """The next frame as (type, body, whole frame), or None if more bytes are needed."""
        head = self.buffer[:HEADER]
        if head[:4] != MAGIC[:len(head[:4])]:
            raise Refusal(MALFORMED, "the bytes do not begin with the magic", answer=False)
        if len(head) < HEADER:
            return None
        version, kind, length = struct.unpack(">BBH", head[4:])
        if version != VERSION and kind != STATUS:
            raise Refusal(UNSUPPORTED_VERSION, "version %d is not served" % version)
        if kind not in (expected, STATUS):
            raise Refusal(MALFORMED, "a frame of type %d where %d is expected" % (kind, expected))
        low, high = LENGTHS[kind]
        if not low <= length <= high:
            raise Refusal(MALFORMED, "a frame of type %d with a body of %d bytes" % (kind, length))
        if len(self.buffer) < HEADER + length:
            return None
        whole, self.buffer = self.buffer[:HEADER + length], self.buffer[HEADER + length:]
        return kind, whole[HEADER:], whole
