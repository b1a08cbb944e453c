"""EnvoyFilters: what the door refuses, what patches do, and what is said of those that do nothing."""

import json
import re
from pathlib import Path
from typing import cast

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.json_format import MessageToDict
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.analysis.report import analyze_texts
from controller.envoy_api.constraints import find_violation
from controller.envoy_api.merging import merge
from controller.envoy_api.values import UnknownTypeError, UnreadableValueError, parse_message
from controller.kinds.envoy_filter import MESSAGES, ConfigPatch, EnvoyFilter
from controller.registry.names import MeshSettings
from controller.routing.publication import Routing
from controller.serve.resources import LISTENER_TYPE
from controller.snapshot import Snapshot
from controller.sources.documents import parse_documents, parse_plain
from controller.sources.held import encode_held, parse_held
from controller.status.documents import build_statuses
from controller.translate.envoy import milliseconds, pack
from controller.translate.listeners import translate_gateway_port
from controller.translate.patches import Outcome, Prepared, find_disorder, patch_listener
from tests.support.golden import FOLDER, GIVEN, list_cases
from tests.support.objects import parse

HCM = "envoy.filters.network.http_connection_manager"
LUA = (
    "{name: lua, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua, "
    "default_source_code: {inline_string: x}}}"
)


def made(patch: str, rest: str = "", where: str = "demo", name: str = "f") -> str:
    metadata, spec = f"{{name: {name}, namespace: {where}}}", f"{{{rest} configPatches: [{{{patch}}}]}}"
    kind = "apiVersion: networking.istio.io/v1alpha3, kind: EnvoyFilter"
    return f"{{{kind}, metadata: {metadata}, spec: {spec}}}\n---\n"


def typed(type_: str, value: str) -> str:
    """An HTTP_FILTER that inserts a filter of that type."""
    config = f"{{'@type': type.googleapis.com/{type_}, {value}}}"
    return f"applyTo: HTTP_FILTER, patch: {{operation: INSERT_FIRST, value: {{name: x, typed_config: {config}}}}}"


def struct(type_: str, value: str, outer: str = "udpa.type.v1.TypedStruct") -> str:
    return typed(outer, f"type_url: type.googleapis.com/{type_}, value: {{{value}}}")


STRUCT = "udpa.type.v1.TypedStruct"
RATE = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"


@pytest.mark.parametrize(
    ("patch", "code"),
    [
        pytest.param(struct("envoy.nothing.v3.Filter", ""), "envoy-type", id="type"),
        pytest.param(struct("os.path.Thing", ""), "envoy-type", id="type-of-nothing-of-envoys"),
        pytest.param(struct("google.protobuf.json_format.Thing", ""), "envoy-type", id="module"),
        pytest.param(struct("envoy.config.core.v3.address_pb2.Address", ""), "envoy-type", id="module-of-messages"),
        pytest.param(typed("envoy.nothing.v3.Filter", ""), "envoy-type", id="type-of-any"),
        pytest.param(typed(STRUCT, "value: {}"), "envoy-type", id="struct-without-type"),
        pytest.param(struct(RATE, "stat_prefix: x, bogus: 1"), "envoy-value", id="unknown-field"),
        pytest.param(struct(RATE, "stat_prefix: 5"), "envoy-value", id="wrong-type"),
        pytest.param(struct(RATE, ""), "envoy-value", id="missing-field"),
        pytest.param(typed(STRUCT, f"type_url: x/{RATE}, values: {{}}"), "envoy-value", id="struct"),
        pytest.param("applyTo: CLUSTER, patch: {operation: ADD, value: {type: STATIC}}", "envoy-value", id="no-name"),
        pytest.param(
            "applyTo: CLUSTER, patch: {operation: ADD, value: {name: 'outbound|80||x'}}", "envoy-value", id="our-name"
        ),
        pytest.param("applyTo: CLUSTER, patch: {operation: ADD}", "combination", id="no-value"),
        pytest.param("applyTo: LISTENER, patch: {operation: REMOVE, value: {}}", "combination", id="value"),
        pytest.param("applyTo: BOOTSTRAP, patch: {operation: MERGE, value: {}}", "unsupported", id="bootstrap"),
        pytest.param(
            "applyTo: LISTENER, match: {context: WAYPOINT}, patch: {operation: REMOVE}", "unsupported", id="waypoint"
        ),
        pytest.param(
            "applyTo: LISTENER, match: {proxy: {proxyVersion: x}}, patch: {operation: REMOVE}",
            "unsupported",
            id="proxy",
        ),
        pytest.param(
            f"applyTo: HTTP_FILTER, patch: {{operation: ADD, value: {LUA}}}", "patch-operation", id="behind-the-router"
        ),
        pytest.param(
            "applyTo: ROUTE_CONFIGURATION, patch: {operation: REMOVE}", "patch-operation", id="operation-of-others"
        ),
        pytest.param("applyTo: HTTP_FILTER, patch: {operation: REMOVE}", "patch-match", id="which-filter"),
        pytest.param(
            "applyTo: LISTENER, match: {cluster: {name: x}}, patch: {operation: REMOVE}", "patch-match", id="match"
        ),
        pytest.param(
            "applyTo: CLUSTER, match: {context: GATEWAY}, patch: {operation: REMOVE}", "patch-of-all", id="shared"
        ),
        pytest.param(
            f"applyTo: LISTENER_FILTER, patch: {{operation: ADD, value: {LUA}}}", "unsupported", id="listener"
        ),
        pytest.param("applyTo: NOTHING, patch: {operation: REMOVE}", "invalid-value", id="apply-to"),
    ],
)
def test_what_could_not_be_done_is_refused_with_its_code(patch: str, code: str) -> None:
    [problem] = parse_documents(made(patch), "f.yaml").problems
    assert problem.code == code
    assert problem.path.startswith("spec.configPatches[0]") or code == "patch-of-all"


@pytest.mark.parametrize(("operation", "value"), [("REMOVE", ""), ("INSERT_AFTER", LUA)])
def test_the_router_stays_the_last(operation: str, value: str) -> None:
    [problem] = parse_documents(made(http_filter(operation, "router", value)), "f.yaml").problems
    assert problem.code == "patch-operation"


@pytest.mark.parametrize(
    ("rest", "code"),
    [
        pytest.param("workloadSelector: {labels: {a: b}}, targetRefs: [{kind: Gateway, name: x}],", "combination"),
        pytest.param("targetRefs: [{group: '', kind: Service, name: x}],", "unsupported"),
        pytest.param("targetRef: {kind: Gateway, name: x},", "unknown-field"),
    ],
)
def test_a_choice_of_proxies_that_is_none_is_refused(rest: str, code: str) -> None:
    [problem] = parse_documents(made("applyTo: LISTENER, patch: {operation: REMOVE}", rest), "f.yaml").problems
    assert problem.code == code


@pytest.mark.parametrize("outer", ["udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"])
def test_a_typed_struct_becomes_what_it_stands_for(outer: str) -> None:
    value = "stat_prefix: x, token_bucket: {max_tokens: 10, fill_interval: 60s}"
    for patch in (struct(RATE, value, outer), typed(RATE, value)):
        message = patch_of(patch).build_message()
        assert MessageToDict(message)["typedConfig"] == {
            "@type": f"type.googleapis.com/{RATE}",
            "statPrefix": "x",
            "tokenBucket": {"maxTokens": 10, "fillInterval": "60s"},
        }


def patch_of(text: str) -> ConfigPatch:
    found = parse(made(text))
    assert isinstance(found, EnvoyFilter)
    return found.spec.config_patches[0]


def apply(*patches: str, port: int = 80) -> listener_pb2.Listener:
    """The listener of a Gateway's port, patched."""
    listener = translate_gateway_port("gateway/demo/web/80", port)
    for patch in map(patch_of, patches):
        patch_listener(listener, port, Prepared(patch, patch.build_message()))
    return listener


def filters_of(listener: listener_pb2.Listener) -> list[str]:
    manager = hcm_pb2.HttpConnectionManager()
    assert listener.filter_chains[0].filters[-1].typed_config.Unpack(manager)
    return [each.name.rpartition(".")[2] for each in manager.http_filters]


def http_filter(operation: str, sub: str = "", value: str = LUA, filter_: str = HCM) -> str:
    chosen = f", subFilter: {{name: envoy.filters.http.{sub}}}" if sub else ""
    match = f"match: {{listener: {{filterChain: {{filter: {{name: {filter_}{chosen}}}}}}}}}"
    given = f", value: {value}" if value else ""
    return f"applyTo: HTTP_FILTER, {match}, patch: {{operation: {operation}{given}}}"


@pytest.mark.parametrize(
    ("patch", "filters"),
    [
        pytest.param(http_filter("INSERT_BEFORE"), ["lua", "cors", "fault", "router"], id="before-all"),
        pytest.param(http_filter("INSERT_BEFORE", "router"), ["cors", "fault", "lua", "router"], id="before"),
        pytest.param(http_filter("INSERT_AFTER", "cors"), ["cors", "lua", "fault", "router"], id="after"),
        pytest.param(http_filter("INSERT_FIRST", "router"), ["lua", "cors", "fault", "router"], id="first"),
        pytest.param(http_filter("REPLACE", "fault"), ["cors", "lua", "router"], id="replace"),
        pytest.param(http_filter("REMOVE", "fault", ""), ["cors", "router"], id="remove"),
        pytest.param(http_filter("INSERT_FIRST", "jwt_authn"), ["cors", "fault", "router"], id="first-if-there"),
        pytest.param(http_filter("INSERT_BEFORE", "jwt_authn"), ["cors", "fault", "router"], id="before-nothing"),
        pytest.param(http_filter("INSERT_BEFORE", filter_="tcp"), ["cors", "fault", "router"], id="other-filter"),
    ],
)
def test_filters_are_put_where_the_match_says(patch: str, filters: list[str]) -> None:
    assert filters_of(apply(patch)) == filters


def test_patches_are_applied_in_the_order_in_which_they_stand() -> None:
    second = LUA.replace("name: lua", "name: second")
    assert filters_of(apply(http_filter("INSERT_BEFORE"), http_filter("INSERT_BEFORE", value=second)))[:2] == [
        "second",
        "lua",
    ]


def test_a_port_or_name_that_is_another_leaves_the_listener_as_it_is() -> None:
    before = apply()
    for match in ("portNumber: 81", "name: x", "filterChain: {filter: {name: x}}"):
        merge_ = "patch: {operation: MERGE, value: {per_connection_buffer_limit_bytes: 1}}"
        patch = patch_of(f"applyTo: LISTENER, match: {{listener: {{{match}}}}}, {merge_}")
        listener = translate_gateway_port("gateway/demo/web/80", 80)
        assert patch_listener(listener, 80, Prepared(patch, patch.build_message())) is Outcome.UNTOUCHED
        assert listener == before


def test_merging_sets_what_is_false_or_zero_and_keeps_what_is_not_said() -> None:
    whole = hcm_pb2.HttpConnectionManager(
        stat_prefix="x", use_remote_address={"value": True}, stream_idle_timeout=milliseconds(1500)
    )
    merge(hcm_pb2.HttpConnectionManager(use_remote_address={}, stream_idle_timeout=milliseconds(2000)), whole)
    assert whole.use_remote_address.value is False
    assert (whole.stream_idle_timeout.seconds, whole.stream_idle_timeout.nanos) == (2, 0)
    assert whole.stat_prefix == "x"


def test_merging_goes_into_an_extension_of_the_same_type_and_replaces_another() -> None:
    router = listener_components_pb2.Filter(name="x", typed_config=pack(router_pb2.Router(start_child_span=True)))
    merge(
        listener_components_pb2.Filter(typed_config=pack(router_pb2.Router(suppress_envoy_headers=True))), into=router
    )
    found = router_pb2.Router()
    assert router.typed_config.Unpack(found)
    assert (found.start_child_span, found.suppress_envoy_headers, router.name) == (True, True, "x")
    merge(listener_components_pb2.Filter(typed_config=pack(cors_pb2.Cors())), into=router)
    assert router.typed_config.Is(cors_pb2.Cors.DESCRIPTOR)


ROUTER = "{name: second, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}"


def test_filters_in_an_order_that_envoy_refuses_are_found() -> None:
    assert find_disorder(apply()) == ""
    assert "router" in find_disorder(apply(http_filter("INSERT_FIRST", value=ROUTER)))
    assert "router" in find_disorder(apply(http_filter("REPLACE", "router")))


def cluster(text: str) -> str:
    """What is wrong with a cluster of this JSON."""
    message = cluster_pb2.Cluster()
    parse_message(json.loads(text), message)
    return find_violation(message)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param('{"name": "x"}', "", id="healthy"),
        pytest.param("{}", "name: must not be empty", id="empty"),
        pytest.param(
            '{"name": "x", "connectTimeout": "0s"}', "connect_timeout: must be greater than 0s", id="duration"
        ),
        pytest.param(
            '{"name": "x", "edsClusterConfig": {}, "type": "EDS", "upstreamBindConfig": {"sourceAddress": {}}}',
            "upstream_bind_config.source_address: needs one of port_value, named_port",
            id="nested",
        ),
        pytest.param(
            '{"name": "x", "loadAssignment": {}}', "load_assignment.cluster_name: must not be empty", id="deep"
        ),
        pytest.param(
            '{"name": "x", "loadAssignment": {"clusterName": "x", "endpoints": [{"priority": 129}]}}',
            "load_assignment.endpoints[0].priority: must be at most 128",
            id="number-in-list",
        ),
        pytest.param(
            '{"name": "x", "healthChecks": [{"timeout": "1s", "interval": "1s", "unhealthyThreshold": 1, '
            '"healthyThreshold": 1}]}',
            "health_checks[0]: needs one of http_health_check, tcp_health_check, grpc_health_check, "
            "custom_health_check",
            id="oneof",
        ),
        pytest.param(
            '{"name": "x", "healthChecks": [{"interval": "1s", "tcpHealthCheck": {}}]}',
            "health_checks[0].timeout: is required",
            id="required",
        ),
        pytest.param(
            '{"name": "x", "outlierDetection": {"maxEjectionPercent": 101}}',
            "outlier_detection.max_ejection_percent: must be at most 100",
            id="wrapper",
        ),
        pytest.param('{"name": "x", "type": 77}', "type: 77 is none of its values", id="enum"),
        pytest.param(
            '{"name": "x", "typedExtensionProtocolOptions": {"a": {"@type": "type.googleapis.com/'
            'envoy.extensions.upstreams.http.v3.HttpProtocolOptions"}}}',
            "typed_extension_protocol_options[a]: needs one of explicit_http_config, use_downstream_protocol_config, "
            "auto_config",
            id="extension-in-map",
        ),
    ],
)
def test_what_envoy_would_refuse_is_found_with_its_field(text: str, fault: str) -> None:
    assert cluster(text) == fault


@pytest.mark.parametrize("case", list_cases())
def test_nothing_that_we_make_breaks_a_rule(case: str) -> None:
    """What gRPC's own clients alone are told, which have fewer demands, is left out."""
    text = (FOLDER / case / GIVEN).read_text()
    objects = [each.value for each in parse_documents(text, GIVEN).objects]
    built = Routing(MeshSettings()).build(Snapshot().apply({each.key: each for each in objects}))
    for type_url, changes in built.items():
        for name, resource in changes.updated.items():
            body = discovery_pb2.Resource.FromString(resource.wire).resource
            if type_url != LISTENER_TYPE or resource.keys:
                assert (name, find_violation(body)) == (name, "")


def test_json_that_is_no_message_is_refused() -> None:
    for value in ({"bogus": 1}, {"name": 1}, {"@type": "x"}):
        with pytest.raises((UnreadableValueError, UnknownTypeError)):
            parse_message(value, listener_pb2.Listener())


GATEWAY = (
    "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, "
    "metadata: {name: web, namespace: demo, labels: {istio: ingressgateway}}, "
    "spec: {gatewayClassName: ambit, listeners: [{name: http, port: 80, protocol: HTTP}]}}\n---\n"
)
FIRST = f"applyTo: HTTP_FILTER, match: {{context: GATEWAY}}, patch: {{operation: INSERT_FIRST, value: {LUA}}}"


_NAMES = [
    "name",
    "typed_config",
    "@type",
    "type_url",
    "value",
    "filters",
    "address",
    "domains",
    "routes",
    "match",
    "route",
]
_NAMES += [
    "load_assignment",
    "connect_timeout",
    "typed_per_filter_config",
    "metadata",
    "filter_metadata",
    "prefix",
    "x",
]
_TYPES = [
    f"type.googleapis.com/{each}" for each in (STRUCT, "xds.type.v3.TypedStruct", RATE, "google.protobuf.Duration")
]
_TYPES += ["google.protobuf.Struct", "envoy.type.v3.Percent", "/", "envoy", "envoy.config", "google.protobuf.Any"]
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.sampled_from(_TYPES)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.sampled_from(sorted(MESSAGES)), st.dictionaries(st.sampled_from(_NAMES), _VALUES, max_size=4))
def test_no_value_makes_the_door_fail(target: str, value: dict[str, object]) -> None:
    for operation in ("MERGE", "ADD"):
        patch = {"applyTo": target, "patch": {"operation": operation, "value": value}}
        document = {
            "apiVersion": "networking.istio.io/v1alpha3",
            "kind": "EnvoyFilter",
            "metadata": {"name": "x"},
            "spec": {"configPatches": [patch]},
        }
        parsed = parse_plain(document, "x")
        assert len(parsed.objects) + bool(parsed.problems) == 1


DOCUMENT = Path(__file__).parents[3] / "docs" / "envoy-filters.md"


def test_what_the_page_shows_is_accepted() -> None:
    shown = re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    parsed = [parse_documents(text, "docs") for text in shown]
    assert [each.problems for each in parsed] == [[], []]
    assert [located.value.key.kind for each in parsed for located in each.objects] == ["EnvoyFilter", "Telemetry"]


def test_a_form_that_is_held_survives_a_restart() -> None:
    [located] = parse_documents((FOLDER / "envoy-filter" / GIVEN).read_text().split("---\n")[4], GIVEN).objects
    assert isinstance(located.value, EnvoyFilter)
    assert parse_held(encode_held({"a.yaml": [located.value]})) == {"a.yaml": [located.value]}


INGRESS = (
    "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: edge, namespace: demo}, spec: "
    "{selector: {istio: edge}, servers: [{port: {number: 82, name: http, protocol: HTTP}, hosts: ['*']}]}}\n---\n"
)
WAYPOINT = (
    "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: waypoint, namespace: demo}, "
    "spec: {gatewayClassName: ambit, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}}\n---\n"
)
AT_82 = "applyTo: LISTENER, match: {context: GATEWAY, listener: {portNumber: 82}}, patch: {operation: REMOVE}"


def codes_of(text: str) -> list[str]:
    found = analyze_texts({"a.yaml": GATEWAY + text}).entries
    return [each.code for each in found if each.code != "gateway-without-routes"]


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        pytest.param(made(FIRST), [], id="namespace"),
        pytest.param(made(FIRST, where="istio-system"), [], id="mesh"),
        pytest.param(made(FIRST, "workloadSelector: {labels: {istio: ingressgateway}},"), [], id="label"),
        pytest.param(
            made(FIRST, "workloadSelector: {labels: {gateway.networking.k8s.io/gateway-name: web}},"), [], id="name"
        ),
        pytest.param(made(FIRST, "targetRefs: [{kind: Gateway, name: web}],"), [], id="target"),
        pytest.param(made(FIRST, "targetRefs: [{kind: Gateway, name: x}],"), ["envoy-filter-idle"], id="other-target"),
        pytest.param(
            made(FIRST, "targetRefs: [{kind: Gateway, name: web}],", "istio-system"),
            ["envoy-filter-idle"],
            id="target-of-another-namespace",
        ),
        pytest.param(made(FIRST, where="other"), ["envoy-filter-idle"], id="other-namespace"),
        pytest.param(made(FIRST, "workloadSelector: {labels: {a: b}},"), ["envoy-filter-idle"], id="other-label"),
        pytest.param(made(FIRST.replace("GATEWAY", "SIDECAR_INBOUND")), ["envoy-filter-idle"], id="inbound"),
        pytest.param(made(FIRST.replace("GATEWAY", "SIDECAR_OUTBOUND")), ["envoy-filter-idle"], id="outbound"),
        pytest.param(
            made("applyTo: CLUSTER, patch: {operation: REMOVE}"), ["envoy-filter-idle"], id="cluster-of-a-namespace"
        ),
        pytest.param(
            made("applyTo: LISTENER, match: {listener: {portNumber: 81}}, patch: {operation: REMOVE}"),
            ["envoy-patch-matches-nothing"],
            id="port",
        ),
        pytest.param(made(http_filter("INSERT_FIRST", value=ROUTER)), ["envoy-filter-breaks"], id="spoils"),
        pytest.param(INGRESS + made(AT_82, "workloadSelector: {labels: {istio: edge}},"), [], id="ingress"),
        pytest.param(INGRESS + made(AT_82, "workloadSelector: {labels: {app: x}},"), [], id="ingress-by-more-labels"),
        pytest.param(INGRESS + made(AT_82), [], id="ingress-of-the-namespace"),
        pytest.param(
            INGRESS + made(AT_82, "workloadSelector: {labels: {istio: x}},"), ["envoy-filter-idle"], id="other-ingress"
        ),
        pytest.param(
            INGRESS + made(AT_82, "targetRefs: [{kind: Gateway, name: edge}],"),
            ["envoy-filter-idle"],
            id="istio-gateway",
        ),
        pytest.param(
            INGRESS + made(AT_82.replace("82", "83"), "workloadSelector: {labels: {istio: edge}},"),
            ["envoy-patch-matches-nothing"],
            id="port-of-ingress",
        ),
        pytest.param(
            INGRESS + made(http_filter("INSERT_FIRST", value=ROUTER), "workloadSelector: {labels: {istio: edge}},"),
            ["envoy-filter-breaks"],
            id="spoils-ingress",
        ),
        pytest.param(
            WAYPOINT + made(FIRST, "targetRefs: [{kind: Gateway, name: waypoint}],"),
            ["waypoint-without-service", "envoy-filter-idle"],
            id="waypoint",
        ),
    ],
)
def test_analysis_tells_which_patches_do_nothing_and_which_do_harm(text: str, codes: list[str]) -> None:
    assert codes_of(text) == codes


def test_the_status_says_what_reaches_nobody_and_what_is_not_served() -> None:
    texts = [
        made(FIRST, name="good"),
        made(FIRST.replace("GATEWAY", "SIDECAR_INBOUND"), name="idle"),
        made(FIRST, "targetRefs: [{kind: Gateway, name: waypoint}],", name="waypoint"),
        made(FIRST, name="bad"),
    ]
    found = [parse(each) for each in (GATEWAY, WAYPOINT, *texts)]
    snapshot = Snapshot().apply({each.key: each for each in found})
    faults = {found[-1].key: f"{LISTENER_TYPE}: x"}
    shown = {}
    for each in build_statuses(snapshot, MeshSettings(), [], "2026-11-28T12:00:00Z", faults):
        if each.key.kind == "EnvoyFilter":
            [shown[each.key.name]] = cast(list[dict[str, str]], each.status["conditions"])
    assert {name: (each["status"], each["reason"]) for name, each in shown.items()} == {
        "good": ("True", "Accepted"),
        "idle": ("False", "NoMatchingProxy"),
        "waypoint": ("False", "NoMatchingProxy"),
        "bad": ("False", "Invalid"),
    }
    assert "only waypoints are selected" in shown["waypoint"]["message"]
    assert "write context: GATEWAY" in shown["idle"]["message"]
    assert "what was served before goes on" in shown["bad"]["message"]
