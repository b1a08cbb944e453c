"""What the controller knows: takes what a source reports, keeps the snapshot, and publishes what it changes."""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from controller.kinds.catalogue import CATALOGUE
from controller.kinds.core import Namespace, Node, Service
from controller.kinds.meta import ObjectKey
from controller.kinds.secrets import Secret
from controller.kinds.security import AuthorizationPolicy
from controller.metrics import ControllerMetrics
from controller.publication import build_changes
from controller.registry.localities import list_client_keys
from controller.registry.names import MeshSettings
from controller.registry.proxies import Ingress
from controller.serve.hub import Hub
from controller.snapshot import Changes, Snapshot
from controller.sources.directory import Directory, DirectoryChange, FileText
from controller.sources.held import Held, HeldFile, InvalidHeldFileError
from controller.sources.problems import Problem, ProblemReason
from controller.sources.selection import NamespaceSelection

if TYPE_CHECKING:
    from controller.routing.publication import Routing

log = logging.getLogger(__name__)


class Configuration:
    """Owner of the snapshot. Everything here happens between two awaits, so readers never see half a change."""

    def __init__(
        self,
        hub: Hub,
        settings: MeshSettings,
        metrics: ControllerMetrics,
        held: HeldFile,
        selection: NamespaceSelection | None = None,
    ) -> None:
        self._hub = hub
        self._settings = settings
        self._metrics = metrics
        self._directory = Directory()
        self._held = held
        self._selection = selection or NamespaceSelection((), settings.root_namespace)
        self._routing: Routing | None = None
        hub.publish_routing = self._start_routing
        hub.open_ingress, hub.close_ingress = self._open_ingress, self._close_ingress
        hub.find_client_keys = self._find_client_keys
        self.snapshot = Snapshot()
        self.observers: list[Callable[[Iterable[ObjectKey]], None]] = []
        """Told of every object that has changed once it serves, or that was or is no more refused."""

    @property
    def problems(self) -> list[Problem]:
        """All that is refused at present, in namespaces that count."""
        return [each for each in self._directory.problems if self._concerns(each)]

    @property
    def namespaces(self) -> list[Namespace]:
        """The Namespaces that count."""
        return [each for each in self.snapshot.objects(Namespace) if self._selection.counts(each.name)]

    @property
    def held(self) -> frozenset[ObjectKey]:
        """The objects that serve in an earlier form, because their present one is invalid."""
        found = (value.key for values in self._directory.held.values() for value in values)
        return frozenset(filter(self.is_held, found))

    @property
    def faults(self) -> Mapping[ObjectKey, str]:
        """What EnvoyFilters make that proxies would refuse, as far as anything is built."""
        return self._routing.patches.faults if self._routing is not None else {}

    def is_held(self, key: ObjectKey | None) -> bool:
        """Whether an object serves in an earlier form, because its present one is invalid."""
        return self._directory.is_held(key)

    def load_files(self, texts: Mapping[str, FileText]) -> None:
        """Take the texts of all files there are, beside what served in an earlier form when the controller stopped."""
        held: Held = {}
        try:
            held = self._held.read()
        except (OSError, InvalidHeldFileError) as error:
            log.warning("earlier forms of invalid objects are lost", extra={"error": error})
        self._directory.remember(held)
        self._apply({**dict.fromkeys(held), **texts}, is_first=True)

    def apply_files(self, texts: Mapping[str, FileText]) -> None:
        """Take the present texts of files that changed."""
        self._apply(texts, is_first=False)

    def _apply(self, texts: Mapping[str, FileText], is_first: bool) -> None:
        started = time.monotonic()
        change = self._directory.apply(texts)
        selected = self._selection.take(
            self._directory.objects if is_first else change.objects, lambda: self._directory.objects
        )
        objects = selected.objects
        self._log_problems(change, selected.begun)
        sent = self._publish(objects) if objects else 0
        if objects:
            fields = {
                "version": self.snapshot.version,
                "files": len(texts),
                "objects": len(objects),
                "resources": sent,
                "seconds": round(time.monotonic() - started, 4),
            }
            log.info("configuration applied", extra=fields)
        self._write_held()
        self._count()
        refused = (problem.key for problem in (*change.new_problems, *change.solved_problems))
        touched = [*objects, *(key for key in refused if key is not None)]
        for observe in self.observers:
            observe(touched)

    def apply_found(self, changes: Changes) -> None:
        """Take objects that come from no file: what was found out about others."""
        self._publish(changes)
        for observe in self.observers:
            observe(changes)

    def _write_held(self) -> None:
        try:
            self._held.write(self._directory.held)
        except OSError as error:
            log.error("earlier forms of invalid objects would not survive a restart", extra={"error": error})

    def _publish(self, changes: Changes) -> int:
        old, self.snapshot = self.snapshot, self.snapshot.apply(changes)
        publication = dict(build_changes(old, self.snapshot, changes, self._settings))
        if self._routing is not None:
            known = self.faults
            publication |= self._routing.update(old, self.snapshot, changes)
            self._log_faults(known)
        self._log_hints(changes)
        sent = self._hub.publish(publication, self.snapshot.version)
        if any(key.group_kind == Node.GROUP_KIND for key in changes):
            self._hub.move_clients()
        return sent

    def _find_client_keys(self, node: str) -> tuple[str, ...]:
        return list_client_keys(self.snapshot.find(Node, "", node), node)

    def _start_routing(self) -> None:
        """Build what proxies and gRPC clients read, from now on: a mesh without them does not pay for it."""
        from controller.routing.publication import Routing  # Envoy's API alone is 20 MiB

        started = time.monotonic()
        self._routing = Routing(self._settings)
        sent = self._hub.publish(self._routing.build(self.snapshot), self.snapshot.version)
        fields = {"resources": sent, "seconds": round(time.monotonic() - started, 4)}
        log.info("routes are served from now on", extra=fields)
        self._note_faults({})

    def _open_ingress(self, ingress: Ingress) -> None:
        if self._routing is not None:
            known = self.faults
            self._hub.publish(self._routing.open(self.snapshot, ingress), self.snapshot.version)
            self._note_faults(known)
            log.info("ingress gateway is served", extra={"ingress": str(ingress)})

    def _close_ingress(self, ingress: Ingress) -> None:
        if self._routing is not None:
            known = self.faults
            self._hub.publish(self._routing.close(self.snapshot, ingress), self.snapshot.version)
            self._note_faults(known)
            log.info("ingress gateway has no proxies any more", extra={"ingress": str(ingress)})

    def _concerns(self, problem: Problem) -> bool:
        return problem.key is None or self._selection.counts(problem.key.namespace)

    def _log_problems(self, change: DirectoryChange, begun: Collection[str]) -> None:
        """Tell what is new, and what was wrong already in namespaces that begin to count."""
        new = set(change.new_problems)
        news = [each for each in self.problems if each in new or (each.key and each.key.namespace in begun)]
        for problem in news:
            self._metrics.refusals.add(reason=problem.reason.value)
            fields = {
                "source_file": problem.file,
                "line": problem.line,
                "object": problem.key or "",
                "path": problem.path,
                "reason": problem.reason.value,
                "code": problem.code,
                "problem": problem.message,
                "value": problem.value,
                "earlier_form_serves": self._directory.is_held(problem.key),
            }
            log.warning("configuration refused", extra=fields)
        for passed in change.new_passed_over:
            fields = {"source_file": passed.file, "line": passed.line, "kind": passed.value, "why": passed.message}
            log.info("document of another tool passed over", extra=fields)
        if change.solved_problems and not self.problems:
            log.info("configuration has no problems any more")

    def _note_faults(self, known: Mapping[ObjectKey, str]) -> None:
        """Tell of faults that no change of an object has made or ended: a client has."""
        self._log_faults(known)
        changed = [key for key in {**known, **self.faults} if known.get(key) != self.faults.get(key)]
        for observe in self.observers if changed else ():
            observe(changed)

    def _log_faults(self, known: Mapping[ObjectKey, str]) -> None:
        for key, fault in self.faults.items():
            if known.get(key) != fault:
                log.warning("patch is not served: proxies would refuse it", extra={"object": key, "problem": fault})

    def _log_hints(self, changes: Changes) -> None:
        """What is valid but may not be what its author expects."""
        for key, value in changes.items():
            if isinstance(value, Service) and not value.spec.selector:
                log.info("service selects no pods: it has no endpoints", extra={"object": key})
            if isinstance(value, Secret) and value.is_expired(datetime.now(UTC)):
                log.warning("certificate has expired: clients refuse it", extra={"object": key})
            if isinstance(value, AuthorizationPolicy) and value.is_dry_run:
                log.info(
                    "policy is a dry run: proxies tell what it would do, and do not enforce it",
                    extra={"object": key},
                )

    def _count(self) -> None:
        for model in set(CATALOGUE.values()):
            self._metrics.objects.set(self.snapshot.count(model), group=model.GROUP, kind=model.KIND)
        reasons = [problem.reason for problem in self.problems]
        for reason in ProblemReason:
            self._metrics.problems.set(reasons.count(reason), reason=reason.value)
