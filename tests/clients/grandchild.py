"""Starts a Python of its own and passes the descriptor on by name, as subprocess demands."""

import os
import subprocess
import sys

control = int(os.environ["BROKER_EXEC_FD"])
get = [sys.executable, os.path.join(os.path.dirname(__file__), "get.py"), "/"]
print(subprocess.run(get, pass_fds=[control], check=True, capture_output=True, text=True).stdout)

# Without pass_fds there is no descriptor, and the client can tell: the number is closed or another's.
device, inode = map(int, os.environ["BROKER_EXEC_FD_ID"].split(":"))
here = os.fstat(control)
assert (here.st_dev, here.st_ino) == (device, inode)
check = f"import os; os.fstat({control})"
assert subprocess.run([sys.executable, "-c", check], stderr=subprocess.DEVNULL).returncode != 0
