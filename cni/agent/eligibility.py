"""Which pods are enrolled, and with which settings: pure decisions on labels and annotations.

Source: facts on the CNI, 2.
"""

import logging
from dataclasses import dataclass
from enum import Enum

from cni.agent.announcement import PodAnnouncement
from cni.kernel.rules import PodSettings

log = logging.getLogger(__name__)

DATAPLANE_MODE_LABEL = "istio.io/dataplane-mode"
AMBIENT_MODE = "ambient"
NO_MODE = "none"

# An injected sidecar says so here; its own rules are in the pod already.
SIDECAR_STATUS_ANNOTATION = "sidecar.istio.io/status"

BYPASS_INBOUND_CAPTURE_ANNOTATION = "ambient.istio.io/bypass-inbound-capture"
DNS_CAPTURE_ANNOTATION = "ambient.istio.io/dns-capture"
REROUTE_INTERFACES_ANNOTATION = "istio.io/reroute-virtual-interfaces"

# The same words as Go's strconv.ParseBool, which is what users of these annotations know.
_TRUE_WORDS = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE_WORDS = frozenset({"0", "f", "F", "false", "FALSE", "False"})

# linux/if.h: IFNAMSIZ is 16 with the final zero; net/core/dev.c: dev_valid_name.
_MAX_INTERFACE_NAME_BYTES = 15


class EnrolmentDecision(Enum):
    """Why a pod is enrolled, or is not; the value is for logs and answers."""

    POD_LABEL = "pod_label"
    NAMESPACE_LABEL = "namespace_label"
    NOT_LABELLED = "not_labelled"
    OPTED_OUT = "opted_out"
    HOST_NETWORK = "host_network"
    SIDECAR = "sidecar"
    EXCLUDED_NAMESPACE = "excluded_namespace"
    ZTUNNEL = "ztunnel"

    @property
    def is_enrolled(self) -> bool:
        """Whether the pod belongs to the mesh."""
        return self in (EnrolmentDecision.POD_LABEL, EnrolmentDecision.NAMESPACE_LABEL)


@dataclass(frozen=True, slots=True)
class EligibilitySettings:
    """What the operator decided for the node.

    excluded_namespaces: no pod in these is ever enrolled. system_namespace: where ztunnel itself runs.
    """

    excluded_namespaces: frozenset[str] = frozenset({"kube-system"})
    system_namespace: str = "istio-system"


def is_enrolled(pod: PodAnnouncement, settings: EligibilitySettings) -> bool:
    """Whether `pod` belongs to the mesh."""
    return decide_enrolment(pod, settings).is_enrolled


def decide_enrolment(pod: PodAnnouncement, settings: EligibilitySettings) -> EnrolmentDecision:
    """Exclusions first, then the pod's own label, then its namespace's."""
    if pod.host_network:
        return EnrolmentDecision.HOST_NETWORK  # its rules would capture the node
    if SIDECAR_STATUS_ANNOTATION in pod.annotations:
        return EnrolmentDecision.SIDECAR
    if pod.namespace in settings.excluded_namespaces:
        return EnrolmentDecision.EXCLUDED_NAMESPACE
    if pod.namespace == settings.system_namespace and pod.labels.get("app") == "ztunnel":
        return EnrolmentDecision.ZTUNNEL
    return _decide_by_labels(pod.labels.get(DATAPLANE_MODE_LABEL), pod.namespace_labels.get(DATAPLANE_MODE_LABEL))


def _decide_by_labels(pod_mode: str | None, namespace_mode: str | None) -> EnrolmentDecision:
    """A pod's label of any other value than these two leaves the decision to its namespace."""
    if pod_mode == AMBIENT_MODE:
        return EnrolmentDecision.POD_LABEL
    if pod_mode == NO_MODE:
        return EnrolmentDecision.OPTED_OUT
    if namespace_mode == AMBIENT_MODE:
        return EnrolmentDecision.NAMESPACE_LABEL
    return EnrolmentDecision.NOT_LABELLED


def choose_settings(pod: PodAnnouncement, defaults: PodSettings) -> PodSettings:
    """The node's defaults, with what the pod's annotations override. What does not parse is ignored, with a warning."""
    return PodSettings(
        ipv6=defaults.ipv6,
        dns_capture=_read_flag(pod, DNS_CAPTURE_ANNOTATION, defaults.dns_capture),
        bypass_inbound_capture=_read_flag(pod, BYPASS_INBOUND_CAPTURE_ANNOTATION, defaults.bypass_inbound_capture),
        reroute_interfaces=_read_interfaces(pod) or defaults.reroute_interfaces,
    )


def _read_flag(pod: PodAnnouncement, annotation: str, default: bool) -> bool:
    word = pod.annotations.get(annotation)
    if word is None:
        return default
    if word in _TRUE_WORDS or word in _FALSE_WORDS:
        return word in _TRUE_WORDS
    _warn(pod, annotation, "neither true nor false")
    return default


def _read_interfaces(pod: PodAnnouncement) -> tuple[str, ...]:
    names = [name.strip() for name in pod.annotations.get(REROUTE_INTERFACES_ANNOTATION, "").split(",")]
    named = [name for name in names if name]
    valid = [name for name in named if _is_interface_name(name)]
    if len(valid) != len(named):
        _warn(pod, REROUTE_INTERFACES_ANNOTATION, "not all are names of interfaces")
    return tuple(dict.fromkeys(valid))


def _is_interface_name(name: str) -> bool:
    is_word = name.isascii() and name.isprintable() and not set(name) & set(' /:"')
    return is_word and len(name) <= _MAX_INTERFACE_NAME_BYTES and name not in (".", "..")


def _warn(pod: PodAnnouncement, annotation: str, why: str) -> None:
    fields = {
        "pod": pod.name,
        "namespace": pod.namespace,
        "annotation": annotation,
        "value": pod.annotations[annotation],
    }
    log.warning("annotation ignored", extra=fields | {"why": why})
