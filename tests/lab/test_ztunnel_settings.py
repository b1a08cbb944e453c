"""What the environment changes in how ztunnel carries connections, looked at from the pods' namespaces."""

import re
import time

from ambit.demo.polling import wait_for
from tests.support.chosen_mesh import ChosenMesh, Pod, Ztunnel, chosen_mesh
from tests.support.isolation import isolated

PORT = 8080


def pair(mesh: ChosenMesh, **environment: str) -> tuple[Pod, Pod, Ztunnel]:
    """A client and a server on two nodes, and the server's ztunnel; both ztunnels have the environment."""
    client, server = mesh.add_pod("client"), mesh.add_pod("server", node="node-2")
    mesh.tell(client.workload(), server.workload())
    mesh.start_ztunnel(**environment)
    ztunnel = mesh.start_ztunnel("node-2", **environment)
    server.serve(PORT)
    return client, server, ztunnel


def sockets(pod: Pod, *options: str) -> list[str]:
    """What ss(8) says of the pod's TCP sockets, one line each."""
    return pod.execute("ss", "--tcp", "--numeric", "--no-header", *options).splitlines()


def is_between(line: str, *, port: int) -> bool:
    return line.startswith("ESTAB") and re.search(rf":{port}(\s|$)", line) is not None


@isolated
def test_the_application_sees_its_client_unless_told_otherwise() -> None:
    with chosen_mesh() as mesh:
        client, server, ztunnel = pair(mesh, ENABLE_ORIG_SRC="false")
        answer = client.ask(server.address, PORT)
        assert (answer.server, answer.client) == ("server", server.address)
        line = ztunnel.wait_for_line(lambda line: line.direction == "inbound")
        assert (line.source_address, line.error) == (client.address, "")


@isolated
def test_clients_addresses_may_be_demanded_for_both_ip_versions() -> None:
    with chosen_mesh() as mesh:
        client, server, ztunnel = pair(mesh, ENABLE_ORIG_SRC="true", USER_TIMEOUT_ENABLED="true")
        for own, address in zip(client.addresses, server.addresses, strict=True):
            assert client.ask(address, PORT).client == own
        assert not [line for line in ztunnel.access_lines() if line.error]


@isolated
def test_every_kind_of_socket_has_the_keepalive_that_is_set() -> None:
    with chosen_mesh() as mesh:
        client, server, _ = pair(mesh, KEEPALIVE_TIME="30s")
        outside = mesh.add_host("outside")
        with client.connect(server.address, PORT) as tunnelled, outside.connect(server.address, PORT) as plaintext:
            for connection in (tunnelled, plaintext):
                connection.sendall(b"hello\n")
                assert connection.recv(100)
            every = [*sockets(client, "--options"), *sockets(server, "--options")]
            ours = [line for line in every if re.match(r"ESTAB.*:(15001|15006|15008)\s", line)]
            found = {port for line in ours for port in re.findall(r":(150\d\d)\s", line)}
            assert found == {"15001", "15006", "15008"}, every
            for line in ours:
                assert re.search(r"timer:\(keepalive,(2\d|30)(\.\d+)?sec|timer:\(on", line), line


@isolated
def test_without_keepalive_there_is_no_timer() -> None:
    with chosen_mesh() as mesh:
        client, server, _ = pair(mesh, KEEPALIVE_ENABLED="false")
        with client.connect(server.address, PORT) as connection:
            connection.sendall(b"hello\n")
            assert connection.recv(100)
            assert not [line for line in sockets(server, "--options") if "keepalive" in line]


@isolated
def test_without_ipv6_nothing_listens_on_it() -> None:
    with chosen_mesh() as mesh:
        client, server, _ = pair(mesh, IPV6_ENABLED="false")
        listening = [line for line in sockets(server, "--listening", "--ipv6") if ":150" in line]
        assert listening == []
        assert client.ask(server.address, PORT).client == client.address


@isolated
def test_a_full_tunnel_is_joined_by_another_and_unused_ones_go() -> None:
    with chosen_mesh() as mesh:
        client, server, _ = pair(mesh, POOL_MAX_STREAMS_PER_CONNECTION="2", POOL_UNUSED_RELEASE_TIMEOUT="1s")
        held = [client.connect(server.address, PORT) for _ in range(5)]
        for connection in held:
            connection.sendall(b"hello\n")
            assert connection.recv(100)

        def count_tunnels() -> int:
            return sum(is_between(line, port=15008) for line in sockets(client))

        assert count_tunnels() == 3
        for connection in held:
            connection.close()
        started = time.monotonic()
        assert wait_for(lambda: count_tunnels() == 0, 15.0)
        assert time.monotonic() - started > 0.5


@isolated
def test_windows_and_frames_as_small_as_allowed_carry_everything() -> None:
    with chosen_mesh() as mesh:
        client, server, _ = pair(
            mesh,
            HTTP2_STREAM_WINDOW_SIZE="65535",
            HTTP2_CONNECTION_WINDOW_SIZE="65535",
            HTTP2_FRAME_SIZE="16384",
        )
        data = bytes(range(256)) * 8192
        with client.connect(server.address, PORT) as connection:
            connection.sendall(b"hello\n")
            assert connection.recv(100)
            received = b""
            for start in range(0, len(data), 32768):
                part = data[start : start + 32768]
                connection.sendall(part)
                echoed = b""
                while len(echoed) < len(part):
                    echoed += connection.recv(65536)
                received += echoed
            assert received == data
