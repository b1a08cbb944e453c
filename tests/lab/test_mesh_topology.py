"""A topology that nobody has seen before: 3 nodes, 30 pods, 10 services, and everybody reaches everything."""

import random
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ambit.demo.pcap import read_tcp_segments
from ambit.demo.tls import TLS_1_3, find_server_hellos
from tests.support import labs
from tests.support import mesh as build
from tests.support.mesh import Document, total

NODES = ("node-1", "node-2", "node-3")
PODS = 30
SERVICES = 10


def draw_topology(seed: int) -> list[Document]:
    """Pods on random nodes, in random namespaces of the mesh, with random accounts; services over random groups."""
    draw = random.Random(seed)
    names = [f"ns-{draw.randrange(10**6)}" for _ in range(draw.randint(2, 5))]
    documents = [build.namespace(name) for name in names]
    homes = [draw.choice(names) for _ in range(SERVICES)]
    for number in range(PODS):
        # The first ten give every service an endpoint.
        group = number if number < SERVICES else draw.randrange(SERVICES)
        account = f"account-{draw.randrange(4)}"
        labels = {"group": f"group-{group}"}
        documents.append(build.pod(f"pod-{number}", homes[group], draw.choice(NODES), account, labels))
    for number, home in enumerate(homes):
        port = draw.randint(1, 6000)
        documents.append(build.service(f"service-{number}", home, {"group": f"group-{number}"}, port))
    return documents


def test_every_client_reaches_every_service_and_nothing_is_readable_between_nodes(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    sys.stderr.write(f"draw_topology({seed})\n")  # shown when the test fails
    marker = f"marker{seed:x}payload"
    file = tmp_path / "underlay.pcap"
    with build.standing("unseen", *draw_topology(seed), nodes=len(NODES)) as mesh:
        footprint = labs.footprint(mesh.lab)
        services = mesh.lab.status().services
        assert len(services) == SERVICES
        targets = [(address, service.ports[0].port) for service in services for address in service.addresses]
        clients = [f"{pod.namespace}/{pod.name}" for pod in mesh.status.pods]
        assert len(clients) == PODS
        with mesh.lab.capture(file) as recording, ThreadPoolExecutor(4) as pool:
            answers: Sequence[list[str]] = list(pool.map(lambda one: mesh.sweep(one, targets, marker), clients))
        for client, heard in zip(clients, answers, strict=True):
            seen = {f"{address} {marker}" for address in mesh.pod(client).addresses}
            assert [answer for answer in heard if answer not in seen] == [], client
        opened = sum(
            total(mesh.metrics(node), "istio_tcp_connections_opened_total", reporter="source") for node in NODES
        )
        assert opened >= PODS * len(targets)
        for node in NODES:
            outbound = [line for line in mesh.access_lines(node) if line.direction == "outbound"]
            assert [line for line in outbound if line.error or not line.destination_service] == []
    capture = file.read_bytes()
    assert recording.dropped_frames == 0
    assert marker.encode() not in capture
    hellos = find_server_hellos(read_tcp_segments(capture), 15008)
    assert hellos
    assert all(hello is not None and hello.version == TLS_1_3 for hello in hellos)
    assert labs.eventually(footprint.has_vanished)
    assert not mesh.lab.folder.path.exists()
