"""Which certificates a listener ends TLS with, and which proxies may have them (decision 0012).

A proxy may have a certificate where its node runs a pod of the Gateway that names it, or where the Gateway itself says
that its proxies run on that node, for those that are no pods.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from controller.kinds.core import Pod
from controller.kinds.gateway_api import GATEWAY_LABEL, GROUP, Gateway, Listener, SecretReference
from controller.kinds.meta import KubernetesObject
from controller.kinds.secrets import Secret
from controller.registry.attachment import Reason, is_granted
from controller.registry.names import Place
from controller.snapshot import Snapshot

NODES_ANNOTATION = "ambit.dev/proxy-nodes"
"""On a Gateway: the nodes, with commas, on which its proxies run that are no pods."""


class Part(StrEnum):
    """What of a Secret proxies may have."""

    PAIR = "pair"
    AUTHORITY = "authority"


Credential = tuple[Part, Place]
"""A part of the Secret of this namespace and name."""


@dataclass(frozen=True, slots=True)
class CertificateResolution:
    """The Secret that a reference leads to, or why to none."""

    reason: Reason
    message: str
    secret: Place | None = None


def ends_tls(listener: Listener) -> bool:
    """Whether a listener needs certificates."""
    return listener.protocol in ("HTTPS", "TLS") and not listener.passes_through


def list_references(gateway: Gateway, listener: Listener) -> Iterator[tuple[SecretReference, Place]]:
    """The certificates that a listener names, and where they would be."""
    for reference in (listener.tls.certificate_refs or ()) if listener.tls and ends_tls(listener) else ():
        yield reference, (reference.namespace or gateway.namespace, reference.name)


def resolve_certificates(
    snapshot: Snapshot, gateway: Gateway, listener: Listener
) -> Iterator[tuple[int, CertificateResolution]]:
    """Each of the certificates that a listener names, by its number."""
    for number, (reference, place) in enumerate(list_references(gateway, listener)):
        yield number, _resolve(snapshot, gateway, reference, place)


def find_secrets(snapshot: Snapshot, gateway: Gateway, listener: Listener) -> tuple[Place, ...]:
    """The Secrets that a listener ends TLS with; none where it cannot."""
    found = (each.secret for _, each in resolve_certificates(snapshot, gateway, listener))
    return tuple(dict.fromkeys(each for each in found if each))


def judge_certificates(snapshot: Snapshot, gateway: Gateway, listener: Listener) -> tuple[Reason, str]:
    """What is wrong with the certificates of a listener, if anything: the first thing counts."""
    if ends_tls(listener) and not any(list_references(gateway, listener)):
        return Reason.INVALID_CERTIFICATE, "it names no certificate"
    for _, found in resolve_certificates(snapshot, gateway, listener):
        if found.secret is None:
            return found.reason, found.message
    return Reason.RESOLVED, ""


def find_nodes(snapshot: Snapshot, gateway: Gateway) -> set[str]:
    """The nodes whose proxies may have what the Gateway names."""
    running = (
        pod.spec.node_name
        for pod in snapshot.objects_in(Pod, gateway.namespace)
        if pod.labels.get(GATEWAY_LABEL) == gateway.name and not pod.is_terminal
    )
    return {*list_named_nodes(gateway), *(each for each in running if each)}


def list_named_nodes(gateway: KubernetesObject) -> Iterator[str]:
    """The nodes of proxies that are no pods."""
    named = gateway.annotations.get(NODES_ANNOTATION, "").split(",")
    return (each.strip() for each in named if each.strip())


def _resolve(snapshot: Snapshot, gateway: Gateway, reference: SecretReference, place: Place) -> CertificateResolution:
    if (reference.group or "core", reference.kind) != ("core", "Secret"):
        message = f"certificate {reference.name} is a {reference.kind}, and no Secret"
        return CertificateResolution(Reason.INVALID_CERTIFICATE, message)
    namespace, name = place
    source = (GROUP, Gateway.KIND, gateway.namespace)
    if namespace != gateway.namespace and not is_granted(snapshot, source, namespace, (Secret.KIND, name)):
        message = f"no ReferenceGrant of namespace {namespace} lets a Gateway of {gateway.namespace} name Secret {name}"
        return CertificateResolution(Reason.NOT_PERMITTED, message)
    secret = snapshot.find(Secret, namespace, name)
    if secret is None:
        return CertificateResolution(Reason.INVALID_CERTIFICATE, f"there is no valid Secret {namespace}/{name}")
    if not secret.has_pair:
        message = f"Secret {namespace}/{name} has no certificate and key (tls.crt, tls.key)"
        return CertificateResolution(Reason.INVALID_CERTIFICATE, message)
    return CertificateResolution(Reason.RESOLVED, "", place)
