"""Tries every way by which one process looks into another: `attack.py PID`. One line per way:
`denied` or `OPEN`, then what was tried. It prints nothing of what it could read, and keeps what it
read of the environment in the file of argv[2], if that is given."""

import ctypes
import os
import signal
import sys

pid = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206
PIDFD_OPEN, PIDFD_GETFD = 434, 438  # the same on every architecture of Linux


def read(name):
    with open(f"/proc/{pid}/{name}", "rb") as file:
        data = file.read(1 << 20)
    if name == "environ" and len(sys.argv) > 2:
        with open(sys.argv[2], "wb") as file:
            file.write(data)
    return len(data) > 0


def memory():
    with open(f"/proc/{pid}/mem", "rb", buffering=0):
        return True


def ptrace(request):
    """In a process of its own, whose end lets go of what it seized."""
    tracer = os.fork()
    if tracer == 0:
        os._exit(0 if libc.ptrace(request, pid, None, None) == 0 else 1)
    attached = os.waitpid(tracer, 0)[1] == 0
    if attached:
        os.kill(pid, signal.SIGCONT)  # PTRACE_ATTACH stops its victim
    return attached


class Span(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def vm_readv():
    """EFAULT instead of EPERM means that only the address was wrong."""
    buffer = ctypes.create_string_buffer(8)
    mine, theirs = Span(ctypes.addressof(buffer), 8), Span(0x10000, 8)
    done = libc.process_vm_readv(pid, ctypes.byref(mine), 1, ctypes.byref(theirs), 1, 0)
    return done >= 0 or ctypes.get_errno() == 14


def pidfd_getfd():
    pidfd = libc.syscall(PIDFD_OPEN, pid, 0)
    assert pidfd >= 0, os.strerror(ctypes.get_errno())
    return any(libc.syscall(PIDFD_GETFD, pidfd, number, 0) >= 0 for number in range(64))


def descriptors(act):
    def attempt(path):
        try:
            act(path)
            return True
        except OSError:
            return False

    return lambda: any(attempt(f"/proc/{pid}/fd/{number}") for number in range(64))


ways = {
    "environ": lambda: read("environ"),
    "maps": lambda: read("maps"),
    "smaps": lambda: read("smaps"),
    "auxv": lambda: read("auxv"),
    "syscall": lambda: read("syscall"),
    "mem": memory,
    "fd links": descriptors(os.readlink),
    "fd contents": descriptors(lambda path: open(path, "rb", buffering=0).close()),
    "map_files": lambda: any(
        os.readlink(f"/proc/{pid}/map_files/{name}") for name in os.listdir(f"/proc/{pid}/map_files")
    ),
    "process_vm_readv": vm_readv,
    "pidfd_getfd": pidfd_getfd,
    "PTRACE_SEIZE": lambda: ptrace(PTRACE_SEIZE),
    "PTRACE_ATTACH": lambda: ptrace(PTRACE_ATTACH),
}
for name, way in ways.items():
    try:
        outcome = "OPEN" if way() else "denied"
    except OSError:
        outcome = "denied"
    print(outcome, name)
