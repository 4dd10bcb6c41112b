"""A greeter that greets by account. Start it with: shared-altsd exec -- python3 greeter_server.py [::]:50051

The stubs: protoc --python_out=. --grpc_out=. --plugin=protoc-gen-grpc=$(command -v grpc_python_plugin) helloworld.proto
"""

import concurrent.futures
import sys

import grpc
import helloworld_pb2
import helloworld_pb2_grpc


class GreeterServer(helloworld_pb2_grpc.GreeterServicer):
    def SayHello(self, request, context):
        peer = context.auth_context()['service_account'][0].decode()
        return helloworld_pb2.HelloReply(message=f'Hello {request.name}, you are {peer}')


server = grpc.server(concurrent.futures.ThreadPoolExecutor())
helloworld_pb2_grpc.add_GreeterServicer_to_server(GreeterServer(), server)
port = server.add_secure_port(sys.argv[1], grpc.alts_server_credentials())
server.start()
print('port', port, flush=True)
server.wait_for_termination()
