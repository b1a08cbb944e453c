"""Selectors that pick nothing."""

from collections.abc import Iterator

from controller.analysis.findings import Finding
from controller.analysis.given import Given, Policy
from controller.kinds.core import Service
from controller.registry.services import is_served, selects


def check_policy_selection(given: Given) -> Iterator[Finding]:
    """Policies that are for nobody."""
    for policy in given.policies:
        if given.knows_reach_of(policy) and given.is_for_nobody(policy):
            yield _explain(given, policy)


def _explain(given: Given, policy: Policy) -> Finding:
    if not given.pods.get(policy.namespace) and not given.reaches_all(policy):
        message = f"namespace {policy.namespace} has no pods, so this policy is for nobody"
        return Finding("policy-namespace-without-pods", policy.key, ("metadata", "namespace"), message)
    labels = ", ".join(f"{key}={value}" for key, value in sorted(policy.match_labels.items()))
    where = "of the mesh" if given.reaches_all(policy) else f"of namespace {policy.namespace}"
    message = f"no pod {where} has the labels {labels}, so this policy is for nobody"
    return Finding("policy-selector-matches-nothing", policy.key, ("spec", "selector", "matchLabels"), message)


def check_service_selection(given: Given) -> Iterator[Finding]:
    """Services that have no endpoint."""
    for service in given.snapshot.objects(Service):
        selector = service.spec.selector
        if not selector or not is_served(service) or not given.knows_pods_of(service.namespace):
            continue
        if not any(selects(service, labels) for labels in given.labels_in(service.namespace)):
            labels = ", ".join(f"{key}={value}" for key, value in sorted(selector.items()))
            message = f"no pod of namespace {service.namespace} has the labels {labels}: it has no endpoints"
            yield Finding("service-selector-matches-nothing", service.key, ("spec", "selector"), message)
