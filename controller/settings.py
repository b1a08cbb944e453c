"""The controller's settings, from the environment. The only room that reads it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from controller.registry.names import DEFAULT_CLUSTER_ID, DEFAULT_ROOT_NAMESPACE, MeshSettings
from controller.serve.session import SessionLimits
from mesh.identity import DEFAULT_TRUST_DOMAIN, SpiffeIdentity
from mesh.kit.errors import InvalidInputError


class InvalidSettingError(InvalidInputError):
    """A variable of the environment is missing or malformed."""

    reason = "invalid_setting"


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where to listen. Port 0 lets the kernel choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Settings:
    """How one controller runs.

    config_dir        the watched directory of objects, or
    kubeconfig        whose API server is watched: a kubeconfig file, or `in-cluster`
    state_dir         root key and certificate; made if absent
    authority_dir     a certificate authority's four files, to sign with instead of a root of our own
    node_tokens       file of `NODE SHA256` lines: who may speak for which node. None with Kubernetes only
    node_accounts     service accounts (`NAMESPACE/NAME`) whose tokens, by Kubernetes, speak for the pod's node
    listen            TLS gRPC: xDS and the CA
    serving_names     DNS names and addresses of the serving certificate, besides those of `listen` and localhost
    local_listen      plaintext gRPC for this machine only: discovery without credentials. None listens nowhere
    webhook_listen    HTTPS: the admission webhook; with Kubernetes only
    admin             plaintext HTTP, for this machine only
    mesh              what is the same for the whole mesh
    limits            of the dialogue with one client
    drain_seconds     how long calls in flight may take to end after SIGTERM; certificates take milliseconds
    log_level         debug, info, warning or error
    """

    config_dir: Path | None
    kubeconfig: str
    state_dir: Path
    authority_dir: Path | None
    node_tokens: Path | None
    node_accounts: frozenset[str]
    listen: tuple[ListenAddress, ...]
    serving_names: tuple[str, ...]
    local_listen: ListenAddress | None
    webhook_listen: ListenAddress
    admin: ListenAddress
    mesh: MeshSettings
    limits: SessionLimits = field(default_factory=SessionLimits)
    drain_seconds: float = 2.0
    log_level: str = "info"


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from `environment`, the process's own by default. Raises InvalidSettingError."""
    given = os.environ if environment is None else environment
    directory, kubeconfig = given.get("AMBIT_CONFIG_DIR", ""), given.get("AMBIT_KUBECONFIG", "")
    if bool(directory) == bool(kubeconfig):
        found = "both are" if directory else "neither is"
        raise InvalidSettingError(
            f"AMBIT_CONFIG_DIR or AMBIT_KUBECONFIG must be set, and not both: {found}; objects come from one place"
        )
    return Settings(
        config_dir=Path(directory) if directory else None,
        kubeconfig=kubeconfig,
        state_dir=Path(_require(given, "AMBIT_STATE_DIR")),
        authority_dir=Path(given["AMBIT_CA_DIR"]) if given.get("AMBIT_CA_DIR") else None,
        node_tokens=_find_node_tokens(given, is_needed=not kubeconfig),
        node_accounts=frozenset(_split(given.get("CA_TRUSTED_NODE_ACCOUNTS") or "istio-system/ztunnel")),
        listen=tuple(
            _parse_listen("AMBIT_LISTEN", text) for text in _split(given.get("AMBIT_LISTEN") or "0.0.0.0:15012")
        ),
        serving_names=tuple(_split(given.get("AMBIT_SERVING_NAMES", ""))),
        local_listen=_parse_local("AMBIT_LOCAL_LISTEN", given.get("AMBIT_LOCAL_LISTEN", "")),
        webhook_listen=_parse_listen("AMBIT_WEBHOOK_LISTEN", given.get("AMBIT_WEBHOOK_LISTEN") or "0.0.0.0:15017"),
        admin=_parse_listen("AMBIT_ADMIN_LISTEN", given.get("AMBIT_ADMIN_LISTEN") or "127.0.0.1:15014"),
        mesh=MeshSettings(
            cluster_id=given.get("AMBIT_CLUSTER_ID") or DEFAULT_CLUSTER_ID,
            trust_domain=_parse_trust_domain(given.get("AMBIT_TRUST_DOMAIN") or DEFAULT_TRUST_DOMAIN),
            root_namespace=given.get("AMBIT_ROOT_NAMESPACE") or DEFAULT_ROOT_NAMESPACE,
            prefers_near=_parse_switch("AMBIT_LOCALITY_FAILOVER", given.get("AMBIT_LOCALITY_FAILOVER") or "true"),
        ),
        log_level=_parse_log_level(given.get("AMBIT_LOG_LEVEL") or "info"),
    )


def _require(given: Mapping[str, str], name: str) -> str:
    value = given.get(name)
    if not value:
        raise InvalidSettingError(f"{name} must be set")
    return value


def _find_node_tokens(given: Mapping[str, str], is_needed: bool) -> Path | None:
    text = _require(given, "AMBIT_NODE_TOKENS") if is_needed else given.get("AMBIT_NODE_TOKENS")
    return Path(text) if text else None


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _parse_listen(name: str, text: str) -> ListenAddress:
    host, separator, port = text.rpartition(":")
    if not (separator and host and port.isascii() and port.isdigit() and int(port[:6]) <= 65535):
        raise InvalidSettingError(f"{name}: {text!r} is not ADDRESS:PORT")
    return ListenAddress(host.removeprefix("[").removesuffix("]"), int(port))


def _parse_local(name: str, text: str) -> ListenAddress | None:
    if not text:
        return None
    address = _parse_listen(name, text)
    if not _is_loopback(address.host):
        raise InvalidSettingError(
            f"{name}: {text!r} is not on loopback, and asks nobody for credentials; write 127.0.0.1"
        )
    return address


def _is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _parse_trust_domain(text: str) -> str:
    return SpiffeIdentity(text, "default", "default").trust_domain


def _parse_switch(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise InvalidSettingError(f"{name}: {text!r} is neither true nor false")
    return text == "true"


def _parse_log_level(text: str) -> str:
    if text not in ("debug", "info", "warning", "error"):
        raise InvalidSettingError(f"AMBIT_LOG_LEVEL: {text!r} is none of debug, info, warning, error")
    return text
