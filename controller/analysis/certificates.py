"""Certificates that are not there, that no client takes, or that no proxy may have."""

from collections.abc import Iterator

from controller.analysis.findings import Finding
from controller.analysis.given import Given
from controller.kinds.backend_tls_policy import BackendTLSPolicy
from controller.kinds.core import Service
from controller.kinds.gateway_api import Gateway
from controller.kinds.secrets import Secret
from controller.registry.attachment import Reason, is_ours, served_listeners
from controller.registry.backend_tls import list_targets, resolve_authority
from controller.registry.certificates import (
    ends_tls,
    find_nodes,
    find_secrets,
    list_references,
    resolve_certificates,
)


def check_certificates(given: Given) -> Iterator[Finding]:
    """Of the Gateways that are ours, and of all Secrets."""
    for gateway in given.snapshot.objects(Gateway):
        if is_ours(given.snapshot, gateway):
            yield from _check_gateway(given, gateway)
    for secret in given.snapshot.objects(Secret):
        if secret.is_expired(given.now):
            message = f"expired at {secret.leaf.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
            yield Finding("certificate-expired", secret.key, ("data",), message)


def _check_gateway(given: Given, gateway: Gateway) -> Iterator[Finding]:
    snapshot = given.snapshot
    for index, listener in enumerate(gateway.spec.listeners):
        path = ("spec", "listeners", index)
        if ends_tls(listener) and not any(list_references(gateway, listener)):
            yield Finding("certificate-missing", gateway.key, path, "it ends TLS and names no certificate")
        for number, found in resolve_certificates(snapshot, gateway, listener):
            if found.secret is None:
                place = (*path, "tls", "certificateRefs", number)
                yield Finding("certificate-missing", gateway.key, place, found.message)
    needs = any(find_secrets(snapshot, gateway, each) for each in served_listeners(gateway))
    if needs and given.knows_pods_of(gateway.namespace) and not find_nodes(snapshot, gateway):
        message = "no pod of it is given, and it names no nodes: no proxy gets its certificates"
        yield Finding("certificate-without-proxy", gateway.key, ("metadata",), message)


def check_backend_tls(given: Given) -> Iterator[Finding]:
    """BackendTLSPolicies for nobody, and without somebody to believe."""
    for policy in given.snapshot.objects(BackendTLSPolicy):
        services = dict(list_targets(policy))
        for number, target in enumerate(policy.spec.target_refs):
            path = ("spec", "targetRefs", number)
            if number not in services:
                message = f"{target.name} is a {target.kind}, and no Service"
                yield Finding("backend-tls-target-unknown", policy.key, path, message)
                continue
            service = given.snapshot.find(Service, policy.namespace, target.name)
            names = {port.name for port in service.spec.ports or ()} if service else set()
            if service is None:
                message = f"there is no Service {policy.namespace}/{target.name}"
                yield Finding("backend-tls-target-unknown", policy.key, path, message)
            elif target.section_name is not None and target.section_name not in names:
                message = f"{service.key} has no port called {target.section_name}"
                yield Finding("backend-tls-target-unknown", policy.key, (*path, "sectionName"), message)
        for number, reference in enumerate(policy.spec.validation.ca_certificate_refs):
            reason, message, _ = resolve_authority(given.snapshot, policy, reference)
            if reason is not Reason.RESOLVED:
                place = ("spec", "validation", "caCertificateRefs", number)
                yield Finding("authority-missing", policy.key, place, message)
