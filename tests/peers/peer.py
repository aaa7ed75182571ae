"""An echo server and client over Python's own socket module: peer.py server|client PATH [ROUNDS]."""

import socket
import sys

role, path, *rounds = sys.argv[1:]
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
    rounds = int(rounds[0]) if rounds else 1
    sent = bytes(range(256)) * 256
    total = 0
    for left in reversed(range(rounds)):
        peer.sendall(sent)
        if left == 0:
            peer.shutdown(socket.SHUT_WR)
        received = b""
        while len(received) < len(sent) and (chunk := peer.recv(65536)):
            received += chunk
        assert received == sent, len(received)
        total += len(received)
    assert not peer.recv(1), "more than was sent"
    print("ok", total)
