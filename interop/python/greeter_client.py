"""Greets. Start it with: shared-altsd exec -- python3 greeter_client.py host.example.com:50051 alice@host.example.com

The second argument is the account that the server has to be. gRPC before 1.54 cannot take it (grpc/grpc#31980): there the
daemon checks the host name, and the account if it has --server-accounts.
"""

import sys

import grpc
import helloworld_pb2
import helloworld_pb2_grpc

credentials = grpc.alts_channel_credentials(sys.argv[2:] or None)
with grpc.secure_channel(sys.argv[1], credentials) as channel:
    reply = helloworld_pb2_grpc.GreeterStub(channel).SayHello(helloworld_pb2.HelloRequest(name='world'), timeout=30)
print(reply.message)
