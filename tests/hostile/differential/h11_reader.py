"""Reads requests as h11 does.

One case a line on standard input, in hexadecimal: the bytes of a connection up to its end. One line
for each on standard output: METHOD,TARGET,BODY for every whole request (target and body in
hexadecimal), then ok, closed (a request said that it is the last) or error.
"""

import sys

import h11


def read(data):
    said = []
    conn = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 17)
    request, body = None, b""
    try:
        conn.receive_data(data)
        conn.receive_data(b"")
        while True:
            event = conn.next_event()
            if type(event) is h11.Request:
                request, body = event, b""
            elif type(event) is h11.Data:
                body += bytes(event.data)
            elif type(event) is h11.EndOfMessage:
                method = request.method.decode()
                said.append(f"{method},{request.target.hex()},{body.hex()}")
                # Not 200, which would open a tunnel for a CONNECT.
                conn.send(h11.Response(status_code=404, headers=[("Content-Length", "0")]))
                conn.send(h11.EndOfMessage())
                if conn.our_state is not h11.DONE or conn.their_state is not h11.DONE:
                    return said + ["closed"]
                conn.start_next_cycle()
            elif type(event) is h11.ConnectionClosed:
                return said + ["ok"]
            else:
                return said + ["error"]
    except h11.RemoteProtocolError:
        return said + ["error"]


for line in sys.stdin:
    print(" ".join(read(bytes.fromhex(line))), flush=True)
