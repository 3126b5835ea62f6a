"""Dial with plain write(2): only the descriptor itself needs recvmsg(2)."""

import os
import socket

control = int(os.environ["BROKER_EXEC_FD"])
assert os.write(control, b"\x01") == 1
reply, fds, _, _ = socket.recv_fds(socket.socket(fileno=os.dup(control)), 1, 1)
assert (reply, len(fds)) == (b"\x01", 1), (reply, fds)
os.write(fds[0], b"GET /status/201 HTTP/1.1\r\nHost: api.local\r\nConnection: close\r\n\r\n")
answer = b""
while part := os.read(fds[0], 4096):
    answer += part
print(answer.decode())

# A refusal can be had with plain read(2) as well: it carries no descriptor.
os.write(control, b"\x02")
assert os.read(control, 1) == b"\xff"
