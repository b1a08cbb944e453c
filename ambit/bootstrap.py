"""What an Envoy needs to know before it can ask the controller for the rest: who it is, where and how to ask."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from controller.kinds.gateway_api import GATEWAY_LABEL
from controller.kinds.hosts import is_ip
from mesh import ports
from mesh.kit.errors import InvalidInputError

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Document = dict[str, Json]

_CONTROLLER = "controller"
# Of Linux, on every processor that Envoy runs on.
_SOL_SOCKET, _SO_MARK = 1, 36


class InvalidAddressError(InvalidInputError):
    """What should be the controller's address is none."""

    reason = "invalid_address"


class InvalidLabelError(InvalidInputError):
    """What should be a label of a proxy is none."""

    reason = "invalid_label"


class UnusableTokenError(InvalidInputError):
    """A token's file is not what Envoy could send."""

    reason = "unusable_token"


@dataclass(frozen=True, slots=True)
class ControllerAccess:
    """Where the controller is (`host:port`), the file of its root certificate, and that of a node's token."""

    address: str
    root_certificate: Path
    token: Path


@dataclass(frozen=True, slots=True)
class GatewayProxy:
    """One Envoy of a Gateway, on a node."""

    namespace: str
    gateway: str
    node: str
    name: str = "gateway"
    admin_port: int = ports.ENVOY_ADMIN_PORT


@dataclass(frozen=True, slots=True)
class IngressProxy:
    """One Envoy of an ingress gateway, on a node. Its labels are what the selectors of Istio's Gateways pick it by."""

    namespace: str
    name: str
    node: str
    labels: Mapping[str, str]
    admin_port: int = ports.ENVOY_ADMIN_PORT


@dataclass(frozen=True, slots=True)
class SidecarProxy:
    """An Envoy beside an application, in its pod."""

    namespace: str
    name: str
    node: str
    admin_port: int = ports.ENVOY_ADMIN_PORT


def build_gateway_bootstrap(proxy: GatewayProxy, access: ControllerAccess) -> str:
    """The file for `envoy -c`. It names the token's file, and holds no secret itself.

    Raises UnusableTokenError, because Envoy sends the file as it is, and InvalidAddressError.
    """
    labels = {GATEWAY_LABEL: proxy.gateway}
    ingress = IngressProxy(proxy.namespace, proxy.name, proxy.node, labels, proxy.admin_port)
    return _build_router_bootstrap(ingress, proxy.gateway, access)


def build_ingress_bootstrap(proxy: IngressProxy, access: ControllerAccess) -> str:
    """The same for an ingress gateway. Raises as above, and InvalidLabelError."""
    for key, value in proxy.labels.items():
        if not (key and value):
            raise InvalidLabelError(f"{key}={value} is no label: write KEY=VALUE, as in istio=ingressgateway")
        if key == GATEWAY_LABEL:
            raise InvalidLabelError(f"{key} says whose proxy of Gateway API it is: `ambit bootstrap gateway {value}`")
    return _build_router_bootstrap(proxy, proxy.name, access)


def _build_router_bootstrap(proxy: IngressProxy, cluster: str, access: ControllerAccess) -> str:
    _parse_address(access.address)
    _check_token(access.token)
    node: Document = {
        "id": f"router~{proxy.node}~{proxy.name}.{proxy.namespace}~{proxy.namespace}.svc.cluster.local",
        "cluster": f"{cluster}.{proxy.namespace}",
        "metadata": {"NAMESPACE": proxy.namespace, "NODE_NAME": proxy.node, "LABELS": dict(proxy.labels)},
    }
    return _write(_build_bootstrap(node, proxy.admin_port, _build_service(access)))


def build_sidecar_bootstrap(proxy: SidecarProxy, access: ControllerAccess) -> str:
    """The file for the `envoy -c` of a sidecar. It holds the token: keep it from others (mode 0600).

    Its sockets carry ztunnel's mark, so that the pod's redirect rules pass them by: that takes CAP_NET_ADMIN. So does
    its way to the controller, and hence Envoy's own gRPC, which cannot read a token from a file. Raises as above.
    """
    host, port = _parse_address(access.address)
    node: Document = {
        "id": f"sidecar~{proxy.node}~{proxy.name}.{proxy.namespace}~{proxy.namespace}.svc.cluster.local",
        "cluster": f"{proxy.name}.{proxy.namespace}",
        "metadata": {"NAMESPACE": proxy.namespace, "NODE_NAME": proxy.node},
    }
    mark: Document = {"level": _SOL_SOCKET, "name": _SO_MARK, "int_value": ports.ZTUNNEL_MARK}
    header: Document = {"key": "authorization", "value": f"Bearer {_read_token(access.token).strip()}"}
    service: Document = {"envoy_grpc": {"cluster_name": _CONTROLLER}, "initial_metadata": [header]}
    return _write(
        {
            **_build_bootstrap(node, proxy.admin_port, service),
            "cluster_manager": {"upstream_bind_config": {"socket_options": [mark]}},
            "static_resources": {"clusters": [_build_controller_cluster(host, port, access.root_certificate)]},
        }
    )


def _build_bootstrap(node: Document, admin_port: int, service: Document) -> Document:
    """What every Envoy of ours has: everything else it is told over one stream."""
    ads: Document = {"ads": {}, "resource_api_version": "V3"}
    stream: Document = {"api_type": "DELTA_GRPC", "transport_api_version": "V3", "grpc_services": [service]}
    return {
        "node": node,
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin_port}}},
        "dynamic_resources": {"ads_config": stream, "lds_config": ads, "cds_config": ads},
    }


def _write(document: Document) -> str:
    return json.dumps(document, indent=2) + "\n"


def _parse_address(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and 0 < int(port[:6]) <= 65535):
        raise InvalidAddressError(
            f"{address!r} is not HOST:PORT, as in 192.0.2.1:15012: write the controller's address"
        )
    return host.removeprefix("[").removesuffix("]"), int(port)


def _build_controller_cluster(host: str, port: int, root_certificate: Path) -> Document:
    expected: Document = {"san_type": "IP_ADDRESS" if is_ip(host) else "DNS", "matcher": {"exact": host}}
    tls: Document = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": host,
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
            "validation_context": {
                "trusted_ca": {"filename": str(root_certificate)},
                "match_typed_subject_alt_names": [expected],
            },
            "alpn_protocols": ["h2"],
        },
    }
    options: Document = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {
            "http2_protocol_options": {"connection_keepalive": {"interval": "30s", "timeout": "10s"}}
        },
    }
    address: Document = {"socket_address": {"address": host, "port_value": port}}
    endpoints: list[Json] = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {
        "name": _CONTROLLER,
        "type": "STATIC" if is_ip(host) else "STRICT_DNS",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": _CONTROLLER, "endpoints": endpoints},
        "transport_socket": {"name": "tls", "typed_config": tls},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
    }


def build_grpc_bootstrap(address: str, namespace: str, name: str, node: str = "") -> str:
    """The file that GRPC_XDS_BOOTSTRAP names, for a client on the controller's machine.

    gRPC's client can show no token of ours, so that `address` is that of AMBIT_LOCAL_LISTEN. What is near to it is what
    is near to `node`; without one that is nothing.
    """
    _parse_address(address)
    server: Document = {
        "server_uri": address,
        "channel_creds": [{"type": "insecure"}],
        "server_features": ["xds_v3"],
    }
    identity = f"sidecar~127.0.0.1~{name}.{namespace}~{namespace}.svc.cluster.local"
    metadata: Document = {"NAMESPACE": namespace}
    if node:
        metadata["NODE_NAME"] = node
    return _write({"xds_servers": [server], "node": {"id": identity, "metadata": metadata}})


def _check_token(path: Path) -> None:
    text = _read_token(path)
    if text != text.strip():
        raise UnusableTokenError(
            f"{path} has blanks or a line break around the token, which Envoy would send: "
            f'printf %s "$(cat {path})" > {path}.new && mv {path}.new {path}'
        )


def _read_token(path: Path) -> str:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableTokenError(f"cannot read the token of {path}: {error}") from error
    if not text.strip():
        raise UnusableTokenError(f"{path} is empty: `ambit token create NODE` makes a token")
    return text


def _build_service(access: ControllerAccess) -> Document:
    """Google's gRPC, which reads the token from its file: Envoy's own would have it in the bootstrap."""
    reader: Document = {
        "@type": "type.googleapis.com/envoy.config.grpc_credential.v3.FileBasedMetadataConfig",
        "secret_data": {"filename": str(access.token)},
        "header_key": "authorization",
        "header_prefix": "Bearer ",
    }
    plugin: Document = {"name": "envoy.grpc_credentials.file_based_metadata", "typed_config": reader}
    return {
        "google_grpc": {
            "target_uri": access.address,
            "stat_prefix": "controller",
            "channel_credentials": {"ssl_credentials": {"root_certs": {"filename": str(access.root_certificate)}}},
            "call_credentials": [{"from_plugin": plugin}],
            "credentials_factory_name": "envoy.grpc_credentials.file_based_metadata",
            "channel_args": {"args": {"grpc.keepalive_time_ms": {"int_value": 30000}}},
        }
    }
