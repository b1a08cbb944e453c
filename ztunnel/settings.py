"""The process's settings, read once from the environment. Names and defaults are Istio's (ztunnel.md 9.1)."""

import os
from collections.abc import Mapping

from dataplane import ControlPlane, ZtunnelSettings
from mesh.kit.errors import InvalidInputError
from mesh.ports import ZTUNNEL_ADMIN_PORT, ZTUNNEL_METRICS_PORT, ZTUNNEL_READINESS_PORT
from ztunnel.security import read_security_settings
from ztunnel.traffic import read_traffic_settings, serves_dns
from ztunnel.values import read_number, read_seconds, read_switch

DEFAULT_CONTROLLER = "https://istiod.istio-system.svc:15012"
DEFAULT_ROOT_CA = "./var/run/secrets/istio/root-cert.pem"
DEFAULT_TOKEN = "./var/run/secrets/tokens/istio-token"
# A quarter of the node's cores carries the mesh of an ordinary node; one core moves some 8 Gbit/s.
CORES_PER_WORKER = 4


class Settings:
    """What `app` needs besides the data plane's own settings."""

    __slots__ = ("dataplane", "drain_seconds", "enrolment_socket", "handover_socket", "log", "own_pod")

    def __init__(
        self,
        dataplane: ZtunnelSettings,
        enrolment_socket: str,
        handover_socket: str,
        own_pod: tuple[str, str, str] | None,
        drain_seconds: float,
        log: tuple[str, str],
    ) -> None:
        self.dataplane = dataplane
        self.enrolment_socket = enrolment_socket
        self.handover_socket = handover_socket
        self.own_pod = own_pod
        self.drain_seconds = drain_seconds
        self.log = log


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from `environment` (the process's own when None). Raises InvalidInputError naming the variable."""
    env = os.environ if environment is None else environment
    cluster_id = env.get("CLUSTER_ID", "Kubernetes")
    workers = _positive(env, "ZTUNNEL_WORKER_THREADS", max(1, (os.cpu_count() or 1) // CORES_PER_WORKER))
    enrolment_socket = env.get("INPOD_UDS", "/var/run/ztunnel/ztunnel.sock")
    return Settings(
        dataplane=ZtunnelSettings(
            node_name=env.get("NODE_NAME", ""),
            cluster_id=cluster_id,
            network=env.get("NETWORK", ""),
            node_id=build_node_id(env),
            node_metadata=build_node_metadata(env, cluster_id),
            discovery=_control_plane(env, "XDS", cluster_id),
            on_demand=read_on_demand(env),
            authority=_control_plane(env, "CA", cluster_id),
            workers=workers,
            traffic=read_traffic_settings(env, workers),
            security=read_security_settings(env),
            admin_port=ZTUNNEL_ADMIN_PORT,
            stats_port=ZTUNNEL_METRICS_PORT,
            readiness_port=ZTUNNEL_READINESS_PORT,
        ),
        enrolment_socket=enrolment_socket,
        # Beside the other: what all ztunnels of a node share.
        handover_socket=env.get("AMBIT_HANDOVER_UDS", os.path.join(os.path.dirname(enrolment_socket), "handover.sock")),
        own_pod=read_own_pod(env),
        drain_seconds=read_drain_seconds(env),
        # The native module says what is wrong with them.
        log=(env.get("RUST_LOG", "info"), env.get("LOG_FORMAT", "plain")),
    )


def read_drain_seconds(env: Mapping[str, str]) -> float:
    """How long connections may go on once the process is told to end; a little less than Kubernetes leaves it when only
    that is known (ztunnel.md 9.1)."""
    if "CONNECTION_TERMINATION_DEADLINE" in env or "TERMINATION_GRACE_PERIOD_SECONDS" not in env:
        return read_seconds(env, "CONNECTION_TERMINATION_DEADLINE", 5.0)
    grace = read_number(env, "TERMINATION_GRACE_PERIOD_SECONDS", 30, range(1, 1 << 31))
    return float(max(1, grace - (5 if grace > 10 else 1)))


def build_node_id(env: Mapping[str, str]) -> str:
    """The id by which istiod and Ambit's controller know a ztunnel (ztunnel.md 4.2)."""
    namespace = env.get("POD_NAMESPACE", "")
    address = env.get("INSTANCE_IP", "1.1.1.1")
    return f"ztunnel~{address}~{env.get('POD_NAME', '')}.{namespace}~{namespace}.svc.cluster.local"


def read_on_demand(env: Mapping[str, str]) -> bool:
    """Whether the mesh is discovered on demand; then there is no DNS proxy, which has to know all names (4.3, 7)."""
    on_demand = read_switch(env, "XDS_ON_DEMAND", False)
    if on_demand and serves_dns(env):
        raise InvalidInputError(
            "XDS_ON_DEMAND=true and the DNS proxy exclude each other, because names that were not asked for are not "
            "known; set ISTIO_META_DNS_CAPTURE=false here, and AMBIENT_DNS_CAPTURE=false at the node agent"
        )
    return on_demand


def read_own_pod(env: Mapping[str, str]) -> tuple[str, str, str] | None:
    """Namespace, name and service account of ztunnel's own pod, when all are known (ztunnel.md 6.8)."""
    namespace, name, account = (env.get(key, "") for key in ("POD_NAMESPACE", "POD_NAME", "SERVICE_ACCOUNT"))
    return (namespace, name, account) if namespace and name and account else None


def build_node_metadata(env: Mapping[str, str], cluster_id: str) -> dict[str, str]:
    """The node's metadata; `ISTIO_META_<KEY>` adds to it (ztunnel.md 4.2)."""
    metadata = {
        "NAME": env.get("POD_NAME", ""),
        "NAMESPACE": env.get("POD_NAMESPACE", ""),
        "INSTANCE_IPS": env.get("INSTANCE_IP", "1.1.1.1"),
        "NODE_NAME": env.get("NODE_NAME", ""),
        "CLUSTER_ID": cluster_id,
    }
    prefix = "ISTIO_META_"
    metadata.update({key[len(prefix) :]: value for key, value in env.items() if key.startswith(prefix)})
    return metadata


def _control_plane(env: Mapping[str, str], kind: str, cluster_id: str) -> ControlPlane:
    token = env.get("AUTH_TOKEN", DEFAULT_TOKEN)
    return ControlPlane(
        address=env.get(f"{kind}_ADDRESS", DEFAULT_CONTROLLER),
        root_ca=env.get(f"{kind}_ROOT_CA", DEFAULT_ROOT_CA),
        server_name=env.get(f"ALT_{kind}_HOSTNAME"),
        token=token if os.path.exists(token) else None,
        cluster_id=cluster_id,
    )


def _positive(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name)
    if text is None:
        return default
    if not text.isdigit() or int(text) < 1:
        raise InvalidInputError(f"{name}={text!r} is not a number of threads; write 1 or more")
    return int(text)
