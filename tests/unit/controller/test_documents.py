"""The door: what is valid comes through typed, what is not is refused with its place and the reason."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.kinds.core import Service
from controller.sources.documents import parse_documents, parse_plain
from controller.sources.problems import ProblemReason as Reason

POLICY = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: demo}\n"
PEER = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: demo}\n"
SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: demo}\n"
FROM = POLICY + "spec:\n  rules:\n  - from:\n    - source:\n        "
TO = POLICY + "spec:\n  rules:\n  - to:\n    - operation:\n        "
WHEN = POLICY + "spec:\n  rules:\n  - when:\n    - "
SOURCE = "spec.rules[0].from[0].source"
OPERATION = "spec.rules[0].to[0].operation"


@pytest.mark.parametrize(
    ("text", "line", "path", "reason"),
    [
        pytest.param("a: [1", 1, "", Reason.SYNTAX, id="unclosed-list"),
        pytest.param("a: 1\n b: 2", 2, "", Reason.SYNTAX, id="bad-indentation"),
        pytest.param("a: b\n\tc: d", 2, "", Reason.SYNTAX, id="tab"),
        pytest.param("a: \x07", 1, "", Reason.SYNTAX, id="control-character"),
        pytest.param("a: *x", 1, "", Reason.SYNTAX, id="alias-without-anchor"),
        pytest.param("{? [a] : b}", 1, "", Reason.SYNTAX, id="list-as-key"),
        pytest.param("a: 1\nb: 1\na: 2", 3, "", Reason.DUPLICATE_KEY, id="key-twice"),
        pytest.param("[" * 100 + "]" * 100, 1, "", Reason.TOO_LARGE, id="too-deep"),
        pytest.param("- 1", 1, "", Reason.NOT_AN_OBJECT, id="list"),
        pytest.param("hello", 1, "", Reason.NOT_AN_OBJECT, id="word"),
        pytest.param("kind: Pod", 1, "apiVersion", Reason.MISSING_FIELD, id="no-version"),
        pytest.param("apiVersion: v1\nkind: Foo\nmetadata: {name: x}", 2, "kind", Reason.UNKNOWN_KIND, id="kind"),
        pytest.param("apiVersion: v2\nkind: Pod\nmetadata: {name: x}", 2, "kind", Reason.UNKNOWN_KIND, id="version"),
        pytest.param("apiVersion: v1\nkind: Pod", 1, "metadata", Reason.MISSING_FIELD, id="no-metadata"),
        pytest.param("apiVersion: v1\nkind: Pod\nmetadata: {}", 3, "metadata.name", Reason.MISSING_FIELD, id="no-name"),
        pytest.param(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: A_b}", 3, "metadata.name", Reason.INVALID_VALUE, id="bad-name"
        ),
        pytest.param(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels: {v: 1}",
            5,
            "metadata.labels.v",
            Reason.WRONG_TYPE,
            id="number-as-label",
        ),
        pytest.param(
            SERVICE + "spec:\n  ports:\n  - port: '80'", 6, "spec.ports[0].port", Reason.WRONG_TYPE, id="port-text"
        ),
        pytest.param(
            SERVICE + "spec:\n  ports:\n  - port: 0", 6, "spec.ports[0].port", Reason.INVALID_VALUE, id="port-zero"
        ),
        pytest.param(SERVICE + "spec: {clusterIP: 1.2.3}", 4, "spec.clusterIP", Reason.INVALID_VALUE, id="bad-ip"),
        pytest.param(
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n  labels: {ambit.dev/node-local: off}",
            5,
            "metadata.labels",
            Reason.INVALID_VALUE,
            id="node-local-label",
        ),
        pytest.param(POLICY + "spce: {}", 4, "spce", Reason.UNKNOWN_FIELD, id="misspelt-spec"),
        pytest.param(POLICY + "spec:\n  bogus: 1", 5, "spec.bogus", Reason.UNKNOWN_FIELD, id="unknown-field"),
        pytest.param(POLICY + "spec: {action: AUDIT}", 4, "spec.action", Reason.UNSUPPORTED, id="audit"),
        pytest.param(POLICY + "spec: {action: CUSTOM}", 4, "spec.action", Reason.UNSUPPORTED, id="custom"),
        pytest.param(POLICY + "spec: {action: Allow}", 4, "spec.action", Reason.INVALID_VALUE, id="action-case"),
        pytest.param(POLICY + "spec: {targetRefs: []}", 4, "spec.targetRefs", Reason.INVALID_VALUE, id="target-refs"),
        pytest.param(POLICY + "spec:\n  rules: [null]", 5, "spec.rules[0]", Reason.WRONG_TYPE, id="null-rule"),
        pytest.param(FROM + "{}", 8, SOURCE, Reason.INVALID_VALUE, id="empty-source"),
        pytest.param(FROM + "principals: [a*b]", 8, SOURCE + ".principals[0]", Reason.INVALID_VALUE, id="inner-star"),
        pytest.param(FROM + "principals: ['']", 8, SOURCE + ".principals[0]", Reason.INVALID_VALUE, id="empty-pattern"),
        pytest.param(
            FROM + "principals: [spiffe://td/ns/a/sa/b]",
            8,
            SOURCE + ".principals[0]",
            Reason.INVALID_VALUE,
            id="spiffe",
        ),
        pytest.param(FROM + "ipBlocks: [10.0.0.0/33]", 8, SOURCE + ".ipBlocks[0]", Reason.INVALID_VALUE, id="cidr"),
        pytest.param(
            FROM + "serviceAccounts: [a/*]", 8, SOURCE + ".serviceAccounts[0]", Reason.INVALID_VALUE, id="sa-star"
        ),
        pytest.param(FROM + "{serviceAccounts: [a], namespaces: [b]}", 8, SOURCE, Reason.INVALID_VALUE, id="sa-and-ns"),
        pytest.param(
            FROM + "remoteIpBlocks: [0.0.0.0/0]", 8, SOURCE + ".remoteIpBlocks", Reason.UNSUPPORTED, id="remote-ip"
        ),
        pytest.param(FROM + "requestPrincipals: ['*']", 8, SOURCE + ".requestPrincipals", Reason.UNSUPPORTED, id="jwt"),
        pytest.param(FROM + "trustDomains: [td]", 8, SOURCE + ".trustDomains", Reason.UNSUPPORTED, id="trust-domains"),
        pytest.param(TO + "methods: [GET]", 8, OPERATION + ".methods", Reason.UNSUPPORTED, id="methods"),
        pytest.param(TO + "paths: [/]", 8, OPERATION + ".paths", Reason.UNSUPPORTED, id="paths"),
        pytest.param(TO + "ports: [80]", 8, OPERATION + ".ports[0]", Reason.WRONG_TYPE, id="port-number"),
        pytest.param(TO + "ports: ['65536']", 8, OPERATION + ".ports[0]", Reason.INVALID_VALUE, id="port-large"),
        pytest.param(
            WHEN + "{key: 'request.headers[x]', values: [a]}",
            7,
            "spec.rules[0].when[0].key",
            Reason.UNSUPPORTED,
            id="l7-key",
        ),
        pytest.param(
            WHEN + "{key: source.ip, values: [x]}",
            7,
            "spec.rules[0].when[0].values",
            Reason.INVALID_VALUE,
            id="when-ip",
        ),
        pytest.param(WHEN + "{key: source.ip}", 7, "spec.rules[0].when[0]", Reason.INVALID_VALUE, id="when-nothing"),
        pytest.param(PEER + "spec: {mtls: {mode: ON}}", 4, "spec.mtls.mode", Reason.INVALID_VALUE, id="mode"),
        pytest.param(PEER + "spec: {mtls: {mod: STRICT}}", 4, "spec.mtls.mod", Reason.UNKNOWN_FIELD, id="mtls-field"),
        pytest.param(
            PEER + "spec: {portLevelMtls: {80: {mode: STRICT}}}",
            4,
            "spec",
            Reason.INVALID_VALUE,
            id="ports-no-selector",
        ),
    ],
)
def test_what_is_invalid_is_refused_with_line_path_and_reason(text: str, line: int, path: str, reason: Reason) -> None:
    parsed = parse_documents(text, "some.yaml")
    assert not parsed.objects
    problem = parsed.problems[0]
    assert (problem.file, problem.line, problem.path, problem.reason) == ("some.yaml", line, path, reason)
    assert problem.message
    assert str(problem).startswith(f"some.yaml:{line}:")


def test_one_invalid_document_leaves_the_others_of_its_file_alone() -> None:
    parsed = parse_documents(SERVICE + "spec: {}\n---\n" + POLICY + "spec: {x: 1}\n---\n" + PEER, "f")
    assert [str(located.value.key) for located in parsed.objects] == ["Service demo/s", "PeerAuthentication demo/p"]
    assert [str(problem.key) for problem in parsed.problems] == ["AuthorizationPolicy demo/p"]


def test_every_problem_of_an_object_is_told_at_once() -> None:
    parsed = parse_documents(POLICY + "spec: {x: 1, action: NO, rules: [{from: [{source: {}}]}]}", "f")
    assert len(parsed.problems) == 3


def test_object_that_stands_twice_counts_once() -> None:
    parsed = parse_documents(SERVICE + "spec: {}\n---\n" + SERVICE + "spec: {ports: []}", "f")
    assert len(parsed.objects) == 1
    assert parsed.problems[0].reason is Reason.DUPLICATE_OBJECT
    assert "line 1" in parsed.problems[0].message


def test_fields_of_kubernetes_that_the_mesh_does_not_use_are_accepted() -> None:
    text = """
apiVersion: v1
kind: Pod
metadata: {name: a, creationTimestamp: 2024-01-01T00:00:00Z, managedFields: [{manager: kubectl}], finalizers: [x/y]}
spec:
  containers:
  - {name: a, image: b, env: [{name: A, value: "1"}], resources: {limits: {cpu: 1}}, readinessProbe: {periodSeconds: 1}}
  tolerations: [{operator: Exists}]
  volumes: [{name: v, emptyDir: {}}]
status: {qosClass: BestEffort, hostIP: 192.0.2.1, containerStatuses: [{ready: true}]}
"""
    parsed = parse_documents(text, "f")
    assert not parsed.problems
    assert parsed.objects[0].value.metadata.creation_timestamp == "2024-01-01T00:00:00Z"


def test_list_stands_for_its_items_and_empty_documents_for_nothing() -> None:
    parsed = parse_documents(
        "---\n---\n{apiVersion: v1, kind: List, items: [" + "{apiVersion: v1, kind: Namespace, "
        "metadata: {name: a}}, {apiVersion: v1, kind: Namespace, metadata: {name: b}}]}\n---\n",
        "f",
    )
    assert [located.value.name for located in parsed.objects] == ["a", "b"]
    assert not parsed.problems


def test_json_is_read_like_yaml() -> None:
    text = '{\n\t"apiVersion": "v1",\n\t"kind": "Service",\n\t"metadata": {"name": "s"},\n'
    text += '\t"spec": {"clusterIP": "None"}\n}'
    [located] = parse_documents(text, "f.json").objects
    assert isinstance(located.value, Service)
    assert located.value.addresses == ()
    assert located.value.namespace == "default"


def test_anchors_and_merge_keys_work_as_in_yaml() -> None:
    text = SERVICE + "spec:\n  selector: &labels {a: b}\n  ports: [&port {port: 80}, {<<: *port, name: x}]\n"
    [located] = parse_documents(text, "f").objects
    assert isinstance(located.value, Service)
    assert [(port.port, port.name) for port in located.value.spec.ports or ()] == [(80, None), (80, "x")]


def test_nested_aliases_cannot_grow_without_bound() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert parse_documents("\n".join(lines), "f").problems[0].reason is Reason.TOO_LARGE


@pytest.mark.parametrize("word", ["yes", "on", "1:30", "2024-01-01", "0o9", "=", "1_000"])
def test_words_that_only_old_yaml_knows_stay_text(word: str) -> None:
    [located] = parse_documents(
        f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: a, labels: {{l: {word}}}}}", "f"
    ).objects
    assert located.value.labels == {"l": word}


@given(st.text(max_size=300))
def test_any_text_gives_objects_or_problems_and_never_raises(text: str) -> None:
    parse_documents(text, "f")


_WORDS = [
    "apiVersion",
    "kind",
    "metadata",
    "name",
    "spec",
    "rules",
    "from",
    "source",
    "principals",
    "v1",
    "Pod",
    "Service",
    "security.istio.io/v1",
    "AuthorizationPolicy",
    ":",
    ": ",
    "- ",
    "\n",
    "  ",
    "{",
    "}",
    "[",
    "]",
    ",",
    "&a ",
    "*a",
    "<<",
    "---\n",
    "'",
    '"',
    "|\n",
    ">",
    "!!int ",
    "? ",
    "#",
    "null",
    "1",
    "-",
    "%YAML 1.1\n",
    "\t",
    "\0",
    "\u2028",
    "é",
]


@given(st.lists(st.sampled_from(_WORDS), max_size=60).map("".join))
def test_text_that_looks_like_yaml_gives_objects_or_problems_and_never_raises(text: str) -> None:
    parsed = parse_documents(text, "f")
    for problem in parsed.problems:
        assert problem.line >= 1
        assert problem.message


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(_WORDS) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(_WORDS), inner, max_size=4),
    max_leaves=25,
)


@given(st.sampled_from([POLICY, PEER, SERVICE, SERVICE.replace("Service", "Pod")]), _json)
def test_any_spec_is_accepted_or_refused_with_a_path_in_it(head: str, spec: object) -> None:

    parsed = parse_documents(head + "spec: " + json.dumps(spec), "f")
    assert len(parsed.objects) + bool(parsed.problems) == 1
    for problem in parsed.problems:
        assert problem.line in (1, 4)


def test_an_object_that_is_parsed_already_is_read_as_its_text_is() -> None:
    spec = {"action": "DENY", "rules": [{"from": [{"source": {"principals": [""]}}]}]}
    document = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "p", "namespace": "demo", "managedFields": [{"manager": "kubectl"}], "generation": 3},
        "spec": spec,
        "status": {"conditions": []},
    }
    (refused,) = parse_plain(document, "AuthorizationPolicy demo/p").problems
    assert (refused.path, refused.line) == (f"{SOURCE}.principals[0]", 0)
    assert str(refused).startswith("AuthorizationPolicy demo/p: AuthorizationPolicy demo/p: spec.rules")
    spec["rules"] = []
    for read in (parse_plain(document, "here"), parse_documents(json.dumps(document), "here")):
        assert [located.value.key.name for located in read.objects] == ["p"]
        assert not read.problems
    (refused,) = parse_plain({"kind": "Secret"}, "here").problems
    assert refused.path == "apiVersion"
