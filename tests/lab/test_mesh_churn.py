"""Connections that come and go leave nothing behind."""

import os

import pytest

from tests.support.mesh import PORT, Mesh, eventually

CONNECTIONS = 1000
ROUNDS = 20
NODES = ("node-1", "node-2")


def descriptors(mesh: Mesh, node: str) -> int:
    return len(os.listdir(f"/proc/{mesh.lab.status().process(f'ztunnel/{node}').pid}/fd"))


def memory(mesh: Mesh, node: str) -> int:
    return mesh.lab.status().process(f"ztunnel/{node}").pss_bytes or 0


@pytest.mark.timeout(240)
def test_a_thousand_connections_twenty_times_leave_descriptors_and_memory_where_they_were(mesh: Mesh) -> None:
    def churn(rounds: int) -> None:
        targets = [(mesh.address("east/server", family), PORT) for family in (4, 6)]
        worked = mesh.act("east/client", "churn", 200, targets=targets, count=CONNECTIONS, rounds=rounds)
        assert worked == rounds * CONNECTIONS

    churn(2)
    quiet = {node: eventually(lambda node=node: _settled(mesh, node), 20) for node in NODES}  # type: ignore[misc]
    warm = {node: memory(mesh, node) for node in NODES}
    churn(ROUNDS)
    for node in NODES:
        eventually(lambda node=node: descriptors(mesh, node) <= quiet[node] * 1.1, 20)  # type: ignore[misc]
        eventually(lambda node=node: memory(mesh, node) <= warm[node] * 1.1, 20)  # type: ignore[misc]


def _settled(mesh: Mesh, node: str) -> int:
    """How many descriptors are open once no connection of the churn is; 0 before."""
    found = descriptors(mesh, node)
    return found if found < CONNECTIONS / 2 else 0
