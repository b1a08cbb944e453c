"""How connections are carried: the part of the settings that goes to the data plane as one value (ztunnel.md 9.1)."""

from collections.abc import Mapping

from dataplane import TrafficSettings
from mesh.kit.errors import InvalidInputError
from mesh.ports import DNS_CAPTURE_PORT, ZTUNNEL_MARK
from ztunnel.values import read_number, read_seconds, read_switch

# Bounds of HTTP/2 (RFC 9113, 6.5.2 and 6.9.1). A connection's window starts at 65,535 and cannot be lowered.
_WINDOWS = range(65_535, 1 << 31)
_FRAMES = range(16_384, 1 << 24)
# The kernel keeps them in 16 bits of seconds and 8 of probes (tcp(7), MAX_TCP_KEEPIDLE and MAX_TCP_KEEPCNT).
_KEEPALIVE_SECONDS_MAX = 32_767.0
_KEEPALIVE_RETRIES = range(1, 128)


def read_traffic_settings(env: Mapping[str, str], workers: int) -> TrafficSettings:
    """The traffic's settings from `env`, for so many workers. Raises InvalidInputError naming the variable."""
    port_reuse = read_switch(env, "INPOD_PORT_REUSE", True)
    if workers > 1 and not port_reuse:
        raise InvalidInputError(
            f"INPOD_PORT_REUSE=false allows one listener a port, and {workers} workers need one each; "
            "set ZTUNNEL_WORKER_THREADS=1"
        )
    if env.get("PROXY_MODE", "shared") != "shared":
        raise InvalidInputError(
            f"PROXY_MODE={env['PROXY_MODE']!r} is not supported: one ztunnel serves all pods of a node (shared)"
        )
    return TrafficSettings(
        packet_mark=read_number(env, "PACKET_MARK", ZTUNNEL_MARK, range(1, 1 << 32)),
        ipv6=read_switch(env, "IPV6_ENABLED", True),
        port_reuse=port_reuse,
        original_source=read_switch(env, "ENABLE_ORIG_SRC", True) if "ENABLE_ORIG_SRC" in env else None,
        keepalive=_read_keepalive(env) if read_switch(env, "KEEPALIVE_ENABLED", True) else None,
        user_timeout=read_switch(env, "USER_TIMEOUT_ENABLED", False),
        streams_per_tunnel=read_number(env, "POOL_MAX_STREAMS_PER_CONNECTION", 100, range(1, 1 << 16)),
        unused_release_seconds=read_seconds(env, "POOL_UNUSED_RELEASE_TIMEOUT", 300.0),
        stream_window=read_number(env, "HTTP2_STREAM_WINDOW_SIZE", 4 << 20, _WINDOWS),
        connection_window=read_number(env, "HTTP2_CONNECTION_WINDOW_SIZE", 16 << 20, _WINDOWS),
        frame_size=read_number(env, "HTTP2_FRAME_SIZE", 1 << 20, _FRAMES),
        baggage=read_switch(env, "ENABLE_RESPONSE_BAGGAGE", True),
        localhost_application_tunnel=read_switch(env, "LOCALHOST_APP_TUNNEL", True),
        node_local=read_switch(env, "AMBIT_NODE_LOCAL", True),
        busy_poll=read_switch(env, "AMBIT_BUSY_POLL", True),
        socks5=read_switch(env, "UNSTABLE_ENABLE_SOCKS5", False),
        dns=_read_dns(env),
    )


def serves_dns(env: Mapping[str, str]) -> bool:
    """Whether pods' DNS is served (ztunnel.md 7)."""
    return env.get("ISTIO_META_DNS_CAPTURE", "true").strip().lower() == "true"


def _read_dns(env: Mapping[str, str]) -> tuple[str, str, str, str | None] | None:
    """Where pods' DNS is served, the name servers' file, the cluster's domain, and the namespace that breaks ties."""
    if not serves_dns(env):
        return None
    address = env.get("ISTIO_META_DNS_PROXY_ADDR", "") or f"localhost:{DNS_CAPTURE_PORT}"
    return (
        address,
        env.get("DNS_RESOLV_CONF", "") or "/etc/resolv.conf",
        (env.get("CLUSTER_DOMAIN", "") or "cluster.local").strip(".").lower(),
        env.get("PREFERED_SERVICE_NAMESPACE", "") or None,
    )


def _read_keepalive(env: Mapping[str, str]) -> tuple[float, float, int]:
    names = ("KEEPALIVE_TIME", "KEEPALIVE_INTERVAL")
    time, interval = (read_seconds(env, name, 180.0) for name in names)
    for name, seconds in zip(names, (time, interval), strict=True):
        if not 1.0 <= seconds <= _KEEPALIVE_SECONDS_MAX:
            raise InvalidInputError(f"{name}={env[name]!r} is not between 1s and {_KEEPALIVE_SECONDS_MAX:.0f}s")
    return time, interval, read_number(env, "KEEPALIVE_RETRIES", 9, _KEEPALIVE_RETRIES)
