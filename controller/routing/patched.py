"""Resources on their way out, as EnvoyFilters leave them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from google.protobuf.message import Message

from controller.envoy_api.constraints import find_violation
from controller.kinds.envoy_filter import EnvoyFilter
from controller.registry.envoy_filters import Side, find_for_all, is_for
from controller.registry.gateway_proxies import describe_ingress, list_gateways
from controller.registry.http import Target
from controller.registry.names import MeshSettings
from controller.registry.proxies import Ingress
from controller.routing.patching import Patcher, PatchRecord, Subject, Verdict
from controller.serve.resources import CLUSTER_TYPE, LISTENER_TYPE, ROUTE_TYPE, ChangeGatherer, build_resource
from controller.snapshot import Snapshot
from controller.translate.patches import (
    Outcome,
    Prepared,
    find_disorder,
    find_twice,
    patch_cluster,
    patch_listener,
    patch_routes,
)

_OF_ROUTES = ("HTTP_ROUTE", "ROUTE_CONFIGURATION", "VIRTUAL_HOST")


@dataclass(frozen=True, slots=True)
class At:
    """What patches are told of a resource: its name, the port that it is for, and which filters are for it."""

    name: str
    port: int
    filters: Sequence[EnvoyFilter]
    side: Side


class PatchedResources:
    """Puts the resources of one update where its changes gather. What its patches spoil is not put, so that the form
    that is there goes on.
    """

    def __init__(
        self, changes: Mapping[str, ChangeGatherer], record: PatchRecord, snapshot: Snapshot, settings: MeshSettings
    ) -> None:
        self._changes = changes
        self._record = record
        self._patcher = Patcher(record)
        self._snapshot = snapshot
        self._settings = settings
        self._for_all = find_for_all(snapshot, settings)

    def at_sidecars(self, name: str, port: int) -> At:
        """A resource of all sidecars."""
        return At(name, port, self._for_all, Side.SIDECAR)

    @property
    def has_routes_of_sidecars(self) -> bool:
        """Whether routes of sidecars are patched, so that others cannot use the same."""
        return any(
            is_for(each, Side.SIDECAR) and each.apply_to in _OF_ROUTES
            for given in self._for_all
            for each in given.spec.config_patches
        )

    def find_references(self, filters: Sequence[EnvoyFilter], side: Side) -> set[Target]:
        """The services' clusters that patches for one side name."""
        return self._patcher.find_references(filters, side, self._settings)

    @cached_property
    def references_of_sidecars(self) -> set[Target]:
        """Those that patches for sidecars name: all of them must have these."""
        return self.find_references(self._for_all, Side.SIDECAR)

    def put_listener(self, at: At, message: listener_pb2.Listener, keys: tuple[str, ...]) -> None:
        """Serve a listener under `keys`."""
        self._put(
            Subject(
                (LISTENER_TYPE, at.name),
                message,
                lambda each: patch_listener(message, at.port, each),
                lambda: find_disorder(message),
            ),
            at,
            keys,
        )

    def put_routes(self, at: At, message: route_pb2.RouteConfiguration) -> None:
        """Serve a table of routes."""
        self._put(
            Subject(
                (ROUTE_TYPE, at.name),
                message,
                lambda each: patch_routes(message, at.port, each),
                lambda: find_twice(message),
            ),
            at,
        )

    def put_cluster(
        self,
        target: Target,
        message: cluster_pb2.Cluster,
        keys: tuple[str, ...],
        forms: Mapping[str, cluster_pb2.Cluster],
    ) -> None:
        """Serve a target's cluster, which is one for all who use it, and its forms, which are patched alike."""

        def apply(prepared: Prepared) -> Outcome:
            for form in forms.values():
                patch_cluster(form, target, prepared)
            return patch_cluster(message, target, prepared)

        def find_fault() -> str:
            return next(filter(None, map(find_violation, forms.values())), "")

        subject = Subject((CLUSTER_TYPE, target.cluster), message, apply, find_fault)
        self._put(subject, self.at_sidecars(target.cluster, target.port), keys, forms)

    def put_added(self, ingresses: Iterable[Ingress]) -> None:
        """Serve the listeners and clusters that there are only because filters add them; `ingresses` are all open."""
        gateways = [*list_gateways(self._snapshot), *map(describe_ingress, ingresses)]
        added, gone = self._patcher.build_added(self._snapshot, self._settings, gateways)
        for type_url, name in gone:
            self._changes[type_url].put(name, None)
        for (type_url, name), resource in added.items():
            self._changes[type_url].put(name, resource)

    def remove(self, type_url: str, name: str) -> None:
        """Serve a resource no more."""
        self._changes[type_url].put(name, None)
        self._record.put((type_url, name), None)

    def _put(
        self, subject: Subject, at: At, keys: tuple[str, ...] = (), forms: Mapping[str, Message] | None = None
    ) -> None:
        type_url, name = subject.key
        match self._patcher.patch(subject, at.filters, at.side):
            case Verdict.SERVE:
                resource = build_resource(type_url, name, subject.message, keys=keys, forms=forms)
                self._changes[type_url].put(name, resource)
            case Verdict.REMOVE:
                self._changes[type_url].put(name, None)
            case Verdict.WITHHOLD:
                pass
