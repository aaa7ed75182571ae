"""An echo server and client over Python's own socket module: peer.py server|client PATH."""

import socket
import sys

role, path = sys.argv[1:]
peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
if role == "server":
    peer.bind(path)
    peer.listen()
    print("listening", flush=True)
    connection, _ = peer.accept()
    while chunk := connection.recv(65536):
        connection.sendall(chunk)
    connection.shutdown(socket.SHUT_WR)
    connection.close()
else:
    peer.connect(path)
    sent = bytes(range(256)) * 256
    peer.sendall(sent)
    peer.shutdown(socket.SHUT_WR)
    received = b""
    while chunk := peer.recv(65536):
        received += chunk
    assert received == sent, len(received)
    print("ok", len(received))
