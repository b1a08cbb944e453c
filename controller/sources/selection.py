"""Which namespaces' objects count, by the labels of the namespaces (Istio's discoverySelectors). Pure.

The door is before this: every object is read and checked, so that a namespace that begins to count is there at once, in
the last valid form of each of its objects. What is in no namespace always counts, and so does the root namespace. A
namespace of which there is no Namespace object has no labels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from controller.kinds.core import Namespace
from controller.kinds.gateway_api import LabelSelector
from controller.kinds.meta import KubernetesObject, ObjectKey
from controller.snapshot import Changes


@dataclass(frozen=True, slots=True)
class SelectedChanges:
    """What a change is to those who see only what counts. `begun` are namespaces that count from now on."""

    objects: Changes
    begun: frozenset[str] = frozenset()


class NamespaceSelection:
    """The namespaces that meet any of `selectors`; all where there are none. One owner."""

    def __init__(self, selectors: Sequence[LabelSelector], root_namespace: str) -> None:
        self._selectors = tuple(selectors)
        self._always = frozenset({"", root_namespace})
        self._counting: dict[str, bool] = {}
        self._unlabelled = self._meets({})

    def counts(self, namespace: str) -> bool:
        """Whether a namespace's objects count; those without a namespace do."""
        return namespace in self._always or self._counting.get(namespace, self._unlabelled)

    def take(
        self, changes: Changes, read_objects: Callable[[], Mapping[ObjectKey, KubernetesObject]]
    ) -> SelectedChanges:
        """What is left of `changes`, with all objects of a namespace that begins or ends to count.

        `read_objects` gives all that there is after the changes.
        """
        if not self._selectors:
            return SelectedChanges(changes)
        changed = self._follow_labels(changes)
        selected = {key: value for key, value in changes.items() if self.counts(key.namespace)}
        for key, value in {**changes, **read_objects()}.items() if changed else ():
            if key.namespace in changed:
                selected[key] = value if self.counts(key.namespace) else None
        return SelectedChanges(selected, frozenset(filter(self.counts, changed)))

    def _follow_labels(self, changes: Changes) -> set[str]:
        """Look at the Namespaces that changed; gives those that begin or end to count."""
        changed = set()
        for key, value in changes.items():
            if key.group_kind == Namespace.GROUP_KIND:
                before = self.counts(key.name)
                self._counting.pop(key.name, None)
                if value is not None:
                    self._counting[key.name] = self._meets(value.labels)
                if self.counts(key.name) != before:
                    changed.add(key.name)
        return changed

    def _meets(self, labels: Mapping[str, str]) -> bool:
        return not self._selectors or any(each.matches(dict(labels)) for each in self._selectors)
