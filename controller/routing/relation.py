"""Which of some hang on which of others, looked up from either side."""

from collections.abc import Iterator, Set
from typing import Generic, TypeVar

L = TypeVar("L")
R = TypeVar("R")


class Relation(Generic[L, R]):
    """Pairs of a left and a right. It holds nothing for a left or a right that is in no pair."""

    def __init__(self) -> None:
        self._rights: dict[L, Set[R]] = {}
        self._lefts: dict[R, set[L]] = {}

    def put(self, left: L, rights: Set[R]) -> set[R]:
        """Let `left` hang on these, and on no others; gives those that it hangs on newly or no more."""
        before = self._rights.pop(left, frozenset())
        if rights:
            self._rights[left] = rights
        ended, begun = set(before - rights), set(rights - before)
        for right in ended:
            self._lefts[right].discard(left)
            if not self._lefts[right]:
                del self._lefts[right]
        for right in begun:
            self._lefts.setdefault(right, set()).add(left)
        return ended | begun

    def rights_of(self, left: L) -> Set[R]:
        """What `left` hangs on."""
        return self._rights.get(left, frozenset())

    def lefts_of(self, right: R) -> Set[L]:
        """What hangs on `right`."""
        return self._lefts.get(right, frozenset())

    def rights(self) -> Iterator[R]:
        """All that something hangs on."""
        yield from self._lefts
