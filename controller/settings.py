"""The controller's settings, from the environment. The only room that reads it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from controller.kinds.durations import parse_duration
from controller.kinds.gateway_api import LabelSelector
from controller.registry.names import DEFAULT_CLUSTER_ID, DEFAULT_ROOT_NAMESPACE, MeshSettings
from controller.serve.session import SessionLimits
from mesh.identity import DEFAULT_TRUST_DOMAIN, SpiffeIdentity
from mesh.kit.errors import InvalidInputError

_SELECTORS = TypeAdapter(list[LabelSelector])


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
    admin             plaintext HTTP; its debug pages are for this machine only where there is no token
    admin_token_file  file with the token that the debug pages demand. Must be there when others reach `admin`
    discovery_selectors  of the labels of namespaces: whose objects count, by any of them. None: all
    jwks_hosts        hosts (`HOST` or `HOST:PORT`) that keys of RequestAuthentications may be fetched from
    mesh              what is the same for the whole mesh
    limits            of the dialogue with one client
    max_age_seconds   after about this long a client is told to connect anew, so that clients spread over controllers;
                      0 never. Istio's half an hour (facts of the control plane, section 7)
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
    admin_token_file: Path | None
    jwks_hosts: frozenset[str]
    mesh: MeshSettings
    discovery_selectors: tuple[LabelSelector, ...] = ()
    limits: SessionLimits = field(default_factory=SessionLimits)
    max_age_seconds: float = 1800.0
    drain_seconds: float = 2.0
    log_level: str = "info"

    def describe(self) -> dict[str, object]:
        """What a dump says of them: nothing secret, and no paths."""
        return {
            "source": "files" if self.config_dir else "kubernetes",
            "has_own_root": self.authority_dir is None,
            "listen": [str(each) for each in self.listen],
            "serving_names": list(self.serving_names),
            "local_listen": str(self.local_listen or ""),
            "discovery_selectors": [
                each.model_dump(mode="json", by_alias=True, exclude_none=True) for each in self.discovery_selectors
            ],
            "ack_timeout_seconds": self.limits.ack_timeout_seconds,
            "policy_wait_seconds": self.limits.policy_wait_seconds,
            "max_age_seconds": self.max_age_seconds,
        }


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from `environment`, the process's own by default. Raises InvalidSettingError."""
    given = os.environ if environment is None else environment
    admin = _parse_listen("AMBIT_ADMIN_LISTEN", given.get("AMBIT_ADMIN_LISTEN") or "127.0.0.1:15014")
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
        admin=admin,
        admin_token_file=_find_admin_token(given, admin),
        jwks_hosts=frozenset(each.lower() for each in _split(given.get("AMBIT_JWKS_HOSTS", ""))),
        mesh=MeshSettings(
            cluster_id=given.get("AMBIT_CLUSTER_ID") or DEFAULT_CLUSTER_ID,
            trust_domain=_parse_trust_domain(given.get("AMBIT_TRUST_DOMAIN") or DEFAULT_TRUST_DOMAIN),
            root_namespace=given.get("AMBIT_ROOT_NAMESPACE") or DEFAULT_ROOT_NAMESPACE,
            prefers_near=_parse_switch("AMBIT_LOCALITY_FAILOVER", given.get("AMBIT_LOCALITY_FAILOVER") or "true"),
        ),
        discovery_selectors=_parse_selectors("AMBIT_DISCOVERY_SELECTORS", given.get("AMBIT_DISCOVERY_SELECTORS", "")),
        max_age_seconds=_parse_duration("AMBIT_CONNECTION_MAX_AGE", given.get("AMBIT_CONNECTION_MAX_AGE") or "30m"),
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


def _find_admin_token(given: Mapping[str, str], admin: ListenAddress) -> Path | None:
    text = given.get("AMBIT_ADMIN_TOKEN_FILE")
    if not text and not _is_loopback(admin.host):
        raise InvalidSettingError(
            f"AMBIT_ADMIN_LISTEN: other machines reach {admin}, and its debug pages show the mesh: set "
            "AMBIT_ADMIN_TOKEN_FILE to a file with a token that they demand, or listen on 127.0.0.1"
        )
    return Path(text) if text else None


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _parse_listen(name: str, text: str) -> ListenAddress:
    host, separator, port = text.rpartition(":")
    if not (separator and host and port.isascii() and port.isdigit() and int(port[:6]) <= 65535):
        raise InvalidSettingError(f"{name}: {text!r} is not ADDRESS:PORT")
    return ListenAddress(host.removeprefix("[").removesuffix("]"), int(port))


def _parse_duration(name: str, text: str) -> float:
    """Seconds."""
    try:
        return parse_duration(text) / 1000
    except PydanticCustomError as error:
        raise InvalidSettingError(f"{name}: {text!r} {error.message()}") from error


def _parse_selectors(name: str, text: str) -> tuple[LabelSelector, ...]:
    """A list of selectors in YAML, and so JSON, as Istio's discoverySelectors are."""
    try:
        selectors = _SELECTORS.validate_python(yaml.safe_load(text) or [])
    except yaml.YAMLError as error:
        raise InvalidSettingError(f"{name}: is no YAML: {error}") from error
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, found["loc"])) or "it"
        raise InvalidSettingError(f"{name}: must be a list of label selectors: {place}: {found['msg']}") from error
    for each in (part for selector in selectors for part in selector.match_expressions or ()):
        if bool(each.values) != (each.operator in ("In", "NotIn")):
            needs = "needs values" if each.operator in ("In", "NotIn") else "takes no values"
            raise InvalidSettingError(f"{name}: {each.operator} of {each.key!r} {needs}")
    return tuple(selectors)


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
