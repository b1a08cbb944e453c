"""Identities that policies name and nobody has.

Trust domains are not compared: which one a mesh has is a setting of its controller.
"""

from collections.abc import Iterator

from controller.analysis.findings import Finding, Path
from controller.analysis.given import Given
from controller.kinds.policy_conditions import Condition
from controller.kinds.security import AuthorizationPolicy, Source

_PRINCIPAL_PARTS = 5


def check_principals(given: Given) -> Iterator[Finding]:
    """Service accounts and namespaces that are not among the given objects."""
    for policy in given.snapshot.objects(AuthorizationPolicy):
        for kind, text, path in _named_by(policy):
            finding = _CHECKS[kind](given, policy, text, path)
            if finding is not None:
                yield finding


def _named_by(policy: AuthorizationPolicy) -> Iterator[tuple[str, str, Path]]:
    for rule, content in enumerate(policy.spec.rules or ()):
        for index, each in enumerate(content.from_ or ()):
            yield from _named_by_source(each.source, ("spec", "rules", rule, "from", index, "source"))
        for index, condition in enumerate(content.when or ()):
            yield from _named_by_condition(condition, ("spec", "rules", rule, "when", index))


def _named_by_source(source: Source, path: Path) -> Iterator[tuple[str, str, Path]]:
    fields = [
        ("principal", "principals", source.principals),
        ("principal", "notPrincipals", source.not_principals),
        ("namespace", "namespaces", source.namespaces),
        ("namespace", "notNamespaces", source.not_namespaces),
        ("account", "serviceAccounts", source.service_accounts),
        ("account", "notServiceAccounts", source.not_service_accounts),
    ]
    for kind, name, values in fields:
        for index, value in enumerate(values or ()):
            yield kind, value, (*path, name, index)


def _named_by_condition(condition: Condition, path: Path) -> Iterator[tuple[str, str, Path]]:
    kind = {"source.principal": "principal", "source.namespace": "namespace"}.get(condition.key)
    if kind:
        for name, values in (("values", condition.values), ("notValues", condition.not_values)):
            for index, value in enumerate(values or ()):
                yield kind, value, (*path, name, index)


def _check_principal(given: Given, policy: AuthorizationPolicy, text: str, path: Path) -> Finding | None:
    if "*" in text:
        return None  # a pattern may well be meant for what is yet to come
    parts = text.split("/")
    if len(parts) != _PRINCIPAL_PARTS or parts[1] != "ns" or parts[3] != "sa" or not all(parts):
        message = f"no identity of the mesh looks like {text!r}, so this never matches"
        return Finding("principal-never-matches", policy.key, path, message)
    return _find_missing(given, policy, (parts[2], parts[4]), path)


def _check_account(given: Given, policy: AuthorizationPolicy, text: str, path: Path) -> Finding | None:
    namespace, _, name = text.rpartition("/")
    return _find_missing(given, policy, (namespace or policy.namespace, name), path)


def _check_namespace(given: Given, policy: AuthorizationPolicy, text: str, path: Path) -> Finding | None:
    if "*" in text or text in given.namespaces or not given.knows_pods_of(text):
        return None
    message = f"there is no namespace {text} among the given objects"
    return Finding("unknown-namespace", policy.key, path, message)


def _find_missing(given: Given, policy: AuthorizationPolicy, account: tuple[str, str], path: Path) -> Finding | None:
    namespace, name = account
    if account in given.service_accounts or not given.knows_pods_of(namespace):
        return None
    if namespace not in given.namespaces:
        return _check_namespace(given, policy, namespace, path)
    known = sorted(known for place, known in given.service_accounts if place == namespace)
    message = f"there is no service account {name} in namespace {namespace}; there: {', '.join(known)}"
    return Finding("unknown-service-account", policy.key, path, message)


_CHECKS = {"principal": _check_principal, "namespace": _check_namespace, "account": _check_account}
