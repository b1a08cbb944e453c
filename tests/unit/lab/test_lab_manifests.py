from pathlib import Path

import pytest

from ambit.lab.manifests import InvalidManifestsError, find_key_of, parse_manifests
from ambit.lab.sources import Source, UnreadableSourceError, find_lab_name, read_sources
from controller.kinds.meta import ObjectKey

POD = "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, command: [a]}]}}"


def parse(text: str) -> list[str]:
    return [str(manifest.key) for manifest in parse_manifests([Source("a.yaml", text)])]


def test_namespace_is_filled_in_for_kinds_that_have_one() -> None:
    text = f"{POD}\n---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: n}}}}"
    assert parse(text) == ["Pod default/p", "Namespace n"]


def test_list_stands_for_its_items_and_empty_documents_for_nothing() -> None:
    assert parse(f"---\n---\n{{apiVersion: v1, kind: List, items: [{POD}]}}\n---\n") == ["Pod default/p"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: Pod\nmetadata: {name: p}", r"a.yaml:1:1: apiVersion"),
        ("\n\n{apiVersion: v1, metadata: {name: p}}", r"a.yaml:3:1: kind"),
        ("{apiVersion: v1, kind: Pod, metadata: {}}", r"metadata.name"),
        ("{apiVersion: v1, kind: Pod, metadata: {name: ../../etc/passwd}}", r"metadata.name"),
        ("{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: ../x}}", r"metadata.namespace"),
        ("{apiVersion: v1, kind: ../Pod, metadata: {name: p}}", r"a.yaml:1:24: kind"),
        (
            "\n{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p},\nspec: {rulez: []}}",
            r"a.yaml:3:.* spec.rulez: unknown field",
        ),
        ("just text", r"a.yaml:1"),
        ("a: [", r"a.yaml:\d:1: "),
    ],
    ids=[
        "no-version",
        "no-kind",
        "no-name",
        "name-with-path",
        "namespace-with-path",
        "unknown-kind",
        "unknown-field",
        "text",
        "syntax",
    ],
)
def test_what_is_no_object_is_refused_with_file_line_and_field(text: str, message: str) -> None:
    with pytest.raises(InvalidManifestsError, match=message):
        parse(text)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InvalidManifestsError) as refused:
        parse_manifests([Source("a.yaml", "{kind: Pod}\n---\n{apiVersion: v1}"), Source("b.yaml", "[")])
    assert len(str(refused.value).splitlines()) == 3


def test_object_given_twice_is_refused() -> None:
    one = Source("a.yaml", POD)
    with pytest.raises(InvalidManifestsError, match=r"b.yaml:1.*a.yaml:1"):
        parse_manifests([one, Source("b.yaml", one.text)])


def test_directory_stands_for_its_yaml_files_in_order(tmp_path: Path) -> None:
    for name in ("b.yml", "a.yaml", "c.json", "notes.txt", ".hidden.yaml"):
        (tmp_path / name).write_text("")
    assert [Path(source.name).name for source in read_sources([tmp_path])] == ["a.yaml", "b.yml", "c.json"]


def test_folder_without_manifests_and_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableSourceError, match="has no file that ends in"):
        read_sources([tmp_path])
    with pytest.raises(UnreadableSourceError, match="cannot be read"):
        read_sources([tmp_path / "missing.yaml"])


def test_lab_is_found_in_texts_that_may_be_wrong() -> None:
    lab = "{apiVersion: ambit.dev/v1alpha1, kind: Lab, metadata: {name: mine}}"
    assert find_lab_name([Source("a", "["), Source("b", f"{POD}\n---\n{lab}")]) == "mine"
    assert find_lab_name([Source("a", POD)]) is None


@pytest.mark.parametrize("kind", ["po", "pod", "Pods", "POD"])
def test_kind_is_understood_as_kubectl_does(kind: str) -> None:
    keys = [ObjectKey("", "Pod", "a", "x"), ObjectKey("", "Pod", "b", "x"), ObjectKey("", "Service", "b", "x")]
    assert find_key_of(keys, kind, "x", "b") == keys[1]
    assert find_key_of(keys, kind, "y", "b") is None


def test_policies_are_found_by_their_plural() -> None:
    key = ObjectKey("security.istio.io", "AuthorizationPolicy", "a", "deny")
    assert find_key_of([key], "authorizationpolicies", "deny", "a") == key


def test_a_kind_may_name_its_group_where_two_have_one() -> None:
    keys = [ObjectKey(group, "Gateway", "a", "web") for group in ("gateway.networking.k8s.io", "networking.istio.io")]
    assert find_key_of(keys, "gateways.networking.istio.io", "web", "a") == keys[1]
    assert find_key_of(keys, "gateway.example.com", "web", "a") is None
