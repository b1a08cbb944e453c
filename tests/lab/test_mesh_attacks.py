"""Clients with genuine certificates that attack the port for tunnels: memory stays bounded, everyone else is served.

The attacked ztunnel serves two pods, the attacked one and a neighbour, on one worker: what the attack costs the
neighbour's connections is measured beside what they cost in peace.
"""

import json
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # JSON

import pytest

from bench.programs import ping
from tests.support.attacks import FLOODS, HOLDS
from tests.support.chosen_mesh import ChosenMesh, Host, Pod, Ztunnel, chosen_mesh
from tests.support.isolation import isolated
from tests.support.mesh import total
from tests.support.mesh_certificates import issue, read_authority

PORT, DEAF_PORT, ECHO_PORT = 8080, 8081, 8082
ATTACKER = "spiffe://cluster.local/ns/test/sa/attacker"
HELD = 50
PING_SECONDS = 0.8
WINDOWS = 3
MOST_WINDOWS = 9
"""A measurement is the best of so many, of more while it is not good enough: a machine's other guests are no attack."""
MEBIBYTE = 1 << 20
FLOOD_MEMORY_BYTES = 8 * MEBIBYTE
HELD_MEMORY_BYTES = 512 << 10
"""What one connection of a peer that only takes may cost: buffers of one tunnel, and twenty streams."""
SLOWER = 2.0


@dataclass(frozen=True, slots=True)
class Battlefield:
    """Who is there."""

    mesh: ChosenMesh
    attacker: Host
    attacked: Pod
    client: Pod
    neighbour: Pod
    ztunnel: Ztunnel

    def memory(self) -> int:
        """The attacked ztunnel's proportional set size, in bytes."""
        for line in Path(f"/proc/{self.ztunnel.process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
        raise AssertionError("no Pss")

    def latency(self, good_enough: float = 0.0) -> float:
        """The neighbour's p99, in microseconds: the best of WINDOWS, of up to MOST_WINDOWS until it is good enough."""
        best = float("inf")
        for window in range(MOST_WINDOWS if good_enough else WINDOWS):
            if window >= WINDOWS and best < good_enough:
                break
            arguments = (self.neighbour.address, str(ECHO_PORT), str(PING_SECONDS))
            found = json.loads(self.client.execute(sys.executable, ping.__file__, *arguments))
            best = min(best, float(found["p99_us"]))
        return best

    @contextmanager
    def attack(self, name: str) -> Iterator["subprocess.Popen[str]"]:
        """One of tests.support.attacks, in a process of its own."""
        credentials = issue(read_authority(self.mesh.authority), ATTACKER)
        order = {
            "host": self.attacked.address,
            "certificate": credentials.certificate,
            "key": credentials.key,
            "root": (self.mesh.authority / "root-cert.pem").read_text(),
            "authority": f"{self.attacked.address}:{PORT}",
            "deaf": f"{self.attacked.address}:{DEAF_PORT}",
            "connections": HELD,
        }
        command = self.attacker.command(sys.executable, "-m", "tests.support.attacks", name)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            yield process


def result(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """The next line that the attack prints."""
    assert process.stdout
    line = process.stdout.readline()
    assert line, "the attacker has ended"
    found = json.loads(line)
    assert isinstance(found, dict)
    return found


def pour(pod: Pod) -> None:
    """Send without end to whoever asks."""
    listener = pod.run(lambda: socket.create_server(("", PORT), backlog=1024))

    def answer(connection: socket.socket) -> None:
        with connection:
            try:
                while connection.recv(100):
                    while True:
                        connection.sendall(bytes(1 << 16))
            except OSError:
                pass  # the client is gone

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()


def ignore(pod: Pod) -> list[socket.socket]:
    """Take connections and never read."""
    listener = pod.run(lambda: socket.create_server(("", DEAF_PORT), backlog=1024))
    taken: list[socket.socket] = []

    def serve() -> None:
        while True:
            taken.append(listener.accept()[0])

    threading.Thread(target=serve, daemon=True).start()
    return taken


@contextmanager
def battlefield() -> Iterator[Battlefield]:
    # The applications are threads of this process, and what they send without end takes a descriptor each time.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with chosen_mesh() as mesh:
        client = mesh.add_pod("client")
        attacked, neighbour = (mesh.add_pod(name, node="node-2") for name in ("attacked", "neighbour"))
        mesh.tell(*(pod.workload() for pod in (client, attacked, neighbour)))
        mesh.start_ztunnel()
        ztunnel = mesh.start_ztunnel("node-2")
        pour(attacked)
        ignore(attacked)
        echo = Path(ping.__file__).with_name("echo_server.py")
        mesh.run(neighbour, sys.executable, str(echo), str(ECHO_PORT), name="echo")
        attacker = mesh.add_host("attacker")
        yield Battlefield(mesh, attacker, attacked, client, neighbour, ztunnel)


@pytest.mark.parametrize("name", FLOODS)
@isolated
def test_a_flood_is_ended_and_costs_the_others_little(name: str) -> None:
    with battlefield() as field:
        peace, before = field.latency(), field.memory()
        with field.attack(name) as process:
            war = field.latency(SLOWER * peace)
            during = field.memory()
            assert process.stdin
            process.stdin.close()
            found = result(process)
        assert found["ended"] >= 1
        assert found["ended"] >= found["attempts"] - 1, "all but the last, which its own time ended"
        assert during - before < FLOOD_MEMORY_BYTES
        assert war < SLOWER * peace
        failures = total(field.ztunnel.metrics(), "ambit_tcp_early_failures_total", reporter="destination")
        assert failures >= found["ended"]
        field.ztunnel.wait_for_line(lambda line: line.source_address == field.attacker.address and bool(line.error))


@pytest.mark.parametrize("name", HOLDS)
@isolated
def test_connections_that_are_only_held_cost_little_and_stop_nobody(name: str) -> None:
    with battlefield() as field:
        peace, before = field.latency(), field.memory()
        with field.attack(name) as process:
            assert result(process) == {"held": HELD}
            war = field.latency(SLOWER * peace)
            during = field.memory()
            assert process.stdin
            process.stdin.close()
            assert result(process)["attempts"] == HELD
        assert during - before < HELD * HELD_MEMORY_BYTES
        assert war < SLOWER * peace
