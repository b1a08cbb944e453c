"""Which namespaces' objects count: from labels of Namespaces, as they change."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from controller.configuration import Configuration
from controller.kinds.gateway_api import LabelSelector
from controller.metrics import ControllerMetrics
from controller.registry.names import MeshSettings
from controller.serve.hub import Hub
from controller.serve.session import SessionLimits
from controller.sources.directory import FileText
from controller.sources.documents import parse_plain
from controller.sources.held import HeldFile
from controller.sources.selection import NamespaceSelection
from tests.support.texts import text_of

MESH = MeshSettings()
IN_MESH = LabelSelector(match_labels={"mesh": "in"})


def start(folder: Path, *selectors: LabelSelector) -> Configuration:
    """A controller's configuration; what is held is written to `folder`."""
    hub = Hub(ControllerMetrics(), SessionLimits())
    selection = NamespaceSelection(selectors, MESH.root_namespace)
    return Configuration(hub, MESH, ControllerMetrics(), HeldFile(folder / "held.json"), selection)


def namespace(name: str, **labels: str) -> str:
    return yaml.safe_dump({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})


def account(place: str, name: str = "a") -> str:
    document = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": place}}
    return yaml.safe_dump(document)


def shown(configuration: Configuration) -> list[str]:
    keys = [value.key for value in configuration.snapshot.values()]
    return [str(key) for key in keys if key.kind != "Namespace"]


def as_plain(text: FileText, name: str) -> FileText:
    """As Kubernetes' source gives it."""
    return parse_plain(yaml.safe_load(text), name) if isinstance(text, str) else text


@pytest.mark.parametrize("is_plain", [False, True], ids=["files", "kubernetes"])
def test_labels_are_followed(tmp_path: Path, is_plain: bool) -> None:
    configuration = start(tmp_path, IN_MESH)

    def apply(texts: Mapping[str, FileText]) -> list[str]:
        given = {file: as_plain(text, file) for file, text in texts.items()} if is_plain else texts
        configuration.apply_files(given)
        return shown(configuration)

    configuration.load_files({})
    given = {
        "in": namespace("in", mesh="in"), "out": namespace("out", mesh="out"),
        "a": account("in"), "b": account("out"), "c": account("unheard"), "d": account(MESH.root_namespace),
    }  # fmt: skip
    root = f"ServiceAccount {MESH.root_namespace}/a"
    assert apply(given) == ["ServiceAccount in/a", root]
    assert [each.name for each in configuration.namespaces] == ["in"]
    assert apply({"out": namespace("out", mesh="in")}) == ["ServiceAccount in/a", root, "ServiceAccount out/a"]
    assert apply({"in": namespace("in"), "e": account("in", "b")}) == [root, "ServiceAccount out/a"]
    assert apply({"out": None}) == [root]
    assert apply({"out": namespace("out", mesh="in"), "b": None}) == [root]


def test_nodes_and_the_like_count_and_without_selectors_everything_does(tmp_path: Path) -> None:
    node = yaml.safe_dump({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}})
    configuration = start(tmp_path, IN_MESH)
    configuration.load_files({"a": node, "b": account("any")})
    assert shown(configuration) == ["Node node-1"]
    configuration = start(tmp_path)
    configuration.load_files({"a": node, "b": account("any")})
    assert shown(configuration) == ["Node node-1", "ServiceAccount any/a"]


def test_an_empty_selector_and_one_that_excludes_are_met_by_namespaces_without_labels(tmp_path: Path) -> None:
    excluding = LabelSelector.model_validate({"matchExpressions": [{"key": "mesh", "operator": "DoesNotExist"}]})
    for selectors in ([LabelSelector()], [IN_MESH, excluding]):
        configuration = start(tmp_path, *selectors)
        configuration.load_files({"a": account("unheard"), "b": namespace("out", mesh="out"), "c": account("out")})
        expected = ["ServiceAccount unheard/a"] if len(selectors) == 2 else ["ServiceAccount out/a"]
        assert set(expected) <= set(shown(configuration))
        assert ("ServiceAccount out/a" in shown(configuration)) is (len(selectors) == 1)


WRONG = text_of("security.istio.io/v1", "AuthorizationPolicy", "none", "spec: {action: MAYBE}")


def test_what_is_wrong_where_nobody_looks_is_not_told_until_the_namespace_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    configuration = start(tmp_path, IN_MESH)
    configuration.load_files({"a": namespace("demo"), "b": WRONG})
    assert configuration.problems == []
    assert "configuration refused" not in caplog.text
    configuration.apply_files({"a": namespace("demo", mesh="in")})
    assert [str(each.key) for each in configuration.problems] == ["AuthorizationPolicy demo/none"]
    assert caplog.text.count("configuration refused") == 1


def test_an_earlier_form_serves_where_the_present_one_became_invalid_out_of_sight(tmp_path: Path) -> None:
    configuration = start(tmp_path, IN_MESH)
    configuration.load_files({"a": namespace("demo"), "b": WRONG.replace("MAYBE", "DENY")})
    configuration.apply_files({"b": WRONG})
    configuration.apply_files({"a": namespace("demo", mesh="in")})
    assert shown(configuration) == ["AuthorizationPolicy demo/none"]


_PLACES = st.sampled_from(["one", "two", MESH.root_namespace])
_LABELS = st.sampled_from([None, "in", "out"])
_CHANGES = st.dictionaries(
    st.one_of(st.tuples(st.just("n"), _PLACES), st.tuples(st.sampled_from("ab"), _PLACES)), _LABELS, max_size=4
)


def write(what: str, place: str, label: str | None) -> FileText:
    """A Namespace with a label, or an object in one; gone where there is no label."""
    if label is None:
        return None
    return namespace(place, mesh=label) if what == "n" else account(place, what)


@given(st.lists(_CHANGES, max_size=8))
def test_whatever_came_before_the_same_counts(
    tmp_path_factory: pytest.TempPathFactory, steps: list[dict[tuple[str, str], str | None]]
) -> None:
    folder = tmp_path_factory.mktemp("held")
    followed, present = start(folder, IN_MESH), dict[str, FileText]()
    followed.load_files({})
    for step in steps:
        texts = {f"{what}-{place}": write(what, place, label) for (what, place), label in step.items()}
        followed.apply_files(texts)
        present |= texts
    anew = start(folder, IN_MESH)
    anew.load_files(present)
    assert followed.snapshot.keys() == anew.snapshot.keys()
