"""Section 6: the offer of the responder, the choice of the initiator."""

from .frames import (BAD_CHOICE, MALFORMED, NO_APPLICATION_PROTOCOL, NO_RECORD_PROTOCOL, NO_RPC_VERSION, Refusal)
from .wire import Reader, WireError, opaque8, u8, u32

RECORD_PROTOCOL = "ALTSRP_GCM_AES128_REKEY"


class RpcVersions:
    def __init__(self, maximum=(2, 1), minimum=(2, 1)):
        self.maximum, self.minimum = tuple(maximum), tuple(minimum)

    def encode(self):
        return b"".join(u32(x) for x in self.maximum + self.minimum)

    @classmethod
    def parse(cls, r):
        a, b, c, d = (r.integer(4) for _ in range(4))
        return cls((a, b), (c, d))

    def common(self, other):
        return max(self.minimum, other.minimum) <= min(self.maximum, other.maximum)

    def as_json(self):
        return {"max": list(self.maximum), "min": list(self.minimum)}


class Offer:
    def __init__(self, application=("grpc",), record=(RECORD_PROTOCOL,), rpc=None, frame_size=0, transport=()):
        self.application, self.record, self.transport = list(application), list(record), list(transport)
        self.rpc = rpc or RpcVersions()
        self.frame_size = frame_size

    def encode(self):
        return (_encode_list(self.application) + _encode_list(self.record) + self.rpc.encode()
                + u32(self.frame_size) + _encode_list(self.transport))

    @classmethod
    def parse(cls, data):
        r = Reader(data)
        try:
            application = _parse_list(r, 1)
            record = _parse_list(r, 1)
            rpc = RpcVersions.parse(r)
            frame_size = r.integer(4)
            transport = _parse_list(r, 0)
            r.end()
        except WireError as err:
            raise Refusal(MALFORMED, "offer: %s" % err) from err
        return cls(application, record, rpc, frame_size, transport)


class Choice:
    def __init__(self, application, record, rpc, frame_size=0, transport=""):
        self.application, self.record, self.rpc = application, record, rpc
        self.frame_size, self.transport = frame_size, transport

    def encode(self):
        return (opaque8(self.application.encode("latin-1")) + opaque8(self.record.encode("latin-1"))
                + self.rpc.encode() + u32(self.frame_size) + opaque8(self.transport.encode("latin-1")))

    @classmethod
    def parse(cls, data):
        r = Reader(data)
        try:
            application = r.opaque8(1, 64, "the application protocol")
            record = r.opaque8(1, 64, "the record protocol")
            rpc = RpcVersions.parse(r)
            frame_size = r.integer(4)
            transport = r.opaque8(0, 64, "the transport protocol")
            r.end()
        except WireError as err:
            raise Refusal(MALFORMED, "choice: %s" % err) from err
        # Any bytes may stand here: what no offer can have was not offered.
        names = [x.decode("latin-1") for x in (application, record, transport)]
        return cls(names[0], names[1], rpc, frame_size, names[2])


def _encode_list(names):
    return u8(len(names)) + b"".join(opaque8(x.encode("latin-1")) for x in names)


def _text(data):
    if any(not 0x21 <= x <= 0x7e for x in data):
        raise WireError("a protocol name has a byte outside 0x21 to 0x7e")
    return data.decode("ascii")


def _parse_list(r, least):
    count = r.integer(1)
    if not least <= count <= 16:
        raise WireError("a list of %d" % count)
    names = [_text(r.opaque8(1, 64, "a protocol name")) for _ in range(count)]
    if len(set(names)) != len(names):
        raise WireError("a list holds an entry twice")
    return names


def _first(own, theirs):
    return next((x for x in own if x in theirs), None)


def choose(own, offer):
    """The initiator's choice. `own` is what its application asked for, in the form of an Offer."""
    application = _first(own.application, offer.application)
    if application is None:
        raise Refusal(NO_APPLICATION_PROTOCOL, "no application protocol in common")
    record = _first(own.record, offer.record)
    if record is None:
        raise Refusal(NO_RECORD_PROTOCOL, "no record protocol in common")
    if not own.rpc.common(offer.rpc):
        raise Refusal(NO_RPC_VERSION, "no RPC version in common")
    return Choice(application, record, own.rpc, own.frame_size, _first(own.transport, offer.transport) or "")


def check_choice(offer, choice):
    """The responder's check of what came back."""
    if choice.application not in offer.application or choice.record not in offer.record:
        raise Refusal(BAD_CHOICE, "a protocol was chosen that was not offered")
    if choice.transport and choice.transport not in offer.transport:
        raise Refusal(BAD_CHOICE, "a transport protocol was chosen that was not offered")
    if not offer.rpc.common(choice.rpc):
        raise Refusal(NO_RPC_VERSION, "no RPC version in common")
