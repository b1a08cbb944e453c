"""What a running ztunnel tells of itself: its dump, its log in both formats and at chosen levels, its metrics."""

import base64
import gzip
import json
import os
import socket
import subprocess
import sys
import zlib
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from cryptography import x509

from mesh import ports
from tests.support.chosen_mesh import ChosenMesh, Pod, Ztunnel, chosen_mesh
from tests.support.isolation import isolated
from tests.support.mesh import eventually, total

PORT = 8080
PAYLOAD = b"x" * 1000
RECEIVED = "istio_tcp_received_bytes_total"
OPEN_SOCKETS = "istio_tcp_sockets_open"


def across_nodes(mesh: ChosenMesh, **environment: str) -> tuple[Pod, Pod, Ztunnel, Ztunnel]:
    """A client and a server that answers, and their ztunnels."""
    client, server = mesh.add_pod("client"), mesh.add_pod("server", node="node-2")
    mesh.tell(client.workload(), server.workload())
    near = mesh.start_ztunnel(**environment)
    far = mesh.start_ztunnel("node-2", **environment)
    server.serve(PORT)
    return client, server, near, far


def dump(ztunnel: Ztunnel) -> dict[str, object]:
    found = json.loads(ztunnel.fetch("/config_dump", ports.ZTUNNEL_ADMIN_PORT))
    assert isinstance(found, dict)
    return found


def post(ztunnel: Ztunnel, path: str) -> tuple[int, str]:
    """Status and body of a request to the admin server."""
    url = f"http://127.0.0.1:{ports.ZTUNNEL_ADMIN_PORT}{path}"
    printed = ztunnel.host.execute("curl", "--silent", "--request", "POST", "--write-out", "\n%{http_code}", url)
    body, _, status = printed.rpartition("\n")
    return int(status), body


def fetch_metrics(ztunnel: Ztunnel, *headers: str) -> tuple[str, bytes]:
    """The head and the raw body of the metrics page."""
    options = [part for header in headers for part in ("--header", header)]
    url = f"http://127.0.0.1:{ports.ZTUNNEL_METRICS_PORT}/metrics"
    command = ztunnel.host.command("curl", "--silent", "--fail", "--include", *options, url)
    head, _, body = subprocess.run(command, capture_output=True, check=True, timeout=30).stdout.partition(b"\r\n\r\n")
    return head.decode().lower(), body


def has_received(ztunnel: Ztunnel, reporter: str, count: int) -> bool:
    return total(ztunnel.metrics(), RECEIVED, reporter=reporter) == count


@isolated
def test_an_open_connection_is_in_the_dump_and_its_bytes_are_counted_while_it_lasts() -> None:
    with chosen_mesh() as mesh:
        client, server, near, far = across_nodes(mesh)
        with client.connect(server.address, PORT) as connection:
            connection.sendall(b"hello\n")
            greeting = connection.recv(100)
            connection.sendall(PAYLOAD)
            sent = len(b"hello\n") + len(PAYLOAD)
            received = len(greeting) + len(connection.recv(len(PAYLOAD)))
            for ztunnel, pod, direction, actual in (
                (near, client, "outbound", f"{server.address}:{ports.HBONE_PORT}"),
                (far, server, "inbound", f"{server.address}:{PORT}"),
            ):
                states = dump(ztunnel)["workloadState"]
                assert isinstance(states, dict)
                state = states[pod.uid]
                assert (state["state"], state["info"]["serviceAccount"]) == ("Up", pod.account)
                (one,) = state["connections"][direction]
                assert (one["actualDst"], one["protocol"]) == (actual, "HBONE")
                assert one["src"].rpartition(":")[0] == client.address
                assert (one["bytesToServer"], one["bytesToClient"]) == (sent, received)
                reporter = "source" if ztunnel is near else "destination"
                assert eventually(partial(has_received, ztunnel, reporter, sent)), (
                    "nobody waits for its end to count it"
                )
                assert not [line for line in ztunnel.access_lines() if line.direction == direction]
            assert total(near.metrics(), OPEN_SOCKETS, reporter="source") == 1
            assert total(far.metrics(), OPEN_SOCKETS, reporter="destination") == 1, "the tunnel"
        line = near.wait_for_line(lambda line: line.direction == "outbound")
        assert (line.bytes_sent, line.bytes_received) == (sent, received)
        assert total(near.metrics(), RECEIVED, reporter="source") == sent, "nothing is counted twice"
        assert eventually(lambda: total(near.metrics(), OPEN_SOCKETS, reporter="source") == 0)
        states = dump(near)["workloadState"]
        assert isinstance(states, dict)
        assert states[client.uid]["connections"] == {"inbound": [], "outbound": []}


@isolated
def test_certificates_in_the_dump_are_the_ones_in_use() -> None:
    with chosen_mesh() as mesh:
        client, server, near, _ = across_nodes(mesh)
        assert client.ask(server.address, PORT).server == "server"
        found = dump(near)["certificates"]
        assert isinstance(found, list)
        (own,) = [one for one in found if one["identity"] == client.identity]
        assert own["state"] == "Available"
        for described in (*own["certChain"], *own["rootCerts"]):
            certificate = x509.load_pem_x509_certificate(base64.b64decode(described["pem"]))
            assert int(described["serialNumber"]) == certificate.serial_number
            for key, expected in (
                ("validFrom", certificate.not_valid_before_utc),
                ("expirationTime", certificate.not_valid_after_utc),
            ):
                assert datetime.strptime(described[key], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC) == expected
        root = x509.load_pem_x509_certificate(base64.b64decode(own["rootCerts"][0]["pem"]))
        leaf = x509.load_pem_x509_certificate(base64.b64decode(own["certChain"][0]["pem"]))
        leaf.verify_directly_issued_by(root)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == [client.identity]


@isolated
def test_log_as_json_has_the_same_fields() -> None:
    with chosen_mesh() as mesh:
        client, server, near, _ = across_nodes(mesh, LOG_FORMAT="json", RUST_LOG="warn,access=debug")
        assert client.ask(server.address, PORT).server == "server"
        near.wait_for_log("connection complete")
        lines = [json.loads(line) for line in near.log().splitlines()]
        opened, complete = (line for line in lines if line["scope"] == "access" and line["direction"] == "outbound")
        assert (opened["level"], opened["message"]) == ("debug", "connection opened")
        assert (complete["level"], complete["message"]) == ("info", "connection complete")
        assert complete["dst.identity"] == server.identity
        assert complete["bytes_sent"] == len("hello\n")
        assert (
            opened.items()
            <= (complete | {"level": "debug", "message": opened["message"], "time": opened["time"]}).items()
        )
        assert {line["scope"] for line in lines if line["level"] == "info"} == {"access"}, "others log warnings only"


@isolated
def test_log_levels_change_while_it_runs() -> None:
    with chosen_mesh() as mesh:
        client, server, near, _ = across_nodes(mesh)
        assert post(near, "/logging") == (200, "current log level is info\n")
        assert post(near, "/logging?level=access%3Ddebug,dns=off") == (
            200,
            "current log level is info,access=debug,dns=off\n",
        )
        assert client.ask(server.address, PORT).server == "server"
        near.wait_for_log("connection opened")
        near.wait_for_line(lambda line: line.direction == "outbound")
        status, said = post(near, "/logging?level=access=loud")
        assert status == 400
        assert '"access=loud"' in said
        assert post(near, "/logging?reset&level=off") == (200, "current log level is off\n")
        lines = near.log().count("\n")
        assert client.ask(server.address, PORT).server == "server"
        assert post(near, "/logging?reset") == (200, "current log level is info\n")
        assert client.ask(server.address, PORT).server == "server"
        near.wait_for_line(lambda line: line.direction == "outbound", after=1)
        assert near.log().count("\n") == lines + 1, "the second connection left no line"
        assert near.metrics(), "metrics do not depend on the log"


@isolated
def test_metrics_come_in_the_form_that_is_asked_for() -> None:
    with chosen_mesh() as mesh:
        *_, near, _ = across_nodes(mesh)
        head, plain = fetch_metrics(near)
        assert "content-type: text/plain" in head
        assert "content-encoding" not in head
        assert plain.endswith(b"# EOF\n")
        head, _ = fetch_metrics(near, "Accept: application/openmetrics-text; version=1.0.0, text/plain;q=0.5")
        assert "content-type: application/openmetrics-text" in head
        for accepted, encoding, decode in (
            ("gzip", "gzip", gzip.decompress),
            ("br, deflate;q=0.5", "deflate", zlib.decompress),
        ):
            head, body = fetch_metrics(near, f"Accept-Encoding: {accepted}")
            assert f"content-encoding: {encoding}" in head
            decoded = decode(body)
            assert decoded.splitlines()[0] == plain.splitlines()[0]
            assert len(body) < len(decoded) / 2
        head, _ = fetch_metrics(near, "Accept-Encoding: gzip;q=0")
        assert "content-encoding" not in head


@isolated
def test_localities_are_labels_where_they_are_known() -> None:
    with chosen_mesh() as mesh:
        client, server = mesh.add_pod("client"), mesh.add_pod("server", node="node-2")
        far_away = server.workload()
        far_away.locality.region, far_away.locality.zone = "north", "north-1"
        mesh.tell(client.workload(), far_away)
        near = mesh.start_ztunnel()
        mesh.start_ztunnel("node-2")
        server.serve(PORT)
        assert client.ask(server.address, PORT).server == "server"
        near.wait_for_line(lambda line: line.direction == "outbound")
        labels = {"destination_region": "north", "destination_zone": "north-1", "source_region": "unknown"}
        assert total(near.metrics(), "istio_tcp_connections_closed_total", **labels) == 1
        assert client.ask(mesh.add_host("outside").address, PORT).error
        near.wait_for_line(lambda line: line.direction == "outbound", after=1)
        (unknown,) = [
            one
            for one in near.metrics()
            if one.labels.get("destination_workload") == "unknown" and one.name == "istio_tcp_connections_opened_total"
        ]
        assert not [name for name in unknown.labels if name.endswith(("_region", "_zone"))]


@isolated
def test_told_to_quit_it_ends_in_order() -> None:
    with chosen_mesh() as mesh:
        *_, near, _ = across_nodes(mesh)
        assert post(near, "/quitquitquit") == (200, "shutdown now\n")
        assert near.process.wait(15) == 0
        assert "draining" in near.log()


@isolated
def test_a_port_that_is_taken_is_named_at_the_start() -> None:
    with chosen_mesh() as mesh:
        host = mesh.add_host("busy")
        with host.run(lambda: socket.create_server(("127.0.0.1", ports.ZTUNNEL_ADMIN_PORT))):
            environment = {"PATH": os.defpath, "PYTHONPATH": str(Path.cwd())}
            command = host.command(sys.executable, "-m", "ztunnel")
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 1
        assert f"cannot listen on 127.0.0.1:{ports.ZTUNNEL_ADMIN_PORT}" in done.stderr
