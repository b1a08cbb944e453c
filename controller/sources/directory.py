"""What a set of files says, object by object: the last valid state of each, and who is right when two files claim one.

Pure: takes texts, gives changes. The rules:
- An object that is invalid now keeps the state in which it was last valid, as long as its file still speaks of it.
- A file that cannot be read as YAML loses no object: what stands before the error is taken, the rest stays as it was.
- An object in two files belongs to the file that had it first (at start: to the first by name); the other is refused.
- An object disappears when no file speaks of it any more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from controller.kinds.catalogue import CATALOGUE, Catalogue
from controller.kinds.meta import KubernetesObject, ObjectKey
from controller.sources.documents import Located, Parsed, parse_documents
from controller.sources.problems import Problem, ProblemReason


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for the text of a file that is there but cannot be read."""

    why: str


FileText = str | Parsed | Unreadable | None
"""What a file holds now; None when it is gone. An object of Kubernetes is a file of its own, parsed already."""


@dataclass(frozen=True, slots=True)
class DirectoryChange:
    """What one batch of files changed. An object that is None is gone."""

    objects: Mapping[ObjectKey, KubernetesObject | None]
    new_problems: Sequence[Problem]
    new_passed_over: Sequence[Problem]
    solved_problems: Sequence[Problem]


@dataclass(frozen=True, slots=True)
class _File:
    """What is known of one file. `held` are objects of which it now holds only an invalid form."""

    objects: Mapping[ObjectKey, Located] = field(default_factory=dict)
    held: frozenset[ObjectKey] = frozenset()
    problems: Sequence[Problem] = ()
    passed_over: Sequence[Problem] = ()


_NO_FILE = _File()


class Directory:
    """The state of a directory of object files. Not thread-safe; has one owner."""

    def __init__(self, catalogue: Catalogue = CATALOGUE) -> None:
        self._catalogue = catalogue
        self._files: dict[str, _File] = {}
        self._owners: dict[ObjectKey, str] = {}
        self._claims: dict[ObjectKey, set[str]] = {}
        self._troubled: set[str] = set()
        self._duplicates: dict[ObjectKey, dict[str, Problem]] = {}

    @property
    def objects(self) -> dict[ObjectKey, KubernetesObject]:
        """Every object as it is served."""
        return {key: self._files[file].objects[key].value for key, file in self._owners.items()}

    @property
    def files(self) -> dict[ObjectKey, str]:
        """The file that each object is served from."""
        return dict(self._owners)

    @property
    def problems(self) -> list[Problem]:
        """All that is refused at present, by file and line."""
        return _sorted({problem for file in self._troubled for problem in self._files[file].problems} | self._doubles)

    @property
    def passed_over(self) -> list[Problem]:
        """The documents of other tools, by file and line."""
        return _sorted({each for file in self._files.values() for each in file.passed_over})

    @property
    def held(self) -> dict[str, list[KubernetesObject]]:
        """The objects that serve in an earlier form, because their present one is invalid, by file."""
        return {
            file: [self._files[file].objects[key].value for key in sorted(self._files[file].held)]
            for file in sorted(self._troubled)
            if self._files[file].held
        }

    def remember(self, held: Mapping[str, Sequence[KubernetesObject]]) -> None:
        """Before the first `apply`: the objects, by file, that served in an earlier form when the controller stopped.

        They serve again if their file still speaks of them and they are still invalid in it.
        """
        for file, objects in held.items():
            located = {value.key: Located(value, file, 0) for value in objects}
            self._store(file, _File(located, frozenset(located)))
            self._owners |= dict.fromkeys(located, file)

    def is_held(self, key: ObjectKey | None) -> bool:
        """Whether an object serves in an earlier form, because its present one is invalid."""
        file = self._owners.get(key) if key else None
        return file is not None and key in self._files[file].held

    def apply(self, texts: Mapping[str, FileText]) -> DirectoryChange:
        """Take the present texts of the files that changed. Never raises because of a text."""
        before = {file: self._files.get(file, _NO_FILE) for file in texts}
        for file, text in sorted(texts.items()):
            self._store(file, None if text is None else _read(file, text, before[file], self._catalogue))
        after = {file: self._files.get(file, _NO_FILE) for file in texts}
        touched = {key for known in (*before.values(), *after.values()) for key in known.objects}
        old_problems = {problem for known in before.values() for problem in known.problems}
        new_problems = {problem for known in after.values() for problem in known.problems}
        old_problems |= self._doubles
        changes = {key: change for key in sorted(touched) for change in self._decide_owner(key, before)}
        new_problems |= self._doubles
        passed = [{each for known in state.values() for each in known.passed_over} for state in (before, after)]
        return DirectoryChange(
            changes,
            _sorted(new_problems - old_problems),
            _sorted(passed[1] - passed[0]),
            _sorted(old_problems - new_problems),
        )

    def _decide_owner(self, key: ObjectKey, before: Mapping[str, _File]) -> "Sequence[KubernetesObject | None]":
        """Give `key` its owner; the object as it is now if that differs from what it was, nothing otherwise."""
        old_owner = self._owners.get(key)
        old = None
        if old_owner is not None:
            old_file = before[old_owner] if old_owner in before else self._files[old_owner]
            old = old_file.objects[key].value
        claimants = sorted(self._claims.get(key, ()))
        if not claimants:
            self._owners.pop(key, None)
            self._mark_duplicates(key, "", [])
            return [None] if old is not None else []
        owner = old_owner if old_owner in claimants else claimants[0]
        assert owner is not None
        self._owners[key] = owner
        self._mark_duplicates(key, owner, claimants)
        new = self._files[owner].objects[key].value
        return [new] if new != old else []

    def _mark_duplicates(self, key: ObjectKey, owner: str, claimants: Sequence[str]) -> None:
        self._duplicates.pop(key, None)
        for file in claimants:
            if file != owner:
                first, line = self._files[owner].objects[key], self._files[file].objects[key].line
                message = f"this object stands in {first.file}, line {first.line}, too; that one counts"
                reason = ProblemReason.DUPLICATE_OBJECT
                problem = Problem(file, line, 1, key, "", "", reason, message, reason.code)
                self._duplicates.setdefault(key, {})[file] = problem

    @property
    def _doubles(self) -> set[Problem]:
        return {problem for problems in self._duplicates.values() for problem in problems.values()}

    def _store(self, file: str, known: _File | None) -> None:
        """Replace what is known of a file, and all that is indexed by it."""
        for key in self._files.get(file, _NO_FILE).objects:
            self._claims[key].discard(file)
            if not self._claims[key]:
                del self._claims[key]
        self._troubled.discard(file)
        if known is None:
            self._files.pop(file, None)
            return
        self._files[file] = known
        for key in known.objects:
            self._claims.setdefault(key, set()).add(file)
        if known.problems or known.held:
            self._troubled.add(file)


def _read(file: str, text: str | Parsed | Unreadable, before: _File, catalogue: Catalogue) -> _File:
    if isinstance(text, Unreadable):
        reason = ProblemReason.UNREADABLE
        problem = Problem(file, 0, 0, None, "", "", reason, text.why, reason.code)
        parsed = Parsed(problems=[problem], has_unnamed=True)
    elif isinstance(text, str):
        parsed = parse_documents(text, file, catalogue)
    else:
        parsed = text
    valid = {located.value.key: located for located in parsed.objects}
    held = {key: old for key, old in before.objects.items() if key not in valid and parsed.may_mention(key)}
    return _File(valid | held, frozenset(held), tuple(parsed.problems), tuple(parsed.passed_over))


def _sorted(problems: set[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: (problem.file, problem.line, problem.column, problem.path))
