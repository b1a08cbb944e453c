"""Pods reach each other in both families, with their own addresses, and the underlay can be watched."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ambit.lab.client import Lab
from tests.support import labs


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with labs.run_folder() as settings, Lab.up([labs.as_source(labs.TWO_NODES)], settings=settings) as lab:
        yield lab


@pytest.mark.parametrize("client", ["near", "far"])
@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_pod_reaches_pod_and_is_seen_by_its_own_address(lab: Lab, client: str, family: int) -> None:
    status = lab.status()
    server, own = status.pod("server").addresses[family], status.pod(client).addresses[family]
    host = f"[{server}]" if family else server
    marker = f"/from-{client}-{family}"
    answer = lab.exec(client, "curl", "-sS", "-g", "-m", "5", "-o", "/dev/null", f"http://{host}:8080{marker}")
    assert answer.returncode == 0, answer.stderr
    seen = f"::ffff:{own}" if not family else own
    (line,) = [line for line in lab.logs("server").splitlines() if marker in line]
    assert line.startswith(f"{seen} ")


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_capture_has_what_crosses_nodes_exactly_once(lab: Lab, tmp_path: Path, family: int) -> None:
    server = lab.status().pod("server").addresses[family]
    url = f"http://{f'[{server}]' if family else server}:8080"
    with lab.capture(tmp_path / "underlay.pcap") as capture:
        for client in ("near", "far"):
            lab.exec(client, "curl", "-sS", "-g", "-o", "/dev/null", f"{url}/marker-{client}")
    recorded = (tmp_path / "underlay.pcap").read_bytes()
    assert recorded.count(b"GET /marker-far") == 1
    assert b"marker-near" not in recorded, "what stays on a node does not cross the underlay"
    assert (capture.dropped_frames, recorded[:4]) == (0, b"\x4d\x3c\xb2\xa1")


def test_namespaces_have_nothing_of_the_machine(lab: Lab) -> None:
    links = lab.exec("near", "ip", "-brief", "link").stdout.splitlines()
    assert sorted(line.split("@")[0].split()[0] for line in links) == ["eth0", "lo"]


@pytest.mark.parametrize("client", ["near", "far"])
@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_pod_outside_the_mesh_reaches_a_service(lab: Lab, client: str, family: int) -> None:
    address = lab.status().service("web").addresses[family]
    url = f"http://{f'[{address}]' if family else address}/"
    answer = lab.exec(client, "curl", "-sS", "-g", "-m", "5", "-o", "/dev/null", url)
    assert answer.returncode == 0, answer.stderr


def test_pod_reaches_itself_by_its_service(lab: Lab) -> None:
    url = f"http://{lab.status().service('web').addresses[0]}/"
    answer = lab.exec("server", "curl", "-sS", "-m", "5", "-o", "/dev/null", url)
    assert answer.returncode == 0, answer.stderr


def test_service_spreads_connections_over_its_pods_and_follows_them(lab: Lab) -> None:
    url = f"http://{lab.status().service('web').addresses[0]}/"

    def answering() -> set[str]:
        command = f"for i in $(seq 30); do curl -sS -m 5 {url}name || echo failed; done"
        return set(lab.exec("far", "sh", "-c", command).stdout.split())

    lab.apply(labs.as_source(labs.TWO_SERVERS))
    lab.delete_object("pod", "server")
    assert answering() == {"a", "b"}
    lab.delete_object("pod", "server-b")
    assert answering() == {"a"}
