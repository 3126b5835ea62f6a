"""GET each path on one connection and print everything that comes back."""

import sys

from dial import Connection

connection = Connection()
for path in sys.argv[1:]:
    connection.request("GET", path)
    response = connection.getresponse()
    print(response.status, response.reason, response.getheaders(), response.read().decode())
