"""A dump and what is built from it again: the same resources, and nothing secret on the way."""

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.configuration import Configuration
from controller.inspection.dump import Dump, InvalidDumpError, Moment, capture, encode_dump, parse_dump
from controller.inspection.hiding import HIDDEN, LAST_APPLIED, fill_object, hide_object
from controller.inspection.replay import Difference, compare, list_versions, rebuild
from controller.kinds.istio_gateway import IstioGateway
from controller.kinds.key_set import build_key_set
from controller.kinds.secrets import Secret
from controller.metrics import ControllerMetrics
from controller.registry.names import MeshSettings
from controller.serve.hub import Hub
from controller.serve.resources import ADDRESS_TYPE, LISTENER_TYPE, SECRET_TYPE
from controller.serve.session import SessionLimits
from controller.serve.wire import ClientNode, DeltaRequest
from controller.sources.documents import parse_documents
from controller.sources.held import HeldFile
from tests.support import objects
from tests.support.golden import FOLDER, GIVEN, list_cases, list_ingresses

MESH = MeshSettings(cluster_id="east", root_namespace="mesh-root")
MOMENT = Moment("2026-01-01T00:00:00Z", 0.0)


def take(state: Path, *texts: str, mesh: MeshSettings = MESH) -> Dump:
    """The dump of a controller whose one file held these texts, one after the other, with routes served.

    Each ingress gateway that the texts select has a proxy.
    """
    hub = Hub(ControllerMetrics(), SessionLimits())
    configuration = Configuration(hub, mesh, ControllerMetrics(), HeldFile(state / "held.json"))
    configuration.load_files({"a.yaml": texts[0]})
    with ExitStack() as stack:
        parsed = (parse_documents(text, "a.yaml").objects for text in texts)
        gateways = [each.value for objects in parsed for each in objects if isinstance(each.value, IstioGateway)]
        for ingress in [None, *list_ingresses(gateways)]:
            client = stack.enter_context(hub.connect("node-1", "peer", 0))
            hub.prepare(client, DeltaRequest(LISTENER_TYPE, ClientNode("proxy", "node-1", ingress=ingress)))
        for text in texts[1:]:
            configuration.apply_files({"a.yaml": text})
        return capture(configuration, hub, mesh, {"source": "files"}, MOMENT)


def reread(dump: Dump) -> Dump:
    return parse_dump("".join(encode_dump(dump)))


def test_of_secrets_nothing_is_written_and_listeners_that_need_them_are_built_again(tmp_path: Path) -> None:
    dump = take(tmp_path, (FOLDER / "gateway-tls" / GIVEN).read_text())
    secrets = [value for value in dump.objects if isinstance(value, Secret)]
    assert any(each.has_pair for each in secrets)
    text = "".join(encode_dump(dump))
    for each in secrets:
        for line in (each.certificate + each.private_key).splitlines():
            assert line not in text
    read = parse_dump(text)
    assert [each.has_pair for each in read.objects if isinstance(each, Secret)] == [each.has_pair for each in secrets]
    assert compare(read.resources, list_versions(rebuild(read))) == []
    assert read.resources[SECRET_TYPE]


@pytest.mark.parametrize("case", list_cases())
def test_what_is_read_again_becomes_the_same_resources(case: str, tmp_path: Path) -> None:
    text = (FOLDER / case / GIVEN).read_text()
    dump = take(tmp_path, text)
    assert not dump.problems
    read = reread(dump)
    assert [each.key for each in read.objects] == [each.key for each in dump.objects]
    assert read.resources == dump.resources
    assert compare(read.resources, list_versions(rebuild(read))) == []
    assert sum(map(len, read.resources.values())) == sum(map(len, rebuild(read).values())) > 0


def test_resources_that_changes_led_to_are_those_that_are_built_from_nothing(tmp_path: Path) -> None:
    texts = [(FOLDER / case / GIVEN).read_text() for case in list_cases()]
    read = reread(take(tmp_path, *texts, *reversed(texts)))
    assert compare(read.resources, list_versions(rebuild(read))) == []


DENY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: none, namespace: demo}
spec: {action: DENY, rules: [{}]}
"""


def test_an_earlier_form_that_serves_is_there_beside_what_is_wrong_with_the_present_one(tmp_path: Path) -> None:
    dump = reread(take(tmp_path, DENY, DENY.replace("rules", "ruels")))
    assert [str(key) for key in dump.held] == ["AuthorizationPolicy demo/none"]
    assert [(each["path"], each["line"]) for each in dump.problems] == [("spec.ruels", 5)]
    assert compare(dump.resources, list_versions(rebuild(dump))) == []
    assert "demo/none" in dump.resources["type.googleapis.com/istio.security.Authorization"]


def test_settings_of_the_mesh_decide_what_is_built(tmp_path: Path) -> None:
    dump = take(tmp_path, (FOLDER / list_cases()[0] / GIVEN).read_text())
    elsewhere = replace(dump, mesh=replace(MESH, domain_suffix="example.org"))
    differences = compare(dump.resources, list_versions(rebuild(elsewhere)))
    assert differences
    assert all(not each.dumped or not each.rebuilt or each.dumped != each.rebuilt for each in differences)


def test_what_differs_is_named_with_both_versions() -> None:
    dumped = {"t": {"same": "1", "other": "1", "gone": "1"}, "x.Secret": {"s": "1", "gone": "1"}}
    rebuilt = {"t": {"same": "1", "other": "2", "new": "3"}, "x.Secret": {"s": "2"}}
    assert compare(dumped, rebuilt) == [
        Difference("t", "gone", "1", ""),
        Difference("t", "new", "", "3"),
        Difference("t", "other", "1", "2"),
        Difference("x.Secret", "gone", "1", ""),
    ]


def test_keys_that_were_fetched_are_objects_of_the_dump(tmp_path: Path) -> None:
    keys = build_key_set("https://example.org/keys", '{"keys": []}')
    dump = replace(take(tmp_path, DENY), objects=[keys])
    assert reread(dump).objects == [keys]


def test_without_routes_none_are_built(tmp_path: Path) -> None:
    dump = replace(take(tmp_path, (FOLDER / list_cases()[0] / GIVEN).read_text()), has_routes=False)
    rebuilt = rebuild(reread(dump))
    assert ADDRESS_TYPE in rebuilt
    assert LISTENER_TYPE not in rebuilt


def test_what_kubectl_wrote_down_of_an_object_is_not_in_the_dump(tmp_path: Path) -> None:
    pod = objects.pod()
    noted = pod.model_copy(
        update={"metadata": pod.metadata.model_copy(update={"annotations": {LAST_APPLIED: "hunter2", "kept": "yes"}})}
    )
    text = "".join(encode_dump(replace(take(tmp_path, DENY), objects=[noted])))
    assert "hunter2" not in text
    assert parse_dump(text).objects[0].annotations == {"kept": "yes"}


def test_of_a_secret_only_stays_which_keys_it_has() -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "web", "namespace": "demo", "labels": {"a": "hunter2"}},
        "type": "kubernetes.io/tls",
        "data": {"tls.crt": "Y2VydA==", "tls.key": "aHVudGVyMg=="},
        "stringData": {"hunter2": "hunter2"},
    }
    hidden = hide_object(secret)
    assert "hunter2" not in json.dumps(hidden)
    assert "aHVudGVyMg" not in json.dumps(hidden)
    assert hidden["data"] == {"tls.crt": HIDDEN, "tls.key": HIDDEN}
    assert hidden["metadata"] == {"name": "web", "namespace": "demo"}
    assert "hunter2" not in json.dumps(hide_object({**secret, "type": "hunter2"}))
    filled = fill_object(hidden)
    assert filled == fill_object(hidden), "a pair is made once: equal objects, equal resources"
    assert isinstance(filled["data"], dict)
    assert set(filled["data"]) == {"tls.crt", "tls.key"}
    assert filled["stringData"] == {}


@given(
    st.text(max_size=100)
    | st.sampled_from(['{"format": 2}', "[]", "{}", '{"format": 1}', '{"format": 1, "objects": [1]}', "null"])
)
def test_any_text_is_a_dump_or_refused(text: str) -> None:
    with pytest.raises(InvalidDumpError):
        parse_dump(text)


def test_objects_that_this_version_does_not_know_are_named(tmp_path: Path) -> None:
    text = "".join(encode_dump(take(tmp_path, DENY)))
    with pytest.raises(InvalidDumpError, match="Unheard"):
        parse_dump(text.replace('"AuthorizationPolicy"', '"Unheard"'))
    with pytest.raises(InvalidDumpError, match="not valid in this version"):
        parse_dump(text.replace('"DENY"', '"MAYBE"'))
