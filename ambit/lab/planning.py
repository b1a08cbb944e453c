"""What applying manifests to a lab would change, decided before anything is touched: all of it, or a refusal."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from ambit.lab.control import Json
from ambit.lab.fields import InvalidFieldError
from ambit.lab.kinds import Lab, Pod
from ambit.lab.manifests import InvalidManifestsError, Manifest, ObjectKey, build_manifest
from ambit.lab.services import is_headless
from ambit.lab.topology import choose_node
from controller.kinds import core

_FIRST_KINDS = ("Namespace", "Node", "ServiceAccount", "Service")
"""What others refer to comes first, and pods last, so that none runs before the policies that came with it."""


class Verb(StrEnum):
    """What happens to an object, in kubectl's words."""

    CREATED = "created"
    CONFIGURED = "configured"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Change:
    """One object and what happens to it. A pod's `node` has been chosen; an implied object was written by nobody."""

    manifest: Manifest
    verb: Verb
    node: str = ""
    is_implied: bool = False


def plan_changes(
    present: Mapping[ObjectKey, Manifest], given: Iterable[Manifest], pods_by_node: Mapping[str, int]
) -> list[Change]:
    """The changes in the order they are to be made; raises InvalidManifestsError that lists every problem.

    `pods_by_node` counts the pods that run on each node now. Namespaces and service accounts that objects need and
    nobody wrote are created, as a lab has no administrator to ask.
    """
    problems: list[str] = []
    changes: list[Change] = []
    counts = dict(pods_by_node)
    for manifest in sorted(given, key=_rank):
        try:
            change = _plan_one(present.get(manifest.key), manifest, counts)
        except InvalidFieldError as error:
            problems.append(f"{manifest.origin}: {manifest.key}: {error}")
            continue
        if change.node and change.verb is Verb.CREATED:
            counts[change.node] += 1
        changes.append(change)
    if problems:
        raise InvalidManifestsError("\n".join(problems))
    return [*_plan_implied(present, changes), *changes]


def _rank(manifest: Manifest) -> int:
    kind = manifest.key.kind
    if kind in _FIRST_KINDS:
        return _FIRST_KINDS.index(kind)
    return len(_FIRST_KINDS) + (kind == "Pod")


def _plan_one(present: Manifest | None, manifest: Manifest, pods_by_node: Mapping[str, int]) -> Change:
    value = manifest.value
    if isinstance(value, Lab) and present != manifest:
        raise InvalidFieldError("spec", "a lab's nodes are fixed when it goes up; take it down and up again")
    node = choose_node(value, pods_by_node) if isinstance(value, Pod) else ""
    if present is None:
        return Change(manifest, Verb.CREATED, node)
    if present == manifest:
        return Change(manifest, Verb.UNCHANGED, node)
    _check_update(present, manifest)
    return Change(manifest, Verb.CONFIGURED, node)


def _check_update(present: Manifest, manifest: Manifest) -> None:
    before, after = present.value, manifest.value
    if isinstance(after, Pod) and present.document.get("spec") != manifest.document.get("spec"):
        raise InvalidFieldError("spec", f"a pod's spec cannot change; `ambit lab delete pod {after.name}` first")
    if isinstance(before, core.Service) and isinstance(after, core.Service):
        is_other_kind = (is_headless(before), before.spec.type) != (is_headless(after), after.spec.type)
        if is_other_kind or (after.addresses and before.addresses != after.addresses):
            raise InvalidFieldError("spec.clusterIP", "cannot change; delete the service first")


def _plan_implied(present: Mapping[ObjectKey, Manifest], changes: Iterable[Change]) -> list[Change]:
    """Namespaces, their default service accounts, and the accounts that pods name, as far as nobody wrote them."""
    known = {*present, *(change.manifest.key for change in changes)}
    namespaces: dict[ObjectKey, None] = {}
    accounts: dict[ObjectKey, None] = {}
    for change in changes:
        value = change.manifest.value
        namespace = value.name if isinstance(value, core.Namespace) else value.namespace
        if namespace:
            namespaces[ObjectKey("", "Namespace", "", namespace)] = None
            accounts[ObjectKey("", "ServiceAccount", namespace, "default")] = None
        if isinstance(value, Pod):
            accounts[ObjectKey("", "ServiceAccount", namespace, value.service_account)] = None
    missing = [key for key in (*namespaces, *accounts) if key not in known]
    return [Change(_bare_manifest(key), Verb.CREATED, is_implied=True) for key in missing]


def _bare_manifest(key: ObjectKey) -> Manifest:
    metadata: dict[str, Json] = {"name": key.name}
    if key.namespace:
        metadata["namespace"] = key.namespace
    return build_manifest({"apiVersion": "v1", "kind": key.kind, "metadata": metadata}, "implied")
