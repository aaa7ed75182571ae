"""A container engine that answers what its client asks first, on a Unix domain socket; see programs.sh."""

import http.server
import json
import socketserver
import sys

VERSION = {
    "Version": "1.0", "ApiVersion": "1.41", "MinAPIVersion": "1.24", "Os": "linux",
    "Arch": "amd64", "GitCommit": "none", "GoVersion": "none", "KernelVersion": "none",
}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, body, kind="text/plain"):
        self.send_response(200)
        self.send_header("Api-Version", "1.41")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        if self.path.endswith("/version"):
            self.answer(json.dumps(VERSION).encode(), "application/json")
        else:
            self.answer(b"OK\n")

    do_HEAD = do_GET

    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def address_string(self):
        return "local"


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


Server(sys.argv[1], Handler).serve_forever()
