"""What an Envoy needs to know before it can ask the controller for the rest: who it is, where and how to ask."""

import json
from dataclasses import dataclass
from pathlib import Path

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Document = dict[str, Json]

GATEWAY_LABEL = "gateway.networking.k8s.io/gateway-name"
ADMIN_PORT = 15000
"""Istio's."""


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
    admin_port: int = ADMIN_PORT


def build_gateway_bootstrap(proxy: GatewayProxy, access: ControllerAccess) -> str:
    """The file for `envoy -c`. It names the token's file, and holds no secret itself."""
    ads: Document = {"ads": {}, "resource_api_version": "V3"}
    labels: Document = {GATEWAY_LABEL: proxy.gateway}
    document: Document = {
        "node": {
            "id": f"router~{proxy.node}~{proxy.name}.{proxy.namespace}~{proxy.namespace}.svc.cluster.local",
            "cluster": f"{proxy.gateway}.{proxy.namespace}",
            "metadata": {"NAMESPACE": proxy.namespace, "NODE_NAME": proxy.node, "LABELS": labels},
        },
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": proxy.admin_port}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [_build_service(access)],
            },
            "lds_config": ads,
            "cds_config": ads,
        },
    }
    return json.dumps(document, indent=2) + "\n"


def build_grpc_bootstrap(address: str, namespace: str, name: str) -> str:
    """The file that GRPC_XDS_BOOTSTRAP names, for a client on the controller's machine.

    gRPC's client can show no token of ours, so that `address` is that of AMBIT_LOCAL_LISTEN.
    """
    server: Document = {
        "server_uri": address,
        "channel_creds": [{"type": "insecure"}],
        "server_features": ["xds_v3"],
    }
    identity = f"sidecar~127.0.0.1~{name}.{namespace}~{namespace}.svc.cluster.local"
    node: Document = {"id": identity, "metadata": {"NAMESPACE": namespace}}
    document: Document = {"xds_servers": [server], "node": node}
    return json.dumps(document, indent=2) + "\n"


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
