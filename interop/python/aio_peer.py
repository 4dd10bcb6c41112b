"""greeter_peer.py by grpc.aio, with the same arguments and commands."""

import asyncio
import hashlib
import sys

import grpc
import interop_pb2_grpc
from google.protobuf.wrappers_pb2 import StringValue, UInt64Value

from greeter_peer import OPTIONS, accounts_of, add_message, answer_to, caller, chunks, messages


async def digest(stream):
    sha = hashlib.sha256()
    async for chunk in stream:
        sha.update(chunk.value)
    return sha.hexdigest()


class Interop(interop_pb2_grpc.InteropServicer):
    async def Greet(self, request, context):
        return StringValue(value=caller(context))

    async def Upload(self, requests, context):
        return StringValue(value=await digest(requests))

    async def Download(self, request, context):
        for chunk in chunks(request.value):
            yield chunk

    async def Echo(self, requests, context):
        async for message in requests:
            yield message


async def serve(address):
    server = grpc.aio.server(options=OPTIONS)
    interop_pb2_grpc.add_InteropServicer_to_server(Interop(), server)
    port = server.add_secure_port(address, grpc.alts_server_credentials())
    await server.start()
    print('port', port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


class Client:
    def __init__(self, target, accounts):
        self.target, self.accounts = target, accounts
        self.channel = self.new_channel()

    def new_channel(self):
        # Otherwise gRPC gives channels with the same credentials one connection.
        options = OPTIONS + [('grpc.use_local_subchannel_pool', 1)]
        return grpc.aio.secure_channel(self.target, grpc.alts_channel_credentials(self.accounts), options)

    async def greet(self, channel):
        reply = await interop_pb2_grpc.InteropStub(channel).Greet(StringValue(), timeout=60)
        return reply.value + ' - -'

    async def channels(self, n, at_once):
        channels, places = [self.new_channel() for _ in range(n)], asyncio.Semaphore(at_once)

        async def greet(channel):
            async with places:
                return await self.greet(channel)

        answers = set(await asyncio.gather(*map(greet, channels)))
        for channel in channels:
            await channel.close()
        return '; '.join(answers)

    async def do(self, command, n=0, m=0):
        stub = interop_pb2_grpc.InteropStub(self.channel)
        if command == 'new':
            await self.channel.close()
            self.channel = self.new_channel()
            return ''
        if command == 'greet':
            return await self.greet(self.channel)
        if command == 'upload':
            return (await stub.Upload(chunks(n), timeout=60)).value
        if command == 'download':
            return await digest(stub.Download(UInt64Value(value=n), timeout=60))
        if command == 'channels':
            return await self.channels(n, m)
        if command == 'echo':
            sha = hashlib.sha256()
            async for message in stub.Echo(messages(n, m), timeout=60):
                add_message(sha, message)
            return sha.hexdigest()
        raise ValueError(command)


async def run_client(target, accounts):
    client = Client(target, accounts_of(accounts))
    while line := await asyncio.to_thread(sys.stdin.readline):
        command, *numbers = line.split()
        try:
            answer = 'ok ' + await client.do(command, *map(int, numbers))
        except grpc.RpcError as error:
            answer = answer_to(error)
        print(answer.replace('\n', ' '), flush=True)


if sys.argv[1] == 'server':
    asyncio.run(serve(sys.argv[2]))
else:
    asyncio.run(run_client(sys.argv[2], sys.argv[3]))
