"""Text to typed objects, or to problems that say which line, which field and why. Pure: no files, no clock.

parsed = parse_documents(text, "policies.yaml")
parsed.objects   # what is valid
parsed.problems  # what was refused
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import ErrorType

from controller.kinds.catalogue import CATALOGUE, Catalogue
from controller.kinds.meta import DEFAULT_NAMESPACE, KubernetesObject, ObjectKey
from controller.kinds.others import explain_other
from controller.sources.composing import ComposeError, Node, build_node, compose_documents
from controller.sources.problems import Problem, ProblemReason

MAX_SHOWN_CHARACTERS = 80
# RFC 7468, section 10 and 11, and older forms: what begins every key in PEM.
_KEY_MARK = "PRIVATE KEY-----"
# Of one object; a policy written for another product altogether need not fill the log.
MAX_PROBLEMS_PER_OBJECT = 20

UNKNOWN_VERSION = "unknown-version"
"""The code of an object of a kind that is read, in a version that is not."""

OTHER_KIND = "other-kind"
"""The code of a document that is another tool's."""
# Of a file that Envoy itself is started with; an object of Kubernetes has neither.
_ENVOYS_OWN = ("static_resources", "dynamic_resources")

_PYDANTICS_OWN = frozenset(get_args(ErrorType))

_REASONS = {
    "extra_forbidden": ProblemReason.UNKNOWN_FIELD,
    "missing": ProblemReason.MISSING_FIELD,
    "needs_targets": ProblemReason.UNSUPPORTED,
    "needs_waypoint": ProblemReason.UNSUPPORTED,
    "unsupported": ProblemReason.UNSUPPORTED,
}
_MESSAGES = {
    "extra_forbidden": "unknown field",
    "missing": "required, but not there",
    "string_type": "must be text (put a number, true or null into quotes)",
    "int_type": "must be a whole number, without quotes",
    "bool_type": "must be true or false, without quotes",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "mapping_type": "must be a mapping",
    "sequence_type": "must be a list",
}


PlainObject = Mapping[str, object]
"""An object as JSON gives it: lists, dicts and scalars, without lines."""


@dataclass(frozen=True, slots=True)
class Located:
    """A valid object and the place where it begins."""

    value: KubernetesObject
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a text held. `passed_over` are documents of other tools.

    `has_unnamed` says that some of it could not even be told to be about an object of some name; `doubtful_names` are
    those of objects whose kind could not be read. Whoever knows earlier objects of the same text keeps them in these
    cases.
    """

    objects: Sequence[Located] = ()
    problems: Sequence[Problem] = ()
    has_unnamed: bool = False
    doubtful_names: frozenset[str] = frozenset()
    passed_over: Sequence[Problem] = ()

    def may_mention(self, key: ObjectKey) -> bool:
        """Whether the text may be about the object `key`, though not in a form that could be accepted."""
        is_named = key.name in self.doubtful_names or any(problem.key == key for problem in self.problems)
        return self.has_unnamed or is_named


def parse_documents(text: str, file: str, catalogue: Catalogue = CATALOGUE) -> Parsed:
    """Parse the YAML documents (or the JSON) in `text`; `file` is only named in problems.

    Never raises because of the text. A `List` stands for its items. Of an object that stands there twice the first
    counts.
    """
    parser = _Parser(file, catalogue)
    try:
        for document in compose_documents(text):
            for node in _expand_list(document):
                parser.parse_object(node)
    except ComposeError as error:
        place = Node(error.line, error.column, None)
        parser.refuse(_Refused(place, "", "", ProblemReason(error.reason), error.message))
        parser.has_unnamed = True
    return parser.finish()


def parse_plain(document: PlainObject, file: str, catalogue: Catalogue = CATALOGUE) -> Parsed:
    """The same for one object that is no text any more; its problems have no line."""
    model = catalogue.get((str(document.get("apiVersion")), str(document.get("kind"))))
    if model is not None:
        try:
            return Parsed([Located(model.model_validate(document), file, 0)])
        except ValidationError:
            pass  # seldom: the way below says where it is
    parser = _Parser(file, catalogue)
    parser.parse_object(build_node(document))
    return parser.finish()


def compose_objects(text: str) -> Iterator[Node]:
    """The nodes of the objects in `text`, the items of lists one by one, up to where it cannot be read."""
    try:
        for document in compose_documents(text):
            yield from _expand_list(document)
    except ComposeError:
        return


def find_key(node: Node, catalogue: Catalogue = CATALOGUE) -> ObjectKey | None:
    """Which object a node speaks about, though it may be invalid; None when its kind or name cannot be read."""
    model = catalogue.get((get_text(node, "apiVersion") or "", get_text(node, "kind") or ""))
    return _find_key(node, model) if model else None


def get_text(node: Node, *path: str) -> str | None:
    """The text at a path of keys; None where there is none, or something else."""
    found: Node | None = node
    for key in path:
        found = _get(found, key) if found is not None else None
    return found.value if found is not None and isinstance(found.value, str) else None


def _expand_list(node: Node) -> Iterator[Node]:
    if node.value is None:
        return  # an empty document, as between two `---`
    items = _get(node, "items")
    if get_text(node, "kind") == "List" and items is not None and isinstance(items.value, list):
        yield from items.value
    else:
        yield node


@dataclass(frozen=True, slots=True)
class _Refused:
    """A problem before it is known whose it is."""

    node: Node
    path: str
    value: str
    reason: ProblemReason
    message: str
    code: str = ""


class _Parser:
    """Collects what one text holds."""

    def __init__(self, file: str, catalogue: Catalogue) -> None:
        self._file = file
        self._catalogue = catalogue
        self._lines: dict[ObjectKey, int] = {}
        self.objects: list[Located] = []
        self.problems: list[Problem] = []
        self.has_unnamed = False
        self.doubtful_names: set[str] = set()
        self.passed_over: list[Problem] = []

    def finish(self) -> Parsed:
        names = frozenset(self.doubtful_names)
        return Parsed(self.objects, self.problems, self.has_unnamed, names, self.passed_over)

    def refuse(self, what: _Refused, key: ObjectKey | None = None) -> None:
        self.problems.append(self._build_problem(what, key))

    def _build_problem(self, what: _Refused, key: ObjectKey | None) -> Problem:
        place, code = what.node, what.code or what.reason.code
        return Problem(
            self._file, place.line, place.column, key, what.path, what.value, what.reason, what.message, code
        )

    def parse_object(self, node: Node) -> None:
        model = self._find_model(node)
        if isinstance(model, _Refused) and model.code == OTHER_KIND:
            self.passed_over.append(self._build_problem(model, None))
            return
        if isinstance(model, _Refused):
            self.refuse(model)
            self._keep_name(node)
            return
        key = _find_key(node, model)
        if key is None:
            self.has_unnamed = True
        elif key in self._lines:
            message = f"this object stands here twice, first in line {self._lines[key]}; that one counts"
            self.refuse(_Refused(node, "", "", ProblemReason.DUPLICATE_OBJECT, message), key)
            return
        else:
            self._lines[key] = node.line
        try:
            self.objects.append(Located(model.model_validate(node.to_plain()), self._file, node.line))
        except ValidationError as error:
            for detail in error.errors(include_url=False, include_context=False)[:MAX_PROBLEMS_PER_OBJECT]:
                self.refuse(_describe(node, detail, model), key)

    def _find_model(self, node: Node) -> "type[KubernetesObject] | _Refused":
        if not isinstance(node.value, dict):
            return _Refused(node, "", _shorten(node), ProblemReason.NOT_AN_OBJECT, "a document must be one object")
        if any(name in node.value for name in _ENVOYS_OWN) and not get_text(node, "apiVersion"):
            why = "Envoy is started with it, and nothing here reads it"
            return _Refused(node, "", "", ProblemReason.UNKNOWN_KIND, why, OTHER_KIND)
        for name in ("apiVersion", "kind"):
            if not get_text(node, name):
                return _Refused(node, name, "", ProblemReason.MISSING_FIELD, "must be there, as text")
        version, kind = get_text(node, "apiVersion") or "", get_text(node, "kind") or ""
        model = self._catalogue.get((version, kind))
        if model is None:
            at, why = _get(node, "kind") or node, _explain(kind, self._catalogue)
            code = UNKNOWN_VERSION if _versions_of(kind, self._catalogue) else ""
            if not code and (other := explain_other(version, kind)):
                why, code = other, OTHER_KIND
            return _Refused(at, "kind", f"{version} {kind}", ProblemReason.UNKNOWN_KIND, why, code)
        return model

    def _keep_name(self, node: Node) -> None:
        metadata = _get(node, "metadata")
        name = get_text(metadata, "name") if metadata else None
        if name:
            self.doubtful_names.add(name)
        else:
            self.has_unnamed = True


def _versions_of(kind: str, catalogue: Catalogue) -> list[str]:
    return sorted(version for version, known in catalogue if known == kind)


def _explain(kind: str, catalogue: Catalogue) -> str:
    versions = _versions_of(kind, catalogue)
    if versions:
        return f"{kind} is read as {' or '.join(versions)}"
    return f"not a kind that is read here; known: {', '.join(sorted({known for _, known in catalogue}))}"


def _find_key(node: Node, model: type[KubernetesObject]) -> ObjectKey | None:
    """Which object a node speaks about, even though it may be invalid; None when its name cannot be read."""
    metadata = _get(node, "metadata")
    name = get_text(metadata, "name") if metadata else None
    if metadata is None or not name:
        return None
    namespace = _get(metadata, "namespace")
    if namespace is not None and namespace.value is not None and not isinstance(namespace.value, str):
        return None
    text = get_text(metadata, "namespace") or DEFAULT_NAMESPACE
    return ObjectKey(model.GROUP, model.KIND, text if model.IS_NAMESPACED else "", name)


def locate_field(node: Node, loc: Sequence[str | int]) -> tuple[Node, str]:
    """The deepest node on the way `loc`, and the way as text. What pydantic adds to it (union branches) falls away."""
    path = ""
    for step in loc:
        if isinstance(step, int) and isinstance(node.value, list) and step < len(node.value):
            node, path = node.value[step], f"{path}[{step}]"
        elif isinstance(step, str) and isinstance(node.value, dict) and step != "[key]":
            path = f"{path}.{step}" if path else step
            child = node.value.get(step)
            if child is None:
                return node, path  # a field that is missing
            node = child
        else:
            break
    return node, path


def _describe(node: Node, detail: ErrorDetails, model: type[KubernetesObject]) -> _Refused:
    code = detail["type"]
    fallback = ProblemReason.WRONG_TYPE if code.endswith("_type") else ProblemReason.INVALID_VALUE
    reason = _REASONS.get(code, fallback)
    message = _MESSAGES.get(code, detail["msg"])
    at, path = locate_field(node, detail["loc"])
    shown = "" if reason is ProblemReason.MISSING_FIELD or model.HIDES_VALUES else _shorten(at)
    own_code = "" if code in _PYDANTICS_OWN else code.replace("_", "-")
    return _Refused(at, path, shown, reason, message[:1].lower() + message[1:], own_code)


def _get(node: Node, key: str) -> Node | None:
    return node.value.get(key) if isinstance(node.value, dict) else None


def _shorten(node: Node) -> str:
    if isinstance(node.value, dict):
        return f"a mapping of {len(node.value)}" if node.value else "{}"
    if isinstance(node.value, list):
        return f"a list of {len(node.value)}" if node.value else "[]"
    if isinstance(node.value, bool | None):
        return "null" if node.value is None else str(node.value).lower()
    if _KEY_MARK in str(node.value):
        return "a private key"  # at a place where none belongs, which is no reason to show it
    text = repr(node.value)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else text[:MAX_SHOWN_CHARACTERS] + "..."
