"""The Python program of the interoperability tests: stock gRPC, under shared-altsd exec.

    greeter_peer.py server ADDRESS
    greeter_peer.py client TARGET ACCOUNT,ACCOUNT...

It does what interop/cpp/peer.cc does. gRPC for Python shows a client nothing of its server: "-" stands for that.
aio_peer.py does the same by grpc.aio.
"""

import concurrent.futures
import hashlib
import sys

import altscontext_pb2
import grpc
import interop_pb2_grpc
from google.protobuf.wrappers_pb2 import BytesValue, StringValue, UInt64Value

CHUNK = 1 << 20
OPTIONS = [('grpc.max_receive_message_length', -1)]
# The pattern of interop.proto repeats after 65536 bytes.
PATTERN = bytes((i >> 8 ^ i) & 255 for i in range(65536)) * (CHUNK // 65536)


def chunks(size):
    for at in range(0, size, CHUNK):
        yield BytesValue(value=PATTERN[:min(CHUNK, size - at)])


def messages(n, largest):
    """The messages of "echo N M", of the sizes that interop/cpp/peer.cc has."""
    pattern = PATTERN[:65536] * (largest // 65536 + 2)
    at = random = 0
    for i in range(n):
        size = largest if i == 0 else 1
        if i > 1:
            random = (random * 6364136223846793005 + 1442695040888963407) % 2**64
            size = 1 + (random >> 32) % min(largest, 1 << (random >> 59))
        yield BytesValue(value=pattern[at:at + size])
        at = (at + size) % 65536


def digest(stream):
    sha = hashlib.sha256()
    for chunk in stream:
        sha.update(chunk.value)
    return sha.hexdigest()


def add_message(sha, message):
    sha.update(b'%d:' % len(message.value))
    sha.update(message.value)


def caller(context):
    """The caller's account and its attribute "uid"."""
    auth = context.auth_context()
    alts = altscontext_pb2.AltsContext.FromString(auth['alts_context'][0])
    return auth['service_account'][0].decode() + ' ' + alts.peer_attributes['uid']


class Interop(interop_pb2_grpc.InteropServicer):
    def Greet(self, request, context):
        return StringValue(value=caller(context))

    def Upload(self, requests, context):
        return StringValue(value=digest(requests))

    def Download(self, request, context):
        yield from chunks(request.value)

    def Echo(self, requests, context):
        yield from requests


def serve(address):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(), options=OPTIONS)
    interop_pb2_grpc.add_InteropServicer_to_server(Interop(), server)
    port = server.add_secure_port(address, grpc.alts_server_credentials())
    server.start()
    print('port', port, flush=True)
    sys.stdin.read()
    server.stop(None)


class Client:
    def __init__(self, target, accounts):
        self.target, self.accounts, self.options = target, accounts, list(OPTIONS)
        # Otherwise gRPC gives channels with the same credentials one connection.
        self.options.append(('grpc.use_local_subchannel_pool', 1))
        if self.accounts and tuple(map(int, grpc.__version__.split('.')[:2])) < (1, 54):
            # It fails at any list of accounts (grpc/grpc#31980). The machine is checked instead, by the name dialled, and
            # the account by the daemon's --server-accounts.
            self.accounts = None
            self.options.append(('grpc.default_authority', accounts[0].rpartition('@')[2]))
        self.channel = self.new_channel()

    def new_channel(self):
        return grpc.secure_channel(self.target, grpc.alts_channel_credentials(self.accounts), self.options)

    def greet(self, channel, wait_for_ready=False):
        stub = interop_pb2_grpc.InteropStub(channel)
        return stub.Greet(StringValue(), timeout=60, wait_for_ready=wait_for_ready).value + ' - -'

    def channels(self, n, at_once):
        channels = [self.new_channel() for _ in range(n)]
        with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
            # They wait for the reason in interop/cpp/peer.cc.
            answers = set(pool.map(lambda channel: self.greet(channel, wait_for_ready=True), channels))
        for channel in channels:
            channel.close()
        assert len(answers) == 1, answers
        return answers.pop()

    def echo(self, n, largest):
        sha = hashlib.sha256()
        # It waits for the reason in interop/cpp/peer.cc.
        for message in interop_pb2_grpc.InteropStub(self.channel).Echo(messages(n, largest), timeout=60, wait_for_ready=True):
            add_message(sha, message)
        return sha.hexdigest()

    def do(self, command, n=0, m=0):
        stub = interop_pb2_grpc.InteropStub(self.channel)
        if command == 'new':
            self.channel.close()
            self.channel = self.new_channel()
            return ''
        if command == 'greet':
            return self.greet(self.channel)
        if command == 'upload':
            return stub.Upload(chunks(n), timeout=60).value
        if command == 'download':
            return digest(stub.Download(UInt64Value(value=n), timeout=60))
        if command == 'channels':
            return self.channels(n, m)
        if command == 'echo':
            return self.echo(n, m)
        raise ValueError(command)


def accounts_of(argument):
    return argument.split(',') if argument else None


def answer_to(error):
    return f'error {error.code().value[0]} {error.details()}'


def run_client(target, accounts):
    client = Client(target, accounts_of(accounts))
    for line in sys.stdin:
        command, *numbers = line.split()
        try:
            answer = 'ok ' + client.do(command, *map(int, numbers))
        except grpc.RpcError as error:
            answer = answer_to(error)
        print(answer.replace('\n', ' '), flush=True)


if __name__ == '__main__':
    if sys.argv[1] == 'server':
        serve(sys.argv[2])
    else:
        run_client(sys.argv[2], sys.argv[3])
