"""The Python program of the interoperability tests: stock gRPC, under shared-altsd exec.

    greeter_peer.py server ADDRESS
    greeter_peer.py client TARGET ACCOUNT,ACCOUNT...

It does what interop/cpp/peer.cc does, but for Echo. gRPC for Python shows a client nothing of its server's identity,
and nobody the attributes: "-" stands for them.
"""

import concurrent.futures
import hashlib
import sys

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


def digest(stream):
    sha = hashlib.sha256()
    for chunk in stream:
        sha.update(chunk.value)
    return sha.hexdigest()


class Interop(interop_pb2_grpc.InteropServicer):
    def Greet(self, request, context):
        return StringValue(value=context.auth_context()['service_account'][0].decode() + ' -')

    def Upload(self, requests, context):
        return StringValue(value=digest(requests))

    def Download(self, request, context):
        yield from chunks(request.value)


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
        if tuple(map(int, grpc.__version__.split('.')[:2])) < (1, 54):
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
        raise ValueError(command)


def run_client(target, accounts):
    client = Client(target, accounts.split(','))
    for line in sys.stdin:
        command, *numbers = line.split()
        try:
            answer = 'ok ' + client.do(command, *map(int, numbers))
        except grpc.RpcError as error:
            answer = f'error {error.code().value[0]} {error.details()}'
        print(answer.replace('\n', ' '), flush=True)


if sys.argv[1] == 'server':
    serve(sys.argv[2])
else:
    run_client(sys.argv[2], sys.argv[3])
