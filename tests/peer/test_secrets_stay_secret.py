"""A certificate's key leaves the controller for its Gateway's proxies, and for nobody and nothing else."""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import grpc
import pytest
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from envoy.service.discovery.v3 import discovery_pb2
from typer.testing import CliRunner

from ambit.cli import app
from ambit.demo.polling import wait_for
from tests.support.controller_process import (
    PATIENCE_SECONDS,
    ControllerProcess,
    DeltaStream,
    build_node_metadata,
)
from tests.support.envoy_proxy import run_gateway
from tests.support.free_ports import find_free_port
from tests.support.mesh_certificates import Credentials, issue_server, make_authority
from tests.support.secrets import gateway_pod_text, ingress_pod_text, secret_text
from tests.support.texts import text_of

SECRET_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
LISTENER_TYPE = "type.googleapis.com/envoy.config.listener.v3.Listener"
NAME = "secret/demo/a"
INGRESS_NAME = "secret/istio-system/a"
EDGE = {"istio": "ingressgateway", "app": "edge"}
GATEWAY_API = "gateway.networking.k8s.io/v1"
PAGES = (
    "/debug/state",
    "/debug/conditions",
    "/debug/syncz",
    "/debug/dump",
    "/debug/config_dump?client=demo/web",
    "/metrics",
)


@pytest.fixture
def pair() -> Credentials:
    return issue_server(make_authority("test"), "a.test")


@pytest.fixture
def controller(tmp_path: Path, pair: Credentials) -> Iterator[ControllerProcess]:
    made = ControllerProcess(tmp_path)
    made.write("gateway.yaml", gateway_text(find_free_port()))
    made.write("other.yaml", gateway_text(find_free_port(), "other", "b"))
    made.write("a.yaml", secret_text("a", pair))
    made.write("b.yaml", secret_text("b", issue_server(make_authority("test"), "b.test")))
    made.write("pods.yaml", gateway_pod_text("web", "node-1") + gateway_pod_text("other", "node-1"))
    with made:
        made.start(AMBIT_LOCAL_LISTEN="127.0.0.1:0", AMBIT_LOG_LEVEL="debug")
        yield made


def ask_as_ingress(channel: grpc.Channel, token: str, node: str, labels: Mapping[str, str]) -> set[str]:
    """The names of all secrets that a proxy of an ingress gateway of `istio-system` gets with these labels."""
    stream = DeltaStream(channel, token, node, ingress=labels)
    try:
        stream.send(LISTENER_TYPE)
        stream.send(SECRET_TYPE, resource_names_subscribe=("*", INGRESS_NAME, NAME))
        answers = (stream.receive() for _ in range(2))
        [found] = [answer for answer in answers if answer.type_url == SECRET_TYPE]
        return {each.name for each in found.resources}
    finally:
        stream.close()


def gateway_text(port: int, name: str = "web", secret: str = "a") -> str:
    tls = f"tls: {{certificateRefs: [{{name: {secret}}}]}}"
    listener = f"{{name: https, port: {port}, protocol: HTTPS, {tls}}}"
    return text_of(GATEWAY_API, "Gateway", name, f"spec: {{gatewayClassName: ambit, listeners: [{listener}]}}")


def ask(channel: grpc.Channel, token: str | None, node: str, gateway: str, *names: str) -> list[Secret]:
    """The secrets that a client gets by the delta form, of `names`, or of everything."""
    stream = DeltaStream(channel, token, node, gateway)
    try:
        stream.send(SECRET_TYPE, resource_names_subscribe=names)
        return [Secret.FromString(each.resource.value) for each in stream.receive().resources]
    finally:
        stream.close()


def ask_state(channel: grpc.Channel, token: str | None, node: str, gateway: str, *names: str) -> list[Secret]:
    """The same by the older form."""
    request = discovery_pb2.DiscoveryRequest(type_url=SECRET_TYPE, resource_names=names)
    request.node.id = "client"
    request.node.metadata.CopyFrom(build_node_metadata(node, gateway))
    call = channel.stream_stream(
        "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
        discovery_pb2.DiscoveryRequest.SerializeToString,
        discovery_pb2.DiscoveryResponse.FromString,
    )
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    answers = call(iter([request]), metadata=metadata, timeout=PATIENCE_SECONDS)
    answer: discovery_pb2.DiscoveryResponse = next(iter(answers))
    return [Secret.FromString(each.value) for each in answer.resources]


Ask = Callable[..., list[Secret]]
WAYS = [pytest.param(ask, id="delta"), pytest.param(ask_state, id="state")]
NAMES = [pytest.param((NAME,), id="by-name"), pytest.param((), id="everything"), pytest.param(("*", NAME), id="both")]


@pytest.mark.parametrize("ask_for", WAYS)
@pytest.mark.parametrize("names", NAMES)
def test_a_proxy_gets_what_its_gateway_names(
    controller: ControllerProcess, pair: Credentials, ask_for: Ask, names: tuple[str, ...]
) -> None:
    with controller.connect() as channel:
        [found] = ask_for(channel, "token-1", "node-1", "demo/web", *names)
    assert found.name == NAME
    assert found.tls_certificate.private_key.inline_string == pair.key


@pytest.mark.parametrize("ask_for", WAYS)
@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize(
    ("token", "node", "gateway"),
    [
        pytest.param("token-2", "node-2", "demo/web", id="node-without-such-a-pod"),
        pytest.param("token-1", "node-1", "demo/nobody", id="of-no-gateway"),
        pytest.param("token-1", "node-1", "", id="sidecar-or-ztunnel"),
    ],
)
def test_nobody_else_gets_it(
    controller: ControllerProcess, ask_for: Ask, names: tuple[str, ...], token: str, node: str, gateway: str
) -> None:
    with controller.connect() as channel:
        assert ask_for(channel, token, node, gateway, *names) == []


@pytest.mark.parametrize("ask_for", WAYS)
@pytest.mark.parametrize("names", NAMES)
def test_a_proxy_gets_none_of_another_gateway(
    controller: ControllerProcess, ask_for: Ask, names: tuple[str, ...]
) -> None:
    with controller.connect() as channel:
        found = ask_for(channel, "token-1", "node-1", "demo/other", *names)
    assert {each.name for each in found} <= {"secret/demo/b"}


@pytest.mark.parametrize("ask_for", WAYS)
@pytest.mark.parametrize("names", NAMES)
def test_a_client_without_a_token_gets_none(
    controller: ControllerProcess, ask_for: Ask, names: tuple[str, ...]
) -> None:
    with grpc.insecure_channel(controller.address("clients of this machine")) as channel:
        assert ask_for(channel, None, "node-1", "demo/web", *names) == []


@pytest.mark.parametrize("ask_for", WAYS)
def test_a_token_of_one_node_does_not_speak_for_another(controller: ControllerProcess, ask_for: Ask) -> None:
    with controller.connect() as channel, pytest.raises(grpc.RpcError) as refused:
        ask_for(channel, "token-2", "node-1", "demo/web", NAME)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_a_token_that_becomes_another_nodes_gets_nothing_more(controller: ControllerProcess, pair: Credentials) -> None:
    with controller.connect() as channel:
        stream = DeltaStream(channel, "token-1", "node-1", "demo/web")
        stream.send(SECRET_TYPE, resource_names_subscribe=(NAME,))
        assert stream.receive_and_acknowledge().resources
        controller.write_tokens({"node-2": "token-1"})
        controller.write("a.yaml", secret_text("a", issue_server(make_authority("test"), "a.test")))
        with pytest.raises(grpc.RpcError) as refused:
            stream.receive()
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        stream.close()


def test_the_gateway_may_name_nodes_whose_proxies_are_no_pods(controller: ControllerProcess) -> None:
    text = controller.read("gateway.yaml")
    named = text.replace("namespace: demo}", 'namespace: demo, annotations: {ambit.dev/proxy-nodes: "node-2, node-3"}}')
    controller.write("gateway.yaml", named)
    with controller.connect() as channel:

        def get() -> list[Secret]:
            return ask(channel, "token-2", "node-2", "demo/web", NAME)

        assert wait_for(get, PATIENCE_SECONDS)
        controller.write("gateway.yaml", text)
        assert wait_for(lambda: not get(), PATIENCE_SECONDS)


@pytest.mark.parametrize(
    ("token", "node", "labels", "names"),
    [
        pytest.param("token-1", "node-1", EDGE, {INGRESS_NAME}, id="its-own"),
        pytest.param("token-1", "node-1", {"istio": "ingressgateway"}, {INGRESS_NAME}, id="fewer-labels-than-its-pod"),
        pytest.param("token-1", "node-1", {**EDGE, "more": "x"}, set[str](), id="labels-that-no-pod-has"),
        pytest.param("token-1", "node-1", {"app": "edge"}, set[str](), id="that-no-gateway-selects"),
        pytest.param("token-2", "node-2", EDGE, set[str](), id="node-without-such-a-pod"),
    ],
)
def test_a_proxy_of_an_ingress_gateway_gets_what_its_pod_may_have(
    controller: ControllerProcess, token: str, node: str, labels: Mapping[str, str], names: set[str]
) -> None:
    server = (
        "{port: {number: 8443, name: https, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: a}}"
    )
    spec = f"spec: {{selector: {{istio: ingressgateway}}, servers: [{server}]}}"
    controller.write("edge.yaml", text_of("networking.istio.io/v1", "Gateway", "edge", spec))
    controller.write("edge-pod.yaml", ingress_pod_text(EDGE, "node-1"))
    controller.write("edge-secret.yaml", secret_text("a", issue_server(make_authority("test"), "a"), "istio-system"))
    with controller.connect() as channel:
        # That all files are read, only who gets something can know.
        served = partial(ask_as_ingress, channel, "token-1", "node-1", EDGE)
        assert wait_for(lambda: served() == {INGRESS_NAME}, PATIENCE_SECONDS)
        assert ask_as_ingress(channel, token, node, labels) == names


def test_no_page_log_file_or_command_shows_a_key(
    controller: ControllerProcess, pair: Credentials, tmp_path: Path
) -> None:
    """Neither of valid Secrets nor of those that are refused, nor of keys where none belongs."""
    body = "".join(pair.key.splitlines()[1:-1])
    mark = "MarkOfASecret"  # what is shown of a value is its beginning
    plain, encoded = json.dumps(f"{mark}\n{pair.key}"), f"{mark}{base64.b64encode(pair.key.encode()).decode()}"
    wrong = {
        "no-base64": f"data: {{tls.crt: '*', tls.key: '{encoded}-'}}",
        "no-text": f"data: {{tls.crt: {encoded}, tls.key: [{encoded}]}}",
        "no-mapping": f"data: {encoded}",
        "no-certificate": f"data: {{tls.crt: {encoded}, tls.key: {encoded}}}",
        "generic": f"stringData: {{cert: {plain}, key: {plain}, cacert: {plain}, ca.crl: {plain}}}",
        "generic-no-base64": f"data: {{cert: {encoded}, key: {encoded}, cacert: [{encoded}], ca.crl: {encoded}}}",
        "named-like-fields": f"data: {{certificate: {encoded}, private_key: {encoded}, generic_key: [{encoded}]}}",
        "twice": f"stringData: {{tls.crt: {plain}, tls.key: {plain}}}",
        "type": f"type: {encoded}, data: {encoded}, stringData: [{encoded}]",
        "labels": f"type: 1, metadata: {{name: labels, labels: [{encoded}], annotations: {{a: {encoded}}}}}",
    }
    not_read = ("type", "named-like-fields", "generic-no-base64")
    for name, rest in wrong.items():
        head = "" if "metadata" in rest else f"metadata: {{name: {name}, namespace: demo}}, "
        controller.write(f"{name}.yaml", f"{{apiVersion: v1, kind: Secret, {head}{rest}}}")
    controller.write("elsewhere.yaml", text_of("v1", "Service", "key", f"spec: {plain}"))
    controller.write("bare.yaml", plain)
    controller.write("a.yaml", secret_text("a", Credentials("nonsense", pair.key)))
    for name in (*(each for each in wrong if each not in not_read), "elsewhere", "bare", "a"):
        controller.wait_for_log(f"{name}.yaml")
    with run_gateway(controller, tmp_path, "web") as envoy:
        assert wait_for(lambda: NAME in envoy.fetch("/config_dump"), PATIENCE_SECONDS)
        shown = {
            **{page: controller.fetch(page) for page in PAGES},
            "dump": run("controller", "dump", "-", "--controller", controller.address("admin")),
            "config": run(
                "controller", "config", "demo/web", "--controller", controller.address("admin"), "-o", "yaml"
            ),
            "log": "".join(controller.log),
            "get": run("get", "--controller", controller.address("admin"), "-o", "json"),
            "analyze": run("analyze", "-f", str(controller.config), "-o", "json"),
            "envoy": envoy.fetch("/config_dump?include_eds") + envoy.fetch("/certs") + envoy.log_file.read_text(),
            **{path.name: path.read_text() for path in controller.state.rglob("*") if path.is_file()},
        }
    assert '"earlier_form_serves": true' in shown["/debug/state"], "of the Secret whose present form is refused"
    assert '"name": "type"' in shown["dump"], "the Secret is there, by its name"
    assert "type: Secret" in shown["config"]
    for place, text in shown.items():
        assert mark not in text, place
        assert body[60:80] not in text, place  # behind what all keys begin with
        assert encoded[-40:-20] not in text, place


def run(*arguments: str) -> str:
    """What a command prints."""
    return CliRunner().invoke(app, arguments).output
