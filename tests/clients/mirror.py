"""Post bodies that no other client posts, and insist on getting exactly them back."""

import sys

from dial import Connection

name = sys.argv[1].encode()
connection = Connection()
for turn in range(5):
    body = b"%s turn %d;" % (name, turn) * 20_000
    connection.request("POST", "/mirror", body, {"X-Client": name})
    response = connection.getresponse()
    if response.status != 200 or response.read() != body:
        sys.exit(f"client {sys.argv[1]}: turn {turn} came back changed, status {response.status}")
print("intact", sys.argv[1])
