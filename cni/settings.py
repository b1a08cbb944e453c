"""The node agent's settings, read from the environment once, at the start. Names are Istio's where Istio has one."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from cni.agent.eligibility import EligibilitySettings
from cni.agent.enrolment import EnrolmentSettings
from cni.agent.zds_server import ZdsSettings
from cni.kernel.rules import PodSettings
from mesh.kit.errors import FatalError

_DEFAULT_AGENT_SOCKET = "/var/run/ambit/agent.sock"

_LOG_LEVELS = ("debug", "info", "warning", "error")
_TRUE_WORDS = frozenset({"1", "true", "yes"})
_FALSE_WORDS = frozenset({"0", "false", "no"})


class InvalidSettingError(FatalError):
    """An environment variable is missing or does not parse."""

    reason = "invalid_setting"


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """All that the agent is told.

    node_name: for logs (NODE_NAME, required).
    zds: where ztunnel connects (ZTUNNEL_UDS_ADDRESS).
    agent_socket: where pods are announced (AMBIT_AGENT_SOCKET).
    journal_path: the pods whose rules stand (AMBIT_AGENT_JOURNAL; beside the agent's socket by default).
    enrolment: AMBIENT_IPV6 (default true), AMBIENT_DNS_CAPTURE (default false, as Istio without its chart),
        EXCLUDE_NAMESPACES (comma list), SYSTEM_NAMESPACE.
    log_level: AMBIT_LOG_LEVEL.
    """

    node_name: str
    zds: ZdsSettings = field(default_factory=ZdsSettings)
    agent_socket: str = _DEFAULT_AGENT_SOCKET
    journal_path: str = "/var/run/ambit/agent.pods.json"
    enrolment: EnrolmentSettings = field(default_factory=EnrolmentSettings)
    log_level: str = "info"


def read_settings(environment: Mapping[str, str] | None = None) -> AgentSettings:
    """Read the settings from the environment, or from a mapping like it. Raises InvalidSettingError."""
    values = os.environ if environment is None else environment
    node_name = values.get("NODE_NAME", "")
    if not node_name:
        raise InvalidSettingError("NODE_NAME is not set: it names the node that this agent serves")
    agent_socket = values.get("AMBIT_AGENT_SOCKET") or _DEFAULT_AGENT_SOCKET
    return AgentSettings(
        node_name=node_name,
        zds=ZdsSettings(path=values.get("ZTUNNEL_UDS_ADDRESS") or ZdsSettings().path),
        agent_socket=agent_socket,
        journal_path=values.get("AMBIT_AGENT_JOURNAL") or f"{agent_socket.removesuffix('.sock')}.pods.json",
        enrolment=_read_enrolment(values),
        log_level=_read_log_level(values),
    )


def _read_enrolment(values: Mapping[str, str]) -> EnrolmentSettings:
    default = EligibilitySettings()
    excluded = values.get("EXCLUDE_NAMESPACES")
    return EnrolmentSettings(
        defaults=PodSettings(
            ipv6=_read_flag(values, "AMBIENT_IPV6", True), dns_capture=_read_flag(values, "AMBIENT_DNS_CAPTURE", False)
        ),
        eligibility=EligibilitySettings(
            excluded_namespaces=default.excluded_namespaces if excluded is None else _split(excluded),
            system_namespace=values.get("SYSTEM_NAMESPACE") or default.system_namespace,
        ),
    )


def _read_log_level(values: Mapping[str, str]) -> str:
    level = (values.get("AMBIT_LOG_LEVEL") or "info").lower()
    if level not in _LOG_LEVELS:
        raise InvalidSettingError(f"AMBIT_LOG_LEVEL={level!r}: expected one of {', '.join(_LOG_LEVELS)}")
    return level


def _read_flag(values: Mapping[str, str], name: str, default: bool) -> bool:
    word = values.get(name, "").strip().lower()
    if not word:
        return default
    if word not in _TRUE_WORDS | _FALSE_WORDS:
        raise InvalidSettingError(f"{name}={word!r}: expected true or false")
    return word in _TRUE_WORDS


def _split(text: str) -> frozenset[str]:
    return frozenset(part.strip() for part in text.split(",") if part.strip())
