"""The analysis as a whole: texts in, every problem out, each with its place. Pure.

report = analyze_texts({"policies.yaml": text})
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from controller.analysis.certificates import check_backend_tls, check_certificates
from controller.analysis.codes import CODES, REFUSALS, Severity
from controller.analysis.delegates import check_delegates
from controller.analysis.enforcement import check_enforcement, check_judges, check_shadowing
from controller.analysis.envoy_filters import check_envoy_filters, check_patches
from controller.analysis.findings import Finding
from controller.analysis.given import Given
from controller.analysis.ingress import check_bindings, check_istio_gateways
from controller.analysis.ingress_servers import check_server_certificates, check_servers
from controller.analysis.ports import check_policy_ports, check_target_ports
from controller.analysis.principals import check_principals
from controller.analysis.routes import (
    check_destination_rules,
    check_gateways,
    check_routes,
    check_virtual_services,
)
from controller.analysis.selection import check_policy_selection, check_service_selection
from controller.analysis.sidecars import check_sidecars
from controller.analysis.targets import check_providers, check_targets, check_what_gateways_know
from controller.analysis.telemetry import check_telemetries
from controller.analysis.waypoints import check_waypoints
from controller.analysis.workload_groups import check_workload_groups
from controller.kinds.catalogue import CATALOGUE, Catalogue
from controller.kinds.meta import DEFAULT_NAMESPACE, ObjectKey
from controller.kinds.others import POD_MAKERS
from controller.registry.names import MeshSettings
from controller.snapshot import Snapshot
from controller.sources.composing import Node
from controller.sources.directory import Directory, FileText
from controller.sources.documents import compose_objects, find_key, get_text, locate_field
from controller.sources.problems import Problem, ProblemReason

CHECKS: Sequence[Callable[[Given], Iterable[Finding]]] = (
    check_policy_selection,
    check_service_selection,
    check_enforcement,
    check_judges,
    check_shadowing,
    check_target_ports,
    check_policy_ports,
    check_principals,
    check_targets,
    check_providers,
    check_what_gateways_know,
    check_routes,
    check_gateways,
    check_certificates,
    check_backend_tls,
    check_virtual_services,
    check_delegates,
    check_destination_rules,
    check_waypoints,
    check_bindings,
    check_istio_gateways,
    check_servers,
    check_server_certificates,
    check_envoy_filters,
    check_telemetries,
    check_sidecars,
    check_workload_groups,
)
WHOLE_CHECKS: Sequence[Callable[[Given], Iterable[Finding]]] = (*CHECKS, check_patches)
"""With those that take as long as serving all there is: too long for an answer to somebody who applies one object."""

# Reasons after which nobody knows what else the file would have said.
_BLINDING = frozenset(
    {ProblemReason.UNREADABLE, ProblemReason.SYNTAX, ProblemReason.TOO_LARGE, ProblemReason.DUPLICATE_KEY}
)


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One problem with all that is known of it. `line` is 0 where there is none; `object` may be empty."""

    file: str
    line: int
    object: str
    field: str
    code: str
    severity: Severity
    message: str
    fix: str


@dataclass(frozen=True, slots=True)
class Report:
    """What an analysis found, by file and line, and how much it looked at."""

    entries: Sequence[Entry]
    file_count: int
    object_count: int

    def count(self, severity: Severity) -> int:
        return sum(entry.severity is severity for entry in self.entries)


def analyze_texts(
    texts: Mapping[str, FileText], catalogue: Catalogue = CATALOGUE, settings: MeshSettings | None = None
) -> Report:
    """Every problem of these files, as if they were all that the mesh has. Never raises because of a text."""
    directory = Directory(catalogue)
    directory.apply(texts)
    objects = directory.objects
    nodes = {file: list(compose_objects(text)) for file, text in texts.items() if isinstance(text, str)}
    given = Given(
        Snapshot().apply(objects), settings or MeshSettings(), _find_doubtful(directory.problems, nodes, objects.keys())
    )
    places = _Places(directory.files, nodes, catalogue)
    findings = {finding for check in WHOLE_CHECKS for finding in check(given)}
    entries = [
        *(_from_problem(problem) for problem in (*directory.problems, *directory.passed_over)),
        *(places.locate(finding) for finding in findings),
    ]
    return Report(sorted(entries), sum(text is not None for text in texts.values()), len(objects))


def _find_doubtful(
    problems: Iterable[Problem], nodes: Mapping[str, Sequence[Node]], valid: Iterable[ObjectKey]
) -> frozenset[str] | None:
    """The namespaces that may have pods that were not read; None for all."""
    if any(problem.reason in _BLINDING for problem in problems):
        return None
    known = {(key.namespace, key.name) for key in valid if key.kind == "Pod"}
    doubtful = set()
    for node in (node for found in nodes.values() for node in found):
        kind = get_text(node, "kind")
        if kind != "Pod" and kind not in POD_MAKERS:
            continue
        namespace = get_text(node, "metadata", "namespace") or DEFAULT_NAMESPACE
        if kind != "Pod" or (namespace, get_text(node, "metadata", "name")) not in known:
            doubtful.add(namespace)
    return frozenset(doubtful)


def _from_problem(problem: Problem) -> Entry:
    code = REFUSALS.get(problem.code) or REFUSALS[problem.reason.code]
    shown = f" (got {problem.value})" if problem.value else ""
    return Entry(
        file=problem.file,
        line=problem.line,
        object=str(problem.key or ""),
        field=problem.path,
        code=problem.code,
        severity=code.severity,
        message=problem.message + shown,
        fix=code.fix,
    )


class _Places:
    """Finds the line of a field of an object."""

    def __init__(
        self, files: Mapping[ObjectKey, str], nodes: Mapping[str, Sequence[Node]], catalogue: Catalogue
    ) -> None:
        self._files = files
        self._nodes: dict[tuple[str, ObjectKey], Node] = {}
        for file, found in nodes.items():
            for node, key in _with_keys(found, catalogue):
                self._nodes.setdefault((file, key), node)  # of an object that stands there twice the first counts

    def locate(self, finding: Finding) -> Entry:
        file, code = self._files[finding.key], CODES[finding.code]
        node, path = locate_field(self._nodes[file, finding.key], finding.path)
        return Entry(
            file=file,
            line=node.line,
            object=str(finding.key),
            field=path,
            code=finding.code,
            severity=code.severity,
            message=finding.message,
            fix=finding.fix or code.fix,
        )


def _with_keys(nodes: Iterable[Node], catalogue: Catalogue) -> Iterator[tuple[Node, ObjectKey]]:
    for node in nodes:
        key = find_key(node, catalogue)
        if key is not None:
            yield node, key
