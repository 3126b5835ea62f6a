"""A socket in the file system for tools that cannot receive descriptors: `relay.py PATH COMMAND...`."""

import socket, subprocess, sys, threading
from dial import dial

def pump(source, sink):
    while data := source.recv(65536):
        sink.sendall(data)
    sink.shutdown(socket.SHUT_WR)

def serve(listener):
    while True:
        client, stream = listener.accept()[0], dial()
        for pair in (client, stream), (stream, client):
            threading.Thread(target=pump, args=pair, daemon=True).start()

listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
threading.Thread(target=serve, args=(listener,), daemon=True).start()
sys.exit(subprocess.run(sys.argv[2:], close_fds=True).returncode)
