"""What is written down for a restart is what was served."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.kinds.meta import KubernetesObject
from controller.sources.directory import Directory
from controller.sources.held import HeldFile, InvalidHeldFileError, encode_held, parse_held
from tests.support import objects

VALUES: list[KubernetesObject] = [
    objects.pod(status='podIPs: [{ip: "2001:db8::1"}]', spec="containers: [{ports: [{name: a, containerPort: 1}]}]"),
    objects.service(
        spec="clusterIPs: [192.0.2.1, None], ports: [{port: 80, targetPort: a}, {port: 81, targetPort: 9}]"
    ),
    objects.authorization(
        "selector: {matchLabels: {a: b}}, action: DENY, rules: [{from: [{source: {ipBlocks: [10.0.0.0/8], "
        'principals: ["*"]}}], to: [{operation: {ports: ["80"]}}], when: [{key: source.ip, values: [192.0.2.1]}]}, {}]'
    ),
    objects.peer("selector: {matchLabels: {a: b}}, mtls: {mode: STRICT}, portLevelMtls: {80: {mode: PERMISSIVE}}"),
    objects.node(),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_object_is_the_same_after_writing_and_reading(value: KubernetesObject) -> None:
    [read] = parse_held(encode_held({"f": [value]}))["f"]
    assert read.key == value.key
    assert read.model_dump() == value.model_dump()


@given(st.text(max_size=100) | st.sampled_from(['{"f": [{"apiVersion": "v1"}]}', "[]", '{"f": 1}', '{"f": [1]}']))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_held(text)
    except InvalidHeldFileError:
        pass


def test_nothing_held_is_no_file(tmp_path: Path) -> None:
    file = HeldFile(tmp_path / "held.json")
    assert file.read() == {}
    file.write({"f": VALUES})
    assert [value.key for value in HeldFile(tmp_path / "held.json").read()["f"]] == [value.key for value in VALUES]
    file.write({})
    assert not list(tmp_path.iterdir())


def test_remembered_object_serves_only_while_its_file_is_still_invalid() -> None:
    policy = objects.authorization("action: DENY")
    for text, serves in (("a: [", True), (None, False), ("", False)):
        directory = Directory()
        directory.remember({"f": [policy]})
        directory.apply({"f": text})
        assert (policy.key in directory.objects) is serves
