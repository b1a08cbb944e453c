"""Echo every byte: `echo_server.py PORT`. Runs until it is killed; the peer's close is answered by ours."""

import select
import socket
import sys

CHUNK_BYTES = 65536
BACKLOG = 4096


def serve(port: int) -> None:
    """Echo on all of the pod's addresses."""
    listener = socket.create_server(("0.0.0.0", port), backlog=BACKLOG)
    connections: dict[int, socket.socket] = {}
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == listener.fileno():
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections[connection.fileno()] = connection
                poll.register(connection, select.EPOLLIN)
            elif not echo(connections[descriptor]):
                connections.pop(descriptor).close()


def echo(connection: socket.socket) -> bool:
    """Send back what came; False at the end of the connection."""
    try:
        data = connection.recv(CHUNK_BYTES)
        connection.sendall(data)
    except ConnectionError:
        return False
    return bool(data)


if __name__ == "__main__":
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    serve(int(sys.argv[1]))
