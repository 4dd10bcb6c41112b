"""Relays between TCP connections and a daemon's local handshaker service, so that the suite can reach a daemon.

Needs Debian's python3-grpcio, which nothing else here does. The messages of the service are few and are written and
read by hand, from their field numbers. One JSON line is printed for each handshake.
"""

import json
import queue
import socket
import sys
import threading

import grpc

from .conformance import close

METHOD = "/grpc.gcp.HandshakerService/DoHandshake"
ALTS = 2
RECORD = b"ALTSRP_GCM_AES128_REKEY"


def _varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def field(number, value):
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def parse(data):
    """Fields of a message as {number: last value}."""
    out, at = {}, 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
    while at < len(data):
        key = varint()
        if key & 7 == 0:
            out[key >> 3] = varint()
        elif key & 7 == 2:
            size = varint()
            out[key >> 3] = data[at:at + size]
            at += size
        else:
            raise ValueError("a field of wire type %d" % (key & 7))
    return out


def _versions():
    version = field(1, 2) + field(2, 1)
    return field(1, version) + field(2, version)


def client_start(application, targets=()):
    out = field(1, ALTS) + field(2, application) + field(3, RECORD)
    for target in targets:
        out += field(4, field(1, target.encode()))
    return field(1, out + field(9, _versions()))


def server_start(application, data):
    parameters = field(1, ALTS) + field(2, field(1, RECORD))
    return field(2, field(1, application) + field(2, parameters) + field(3, data) + field(6, _versions()))


def next_message(data):
    return field(3, field(1, data))


class Session:
    """One stream of the service: a request, a response."""

    def __init__(self, channel, timeout):
        self.requests = queue.Queue()
        method = channel.stream_stream(METHOD, request_serializer=None, response_deserializer=None)
        self.call = method(iter(self.requests.get, None), timeout=timeout)

    def ask(self, request):
        self.requests.put(request)
        return parse(next(self.call))

    def end(self):
        self.requests.put(None)
        self.call.cancel()


def handshake(conn, channel, client, application, targets, timeout):
    """Relays one handshake. Returns what came of it, for the printed line."""
    conn.settimeout(timeout)
    session = Session(channel, timeout)

    def ended():
        """The service may end the stream while nothing comes from the peer: that ends the waiting, too."""
        try:
            conn.shutdown(socket.SHUT_RD)
        except OSError:
            pass
    session.call.add_callback(ended)
    try:
        if client:
            response = session.ask(client_start(application, targets))
        else:
            data = conn.recv(65536)
            if not data:
                return {"ok": False, "error": "the peer hung up"}
            response = session.ask(server_start(application, data))
        while True:
            if response.get(1):
                conn.sendall(response[1])
            status = parse(response.get(4, b""))
            if status.get(1):
                return {"ok": False, "error": status.get(2, b"").decode("utf-8", "replace"), "code": status[1]}
            if 3 in response:
                result = parse(response[3])
                peer = parse(result.get(4, b""))
                return {"ok": True, "peer": peer.get(1, b"").decode(), "key_bytes": len(result.get(3, b""))}
            data = conn.recv(65536)
            response = session.ask(next_message(data))
            if not data:
                return {"ok": False, "error": "the peer hung up"}
    except grpc.RpcError as err:
        return {"ok": False, "error": err.details() or "", "code": str(err.code())}
    except StopIteration:
        return {"ok": False, "error": "the service ended the stream"}
    except OSError as err:
        return {"ok": False, "error": type(err).__name__}
    finally:
        session.end()


def _tell(outcome):
    print(json.dumps(outcome, sort_keys=True), flush=True)


def serve(args):
    """A server application: every connection is handed to the daemon."""
    channel = grpc.insecure_channel("unix:" + args.socket)

    def one(conn):
        outcome = handshake(conn, channel, False, args.app.encode(), (), args.timeout)
        _tell(outcome)
        close(conn)
    with socket.create_server(args.address, backlog=64) as listener:
        _tell({"listening": "%s:%d" % listener.getsockname()[:2]})
        while True:
            conn, _ = listener.accept()
            threading.Thread(target=one, args=(conn,), daemon=True).start()


def dial(args):
    """A client application: dials, again and again if count is 0, and hands the connection to the daemon."""
    channel = grpc.insecure_channel("unix:" + args.socket)
    ok, done = True, 0
    while args.count == 0 or done < args.count:
        try:
            conn = socket.create_connection(args.address, args.timeout)
        except OSError:
            if args.count == 0 and done:
                break
            return 1
        outcome = handshake(conn, channel, True, args.app.encode(), args.target or (), args.timeout)
        _tell(outcome)
        close(conn)
        ok = ok and outcome["ok"]
        done += 1
    return 0 if ok else 1


def main(args):
    return (serve if args.mode == "serve" else dial)(args) or 0


if __name__ == "__main__":
    sys.exit("use python3 -m altsd_peer relay")
