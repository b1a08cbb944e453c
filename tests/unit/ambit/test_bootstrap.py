"""What Envoy and gRPC's client are told before they can ask."""

import json
from pathlib import Path

import pytest

from ambit.bootstrap import (
    ControllerAccess,
    GatewayProxy,
    IngressProxy,
    InvalidAddressError,
    InvalidLabelError,
    SidecarProxy,
    UnusableTokenError,
    build_gateway_bootstrap,
    build_grpc_bootstrap,
    build_ingress_bootstrap,
    build_sidecar_bootstrap,
)

GATEWAY = GatewayProxy("shop", "web", "node-1")


def access(folder: Path, token: str = "of-node-1", address: str = "192.0.2.1:15012") -> ControllerAccess:
    path = folder / "token"
    path.write_text(token)
    return ControllerAccess(address, folder / "root.pem", path)


def test_a_gateways_bootstrap_names_the_tokens_file_and_not_the_token(tmp_path: Path) -> None:
    text = build_gateway_bootstrap(GATEWAY, access(tmp_path))
    assert "of-node-1" not in text
    assert str(tmp_path / "token") in text
    node = json.loads(text)["node"]
    assert node["metadata"]["LABELS"] == {"gateway.networking.k8s.io/gateway-name": "web"}
    assert (node["metadata"]["NAMESPACE"], node["metadata"]["NODE_NAME"]) == ("shop", "node-1")


def test_an_ingress_gateway_has_the_labels_that_it_is_selected_by(tmp_path: Path) -> None:
    labels = {"app": "istio-ingressgateway", "istio": "ingressgateway"}
    document = build_ingress_bootstrap(IngressProxy("istio-system", "edge", "node-1", labels), access(tmp_path))
    node = json.loads(document)["node"]
    assert node["id"].startswith("router~")
    assert node["metadata"] == {"NAMESPACE": "istio-system", "NODE_NAME": "node-1", "LABELS": labels}


@pytest.mark.parametrize("label", [("istio", ""), ("", "x"), ("gateway.networking.k8s.io/gateway-name", "web")])
def test_what_can_be_no_label_of_an_ingress_gateway_is_refused(tmp_path: Path, label: tuple[str, str]) -> None:
    with pytest.raises(InvalidLabelError):
        build_ingress_bootstrap(IngressProxy("istio-system", "edge", "node-1", dict([label])), access(tmp_path))


@pytest.mark.parametrize("token", ["secret\n", " secret", "", "\n"])
def test_a_token_that_envoy_could_not_send_is_refused(tmp_path: Path, token: str) -> None:
    with pytest.raises(UnusableTokenError, match=str(tmp_path / "token")):
        build_gateway_bootstrap(GATEWAY, access(tmp_path, token))


def test_a_token_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnusableTokenError, match="nowhere"):
        build_gateway_bootstrap(GATEWAY, ControllerAccess("192.0.2.1:15012", tmp_path, tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("address", "host", "kind", "san"),
    [
        ("192.0.2.1:15012", "192.0.2.1", "STATIC", "IP_ADDRESS"),
        ("[2001:db8::1]:15012", "2001:db8::1", "STATIC", "IP_ADDRESS"),
        ("controller.test:15012", "controller.test", "STRICT_DNS", "DNS"),
    ],
)
def test_a_sidecar_trusts_the_controller_by_its_address(
    tmp_path: Path, address: str, host: str, kind: str, san: str
) -> None:
    document = json.loads(
        build_sidecar_bootstrap(SidecarProxy("shop", "web-1", "node-1"), access(tmp_path, "of-node-1\n", address))
    )
    [cluster] = document["static_resources"]["clusters"]
    assert cluster["type"] == kind
    context = cluster["transport_socket"]["typed_config"]["common_tls_context"]["validation_context"]
    assert context["match_typed_subject_alt_names"] == [{"san_type": san, "matcher": {"exact": host}}]
    [service] = document["dynamic_resources"]["ads_config"]["grpc_services"]
    assert service["initial_metadata"] == [{"key": "authorization", "value": "Bearer of-node-1"}]


@pytest.mark.parametrize("address", ["controller", ":15012", "controller:port", "192.0.2.1:0", "192.0.2.1:70000"])
def test_what_is_no_address_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(InvalidAddressError, match="HOST:PORT"):
        build_gateway_bootstrap(GATEWAY, access(tmp_path, address=address))
    with pytest.raises(InvalidAddressError, match="HOST:PORT"):
        build_sidecar_bootstrap(SidecarProxy("shop", "web-1", "node-1"), access(tmp_path, address=address))
    with pytest.raises(InvalidAddressError, match="HOST:PORT"):
        build_grpc_bootstrap(address, "shop", "client")


def test_grpc_is_told_where_the_controller_is() -> None:
    [server] = json.loads(build_grpc_bootstrap("127.0.0.1:15010", "shop", "client"))["xds_servers"]
    assert server["server_uri"] == "127.0.0.1:15010"
