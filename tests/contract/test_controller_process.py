"""The real controller, spoken to over real TLS: what an agent and an operator see of it."""

import json
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from mesh.wire import workload_pb2 as pb
from tests.support.controller_process import (
    ADDRESS,
    AUTHORIZATION,
    ControllerProcess,
    DeltaStream,
    addresses_of,
    authorizations_of,
    build_csr,
    create_certificate,
)

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: demo}
spec:
  clusterIPs: [192.0.2.10, "2001:db8::10"]
  selector: {app: echo}
  ports: [{name: http, port: 80, targetPort: web}]
"""
POD = """
apiVersion: v1
kind: Pod
metadata:
  name: echo-1
  namespace: demo
  labels: {app: echo}
  annotations: {ambient.istio.io/redirection: enabled}
spec:
  nodeName: node-1
  serviceAccountName: echo
  containers: [{name: echo, image: none, ports: [{name: web, containerPort: 8080}]}]
status:
  phase: Running
  podIP: 198.51.100.5
  podIPs: [{ip: 198.51.100.5}, {ip: "2001:db8:1::5"}]
  conditions: [{type: Ready, status: "True"}]
"""
DENY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-client, namespace: demo}
spec:
  selector: {matchLabels: {app: echo}}
  action: DENY
  rules: [{from: [{source: {principals: [cluster.local/ns/demo/sa/client]}}]}]
"""
POD_NAME = "Kubernetes//Pod/demo/echo-1"
SERVICE_NAME = "demo/echo.demo.svc.cluster.local"
IDENTITY = "spiffe://cluster.local/ns/demo/sa/echo"


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[ControllerProcess]:
    with ControllerProcess(tmp_path) as process:
        process.write("service.yaml", SERVICE)
        process.write("pod.yaml", POD)
        yield process.start()


@pytest.fixture
def channel(controller: ControllerProcess) -> Iterator[grpc.Channel]:
    with closing(controller.connect()) as made:
        yield made


def subscribe(channel: grpc.Channel) -> DeltaStream:
    stream = DeltaStream(channel, "token-1")
    stream.send(ADDRESS)
    stream.send(AUTHORIZATION)
    return stream


def test_agent_gets_everything_then_each_change_within_a_second(
    controller: ControllerProcess, channel: grpc.Channel
) -> None:
    with closing(subscribe(channel)) as stream:
        assert authorizations_of(stream.receive_and_acknowledge()) == {}
        first = addresses_of(stream.receive_and_acknowledge())
        assert set(first) == {POD_NAME, SERVICE_NAME}
        workload = first[POD_NAME].workload
        assert workload.tunnel_protocol == pb.HBONE
        assert workload.services[SERVICE_NAME].ports == [
            pb.Port(service_port=80, target_port=8080, app_protocol=pb.HTTP11)
        ]

        started = time.monotonic()
        controller.write("deny.yaml", DENY)
        policies = authorizations_of(stream.receive_and_acknowledge())
        changed = addresses_of(stream.receive_and_acknowledge())
        assert time.monotonic() - started < 1
        assert set(policies) == {"demo/no-client"}
        assert set(changed) == {POD_NAME}
        assert changed[POD_NAME].workload.authorization_policies == ["demo/no-client"]

        controller.remove("deny.yaml")
        assert addresses_of(stream.receive_and_acknowledge())[POD_NAME].workload.authorization_policies == []
        gone = stream.receive_and_acknowledge()
        assert (gone.type_url, list(gone.removed_resources)) == (AUTHORIZATION, ["demo/no-client"])

        controller.remove("pod.yaml")
        assert list(stream.receive_and_acknowledge().removed_resources) == [POD_NAME]


def test_what_is_invalid_is_refused_and_its_last_valid_form_goes_on_serving(
    controller: ControllerProcess, channel: grpc.Channel
) -> None:
    controller.write("deny.yaml", DENY)
    controller.wait_for_log("configuration applied version=2")
    with closing(subscribe(channel)) as stream:
        stream.receive_and_acknowledge()
        stream.receive_and_acknowledge()
        controller.write("deny.yaml", DENY.replace("principals", "principles"))
        line = controller.wait_for_log("configuration refused")
        assert "deny.yaml line=8 " in line
        assert "path=spec.rules[0].from[0].source.principles reason=unknown_field" in line
        assert "earlier_form_serves=true" in line

        controller.write("service.yaml", SERVICE.replace("port: 80", "port: 8080"))
        response = stream.receive_and_acknowledge()
        assert set(addresses_of(response)) == {POD_NAME, SERVICE_NAME}
        assert addresses_of(response)[POD_NAME].workload.authorization_policies == ["demo/no-client"]
        assert not response.removed_resources

    problems = json.loads(controller.fetch("/debug/state"))["problems"]
    assert [(each["line"], each["path"]) for each in problems] == [(8, "spec.rules[0].from[0].source.principles")]
    assert 'ambit_config_problems{reason="unknown_field"} 1' in controller.fetch("/metrics")
    controller.write("deny.yaml", DENY)
    controller.wait_for_log("configuration has no problems any more")


def test_restart_keeps_the_root_and_a_returning_agent_gets_nothing_again(controller: ControllerProcess) -> None:
    root = (controller.state / "root-cert.pem").read_bytes()
    with closing(controller.connect()) as channel, closing(subscribe(channel)) as stream:
        stream.receive_and_acknowledge()
        versions = {each.name: each.version for each in stream.receive_and_acknowledge().resources}
    assert controller.stop() == 0
    controller.start()
    assert (controller.state / "root-cert.pem").read_bytes() == root
    with closing(controller.connect()) as channel, closing(DeltaStream(channel, "token-1")) as stream:
        stream.send(ADDRESS, initial_resource_versions={**versions, "Kubernetes//Pod/demo/gone": "1"})
        stream.send(AUTHORIZATION)
        stream.receive_and_acknowledge()
        response = stream.receive_and_acknowledge()
        assert not response.resources
        assert list(response.removed_resources) == ["Kubernetes//Pod/demo/gone"]


def test_restart_while_a_policy_is_invalid_keeps_its_last_valid_form(controller: ControllerProcess) -> None:
    controller.write("deny.yaml", DENY)
    controller.wait_for_log("configuration applied version=2")
    controller.write("deny.yaml", DENY.replace("principals", "principles"))
    controller.wait_for_log("configuration refused")
    assert controller.stop() == 0
    controller.start()
    with closing(controller.connect()) as channel, closing(subscribe(channel)) as stream:
        policies = authorizations_of(stream.receive_and_acknowledge())
        assert policies["demo/no-client"].rules[0].clauses[0].matches[0].principals[0].exact


def test_refused_response_is_logged_counted_and_not_repeated(
    controller: ControllerProcess, channel: grpc.Channel
) -> None:
    with closing(subscribe(channel)) as stream:
        stream.receive_and_acknowledge()
        stream.refuse(stream.receive(), "cannot decode")
        assert 'error="cannot decode"' in controller.wait_for_log("xds response refused by the client")
        controller.write("pod.yaml", POD.replace('"True"', '"False"'))
        assert set(addresses_of(stream.receive_and_acknowledge())) == {POD_NAME}
        client = json.loads(controller.fetch("/debug/state"))["clients"][0]
        assert (client["node"], client["types"][ADDRESS]["nacks"]) == ("node-1", 1)
        assert 'pilot_total_xds_rejects{type="Address"} 1' in controller.fetch("/metrics")


@pytest.mark.parametrize(
    ("token", "node", "status"),
    [
        pytest.param(None, "node-1", grpc.StatusCode.UNAUTHENTICATED, id="no-token"),
        pytest.param("wrong", "node-1", grpc.StatusCode.UNAUTHENTICATED, id="wrong-token"),
        pytest.param("token-2", "node-1", grpc.StatusCode.PERMISSION_DENIED, id="another-nodes-token"),
    ],
)
def test_stream_without_the_nodes_own_token_is_refused(
    channel: grpc.Channel, token: str | None, node: str, status: grpc.StatusCode
) -> None:
    with closing(DeltaStream(channel, token, node)) as stream:
        stream.send(ADDRESS)
        with pytest.raises(grpc.RpcError) as refusal:
            stream.receive()
        assert refusal.value.code() == status


def test_withdrawn_token_ends_the_stream_at_the_next_change(
    controller: ControllerProcess, channel: grpc.Channel
) -> None:
    with closing(subscribe(channel)) as stream:
        stream.receive_and_acknowledge()
        stream.receive_and_acknowledge()
        controller.write_tokens({"node-2": "token-2"})
        controller.remove("pod.yaml")
        with pytest.raises(grpc.RpcError) as refusal:
            stream.receive()
        assert refusal.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_certificate_carries_the_identity_that_was_asked_for_and_nothing_of_the_request(
    controller: ControllerProcess, channel: grpc.Channel
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    answer = create_certificate(channel, "token-1", build_csr(key, "spiffe://cluster.local/ns/x/sa/admin"), IDENTITY)
    leaf, root = (x509.load_pem_x509_certificate(pem.encode()) for pem in answer.cert_chain)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert [name.value for name in names.value] == [IDENTITY]
    assert names.critical
    assert leaf.public_key() == key.public_key()
    leaf.verify_directly_issued_by(root)
    assert answer.cert_chain[-1].encode() == (controller.state / "root-cert.pem").read_bytes()
    now = datetime.now(UTC)
    assert leaf.not_valid_before_utc < now
    assert timedelta(hours=23) < leaf.not_valid_after_utc - now <= timedelta(hours=24)


@pytest.mark.parametrize(
    ("token", "identity", "seconds", "status"),
    [
        pytest.param("token-2", IDENTITY, 0, grpc.StatusCode.PERMISSION_DENIED, id="pod-on-another-node"),
        pytest.param("token-1", IDENTITY + "x", 0, grpc.StatusCode.PERMISSION_DENIED, id="no-such-pod"),
        pytest.param(
            "token-1", IDENTITY.replace("cluster", "other"), 0, grpc.StatusCode.PERMISSION_DENIED, id="trust-domain"
        ),
        pytest.param("token-1", "echo", 0, grpc.StatusCode.INVALID_ARGUMENT, id="no-identity"),
        pytest.param("token-1", IDENTITY, 91 * 86400, grpc.StatusCode.INVALID_ARGUMENT, id="too-long"),
        pytest.param("token-1", IDENTITY, 2**62, grpc.StatusCode.INVALID_ARGUMENT, id="absurdly-long"),
        pytest.param(None, IDENTITY, 0, grpc.StatusCode.UNAUTHENTICATED, id="no-token"),
        pytest.param("wrong", IDENTITY, 0, grpc.StatusCode.UNAUTHENTICATED, id="wrong-token"),
    ],
)
def test_certificate_that_the_node_may_not_have_is_refused(
    controller: ControllerProcess,
    channel: grpc.Channel,
    token: str | None,
    identity: str,
    seconds: int,
    status: grpc.StatusCode,
) -> None:
    csr = build_csr(ec.generate_private_key(ec.SECP256R1()), identity)
    with pytest.raises(grpc.RpcError) as refusal:
        create_certificate(channel, token, csr, identity, seconds)
    assert refusal.value.code() == status
    assert "certificate refused" in controller.wait_for_log("certificate refused")
    assert "citadel_server_success_cert_issuance_count 0" in controller.fetch("/metrics")


def test_root_key_is_for_its_owner_only_and_a_readable_one_is_refused(tmp_path: Path) -> None:
    with ControllerProcess(tmp_path) as controller:
        controller.start()
        key = controller.state / "root-key.pem"
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        assert controller.stop() == 0
        key.chmod(0o644)
        status, log = controller.run_to_end()
        assert status == 1
        assert "mode 0644" in log


def test_sigterm_ends_connected_streams_in_order(controller: ControllerProcess, channel: grpc.Channel) -> None:
    with closing(subscribe(channel)) as stream:
        stream.receive_and_acknowledge()
        stream.receive_and_acknowledge()
        assert controller.stop() == 0
        with pytest.raises(grpc.RpcError) as ending:
            stream.receive()
        assert ending.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "controller has stopped" in controller.log[-1]


def test_a_connection_ends_at_its_age_and_who_comes_back_with_versions_gets_nothing_again(
    controller: ControllerProcess,
) -> None:
    assert controller.stop() == 0
    controller.start(AMBIT_CONNECTION_MAX_AGE="1s")
    with closing(controller.connect()) as channel:
        versions: dict[str, str] = {}
        peers = set()
        for _ in range(3):
            started = time.monotonic()
            with closing(DeltaStream(channel, "token-1")) as stream:
                stream.send(AUTHORIZATION)
                stream.send(ADDRESS, initial_resource_versions=versions)
                stream.receive_and_acknowledge()
                response = stream.receive_and_acknowledge()
                assert set(addresses_of(response)) == (set() if versions else {POD_NAME, SERVICE_NAME})
                assert not response.removed_resources
                versions |= {each.name: each.version for each in response.resources}
                [client] = json.loads(controller.fetch("/debug/syncz"))
                peers.add(client["peer"])
                with pytest.raises(grpc.RpcError) as ending:
                    stream.receive()
            assert ending.value.code() == grpc.StatusCode.UNAVAILABLE
            assert 0.5 < time.monotonic() - started < 5
        assert len(peers) == 3, "each stream came over a connection of its own"
    assert not [line for line in controller.log if "Traceback" in line or "ERROR" in line]


def test_only_namespaces_that_selectors_mean_are_served(controller: ControllerProcess) -> None:
    namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: demo, labels: {mesh: LABEL}}}"
    assert controller.stop() == 0
    controller.write("namespace.yaml", namespace.replace("LABEL", "out"))
    controller.start(AMBIT_DISCOVERY_SELECTORS="[{matchLabels: {mesh: in}}]")
    with closing(controller.connect()) as channel, closing(subscribe(channel)) as stream:
        stream.receive_and_acknowledge()
        assert addresses_of(stream.receive_and_acknowledge()) == {}
        csr = build_csr(ec.generate_private_key(ec.SECP256R1()), IDENTITY)
        with pytest.raises(grpc.RpcError) as refusal:
            create_certificate(channel, "token-1", csr, IDENTITY)
        assert refusal.value.code() == grpc.StatusCode.PERMISSION_DENIED
        controller.write("namespace.yaml", namespace.replace("LABEL", "in"))
        assert set(addresses_of(stream.receive_and_acknowledge())) == {POD_NAME, SERVICE_NAME}
        assert create_certificate(channel, "token-1", csr, IDENTITY).cert_chain
        controller.remove("namespace.yaml")
        assert set(stream.receive_and_acknowledge().removed_resources) == {POD_NAME, SERVICE_NAME}
