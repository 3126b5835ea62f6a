"""A client as others wrote it for a broker of this protocol: it knows its service's own variables and
nothing of broker-exec."""

import array
import os
import socket
import sys

assert "FLASHDUTY_APP_KEY" not in os.environ, "the caller's key reached the command"
assert os.environ["FLASHDUTY_BASE_URL"] == "http://flashduty.broker.local"
host = os.environ["FLASHDUTY_BASE_URL"].removeprefix("http://")
control = socket.socket(fileno=int(os.environ["FLASHDUTY_CRED_FD"]))
control.settimeout(10)
dials = 0


def dial():
    global dials
    dials += 1
    assert control.sendmsg([b"\x01"]) == 1
    space = socket.CMSG_SPACE(array.array("i").itemsize)
    reply, ancillary, flags, _ = control.recvmsg(1, space, socket.MSG_CMSG_CLOEXEC)
    if reply != b"\x01":
        sys.exit(f"dial refused: {reply!r}")
    assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC), flags
    [(level, kind, data)] = ancillary
    assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
    [fd] = array.array("i", data)
    stream = socket.socket(fileno=fd)
    stream.settimeout(10)
    return stream


idle = None


def take():
    global idle
    stream, idle = idle, None
    return stream or dial()


def give_back(stream):
    """Keeps one idle connection and closes the others."""
    global idle
    if idle is None:
        idle = stream
    else:
        stream.close()


def send(stream, body):
    head = f"POST /mirror?page=1 HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
    stream.sendall(head.encode() + body)


def receive(stream):
    with stream.makefile("rb") as file:
        status = int(file.readline().split()[1])
        length = 0
        while (line := file.readline()) != b"\r\n":
            name, value = line.split(b":", 1)
            if name.lower() == b"content-length":
                length = int(value)
        return status, file.read(length)


for turn in range(3):
    stream = take()
    send(stream, b"one after the other")
    assert receive(stream) == (200, b"one after the other")
    give_back(stream)
assert dials == 1, f"the idle connection was not good for a second request: {dials} dials"

streams = [take() for _ in range(4)]
for number, stream in enumerate(streams):
    send(stream, b"at once %d" % number)
for number, stream in reversed(list(enumerate(streams))):
    assert receive(stream) == (200, b"at once %d" % number)
    give_back(stream)
assert dials == 4, dials

stream = take()
send(stream, b"once more")
assert receive(stream) == (200, b"once more")
assert dials == 4, dials
print("served", dials)
