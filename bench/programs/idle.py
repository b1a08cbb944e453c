"""Open connections and keep them: `idle.py ADDRESS PORT CONNECTIONS`.

Each carries one byte each way when it is opened. Prints {"count"} when all are open, and closes them when its input
ends.
"""

import json
import resource
import socket
import sys

TIMEOUT_SECONDS = 10

if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    held = []
    for number in range(int(sys.argv[3])):
        connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), TIMEOUT_SECONDS)
        held.append(connection)
        connection.send(b"x")
        if not connection.recv(1):
            raise ConnectionError(f"connection {number} was closed by the server")
    print(json.dumps({"count": len(held)}), flush=True)
    sys.stdin.read()
