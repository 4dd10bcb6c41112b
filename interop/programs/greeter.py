# A WSGI application that greets whom the forward has proved, and knows nothing of ALTS: greeter.py PATH
import os
import socketserver
import sys
from wsgiref import simple_server


class Handler(simple_server.WSGIRequestHandler):
    def address_string(self):  # a UNIX socket's client has none
        return 'forward'

    def log_message(self, *args):
        pass


class Server(socketserver.UnixStreamServer, simple_server.WSGIServer):
    def server_bind(self):
        socketserver.UnixStreamServer.server_bind(self)
        self.server_name, self.server_port = 'localhost', 80
        self.setup_environ()

    def get_request(self):
        return self.socket.accept()[0], ('forward', 0)


def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    told = sorted('%s=%s' % (k, v) for k, v in environ.items() if k.startswith(('HTTP_ALTSD', 'HTTP_X_', 'HTTP_FORWARDED')))
    return [('hello %s\n%s\n' % (environ.get('HTTP_ALTSD_PEER'), '\n'.join(told))).encode()]


os.umask(0o077)
server = Server(sys.argv[1], Handler)
server.set_app(application)
server.serve_forever()
