"""Which services the sidecars of a namespace are told of.

Those of a namespace without a Sidecar are told of all. Of several Sidecars of one namespace the oldest counts; one of
the root namespace counts for nobody.
"""

from collections.abc import Mapping

from controller.kinds.sidecar import Sidecar
from controller.registry.attachment import covers
from controller.registry.names import SIDECARS, MeshSettings, name_sidecars
from controller.snapshot import Snapshot


class Visibility:
    """What sidecars of which namespace see, at one moment."""

    def __init__(self, snapshot: Snapshot, settings: MeshSettings) -> None:
        self._by_namespace: Mapping[str, Sidecar] = {
            each.namespace: each
            for each in sorted(snapshot.objects(Sidecar), key=lambda each: each.age_key, reverse=True)
            if each.namespace != settings.root_namespace
        }

    def find(self, namespace: str) -> Sidecar | None:
        """The Sidecar that counts for a namespace."""
        return self._by_namespace.get(namespace)

    @property
    def all_readers(self) -> tuple[str, ...]:
        """The names under which sidecars find what all of them have."""
        return (SIDECARS, *map(name_sidecars, sorted(self._by_namespace)))

    def sees(self, namespace: str, place: str, host: str) -> bool:
        """Whether a Sidecar of `namespace` has its sidecars told of a host of namespace `place`."""
        found = self._by_namespace.get(namespace)
        return found is not None and any(
            which in ("*", place) or (which == "." and place == namespace)
            for which, pattern in found.patterns
            if which != "~" and covers(pattern, host)
        )

    def find_readers(self, *services: tuple[str, str]) -> tuple[str, ...]:
        """The names under which sidecars find what they have for any of these services: namespace and host of each."""
        seeing = (
            namespace
            for namespace in sorted(self._by_namespace)
            if any(self.sees(namespace, *each) for each in services)
        )
        return (SIDECARS, *map(name_sidecars, seeing))


def find_idle(snapshot: Snapshot, settings: MeshSettings, given: Sidecar) -> str:
    """Why it counts for nobody; empty if it does."""
    if given.namespace == settings.root_namespace:
        return "one for the whole mesh is not carried out: write one in each namespace"
    first = Visibility(snapshot, settings).find(given.namespace)
    return "" if first is None or first == given else f"{first.key} is older and counts instead of it"
