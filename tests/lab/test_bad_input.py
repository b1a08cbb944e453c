"""What somebody got wrong in a file or a service is refused where it was written, and what was valid goes on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ambit.lab.sources import Source
from mesh.kit.errors import AmbitError
from tests.support import mesh as build
from tests.support.mesh import PATIENCE_SECONDS, Mesh, eventually, total

Problem = dict[str, object]


@pytest.fixture
def objects(mesh: Mesh) -> Iterator[Path]:
    """The directory that the controller watches; what a test adds is removed."""
    folder = mesh.lab.folder.mesh.objects
    before = set(folder.iterdir())
    yield folder
    for file in set(folder.iterdir()) - before:
        file.unlink()
    eventually(lambda: not problems(mesh))


def problems(mesh: Mesh) -> list[Problem]:
    found = mesh.controller_state()["problems"]
    assert isinstance(found, list)
    return found


def test_a_syntax_error_is_refused_with_file_and_line(mesh: Mesh) -> None:
    with pytest.raises(AmbitError, match=r"shop\.yaml:3"):
        mesh.lab.apply(Source("shop.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: [}\n"))


def test_a_syntax_error_in_the_controllers_directory_leaves_the_rest_serving(mesh: Mesh, objects: Path) -> None:
    (objects / "broken.yaml").write_text("kind: Service\nmetadata:\n  name: [\n")
    (problem,) = eventually(lambda: problems(mesh))
    assert (Path(f"{problem['file']}").name, problem["reason"]) == ("broken.yaml", "syntax")
    assert problem["line"]
    assert mesh.reaches("east/client", "east/server")


def test_an_unknown_kind_is_named(mesh: Mesh, objects: Path) -> None:
    (objects / "gadget.yaml").write_text("apiVersion: security.istio.io/v1\nkind: Gadget\nmetadata: {name: one}\n")
    (problem,) = eventually(lambda: problems(mesh))
    assert (Path(f"{problem['file']}").name, problem["reason"]) == ("gadget.yaml", "unknown_kind")
    assert "Gadget" in f"{problem}"


VALID = build.policy("strange", "east", "DENY", build.rule({"namespaces": ["west"]}), app="server")
STRANGE = build.policy(
    "strange", "east", "DENY", {**build.rule({"namespaces": ["west"]}), "whom": "everybody"}, app="server"
)


def test_a_policy_with_an_unknown_field_is_refused_with_file_line_and_path(mesh: Mesh) -> None:
    with mesh.applied(VALID):
        eventually(lambda: not mesh.reaches("west/client", "east/server"))
        with pytest.raises(AmbitError, match=r"test\.yaml:\d+.*spec\.rules\[0\]\.whom"):
            mesh.lab.apply(build.source(STRANGE))
        assert not mesh.reaches("west/client", "east/server")
        assert mesh.reaches("east/client", "east/server")
    eventually(lambda: mesh.reaches("west/client", "east/server"))


def test_a_policy_that_becomes_invalid_serves_in_its_last_valid_form(mesh: Mesh, objects: Path) -> None:
    file = objects / "strange.yaml"
    file.write_text(yaml.safe_dump(VALID))
    eventually(lambda: not mesh.reaches("west/client", "east/server"))
    file.write_text(yaml.safe_dump(STRANGE))
    (problem,) = eventually(lambda: problems(mesh))
    assert (problem["path"], problem["reason"]) == ("spec.rules[0].whom", "unknown_field")
    assert problem["line"]
    assert not mesh.reaches("west/client", "east/server")
    assert mesh.reaches("east/client", "east/server")
    file.unlink()
    eventually(lambda: mesh.reaches("west/client", "east/server"))


@pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
def test_a_service_without_endpoints_is_refused_promptly_and_named(mesh: Mesh, family: int) -> None:
    lines = len(mesh.access_lines("node-1"))
    host = mesh.service_address("east/empty", family)
    result = mesh.act("east/client", "refused", host=host, port=80)
    assert isinstance(result, dict)
    assert result["outcome"] in ("ConnectionRefusedError", "ConnectionResetError", "closed")
    assert result["seconds"] < PATIENCE_SECONDS / 2
    line = mesh.wait_for_line("node-1", lambda line: line.direction == "outbound" and bool(line.error), lines)
    assert "empty.east" in f"{line.destination_service} {line.error}"


def test_a_service_port_that_nobody_listens_on_is_refused_promptly(mesh: Mesh) -> None:
    lines = len(mesh.access_lines("node-1"))
    before = total(mesh.metrics("node-1"), "istio_tcp_connections_failed_total", reporter="source")
    result = mesh.act("east/client", "refused", host=mesh.service_address("east/deaf"), port=80)
    assert isinstance(result, dict)
    assert result["outcome"] in ("ConnectionRefusedError", "ConnectionResetError", "closed")
    assert result["seconds"] < PATIENCE_SECONDS / 2
    line = mesh.wait_for_line("node-1", lambda line: line.direction == "outbound" and bool(line.error), lines)
    assert "503" in line.error
    assert total(mesh.metrics("node-1"), "istio_tcp_connections_failed_total", reporter="source") == before + 1
