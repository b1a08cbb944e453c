"""YAML (and so JSON) text to a tree of nodes, each of which knows its line.

PyYAML's own composer recurses as deep as the text nests, its constructors know dates, sexagesimal numbers and a dozen
spellings of true that Kubernetes does not, and values lose their lines. So we build the tree from its event stream
(libyaml's parser, which does not recurse), with YAML 1.2's core schema, and with bounds on what a text may ask for.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import yaml

# Deeper than any Kubernetes object (a Pod reaches about 12), and far below Python's recursion limit.
MAX_DEPTH = 64
# Nodes in one document with aliases expanded: bounds what a few lines of nested aliases can grow into.
MAX_NODES = 200_000

Scalar = str | int | float | bool | None

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})")
_OCTAL = re.compile(r"0o?[0-7]{1,21}")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]{1,16}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,300}|[0-9]{1,300}(\.[0-9]{0,300})?)([eE][-+]?[0-9]{1,4})?")
_NUMBER_STARTS = tuple("0123456789+-.")
_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it stands. `value` is a scalar, a list of nodes, or a mapping of keys to nodes."""

    line: int
    column: int
    value: "Scalar | list[Node] | dict[str, Node]"
    size: int = 1

    def to_plain(self) -> object:
        """The value without its places: lists, dicts and scalars."""
        if isinstance(self.value, list):
            return [node.to_plain() for node in self.value]
        if isinstance(self.value, dict):
            return {key: node.to_plain() for key, node in self.value.items()}
        return self.value


class ComposeError(Exception):
    """The text is no YAML, or more than is allowed. Lines and columns count from 1. Nothing after it was read."""

    def __init__(self, reason: str, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.line = line
        self.column = column


def build_node(value: object) -> Node:
    """A tree without places, of lists, dicts and scalars such as JSON gives."""
    if isinstance(value, Mapping):
        return Node(0, 0, {str(key): build_node(each) for key, each in value.items()})
    if isinstance(value, Sequence) and not isinstance(value, str):
        return Node(0, 0, [build_node(each) for each in value])
    return Node(0, 0, cast(Scalar, value))


def compose_documents(text: str) -> Iterator[Node]:
    """The documents of `text`, one by one. Raises ComposeError at the first place that cannot be read."""
    composer = _Composer()
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            document = composer.take(event)
            if document is not None:
                yield document
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        line = min(line, max(1, len(text.splitlines())))  # the end of the text counts to its last line
        words = [error.context, error.problem]
        raise ComposeError("syntax", ", ".join(word for word in words if word), line, column) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ComposeError("syntax", f"character {error.character!r} is not allowed in YAML", line, 1) from error
    except yaml.YAMLError as error:
        raise ComposeError("syntax", str(error), 1, 1) from error


@dataclass(slots=True)
class _Open:
    """A sequence or mapping whose end has not come yet."""

    line: int
    column: int
    anchor: str | None
    content: list[Node] | dict[str, Node]
    pending_key: str | None = None
    merged: list[Node] | None = None
    size: int = 1


class _Composer:
    """Takes events one at a time; gives a node when a document is complete."""

    def __init__(self) -> None:
        self._stack: list[_Open] = []
        self._anchors: dict[str, Node] = {}

    def take(self, event: yaml.Event) -> Node | None:
        mark = event.start_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        if isinstance(event, yaml.ScalarEvent):
            value = event.value if _is_text(event) else _resolve(event.value)
            return self._add(Node(line, column, value), event.anchor)
        if isinstance(event, yaml.DocumentStartEvent):
            self._anchors.clear()
        elif isinstance(event, yaml.AliasEvent):
            return self._add(self._find_anchor(event.anchor, line, column), None)
        elif isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
            self._open(event, line, column)
        elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
            return self._close()
        return None

    def _open(self, event: yaml.SequenceStartEvent | yaml.MappingStartEvent, line: int, column: int) -> None:
        if len(self._stack) >= MAX_DEPTH:
            raise ComposeError("too_large", f"nested deeper than {MAX_DEPTH} levels", line, column)
        if self._expects_key():
            raise ComposeError("syntax", "a key must be a plain word, not a list or mapping", line, column)
        is_list = isinstance(event, yaml.SequenceStartEvent)
        self._stack.append(_Open(line, column, event.anchor, [] if is_list else {}))

    def _close(self) -> Node | None:
        frame = self._stack.pop()
        for source in frame.merged or ():
            _merge(frame, source)
        return self._add(Node(frame.line, frame.column, frame.content, frame.size), frame.anchor)

    def _add(self, node: Node, anchor: str | None) -> Node | None:
        if anchor is not None:
            self._anchors[anchor] = node
        if not self._stack:
            return node
        frame = self._stack[-1]
        frame.size += node.size
        if frame.size > MAX_NODES:
            raise ComposeError("too_large", f"more than {MAX_NODES} values in one document", node.line, node.column)
        if isinstance(frame.content, list):
            frame.content.append(node)
        elif frame.pending_key is None:
            frame.pending_key = _parse_key(node)
        else:
            _put(frame, frame.pending_key, node)
            frame.pending_key = None
        return None

    def _expects_key(self) -> bool:
        return bool(self._stack) and isinstance(self._stack[-1].content, dict) and self._stack[-1].pending_key is None

    def _find_anchor(self, name: str | None, line: int, column: int) -> Node:
        node = self._anchors.get(name or "")
        if node is None:
            raise ComposeError("syntax", f"alias *{name} has no anchor before it", line, column)
        return node


def _is_text(event: yaml.ScalarEvent) -> bool:
    return not event.implicit[0] or event.tag == "tag:yaml.org,2002:str"


def _resolve(text: str) -> Scalar:
    """A plain scalar's value by YAML 1.2's core schema (section 10.3.2): no dates, no `yes`, no 1:30.

    Of the older rules 0644 stays octal, as it is for Kubernetes.
    """
    if text in _WORDS:
        return _WORDS[text]
    if not text.startswith(_NUMBER_STARTS):
        return text  # most are words: no need to ask every pattern
    if _INTEGER.fullmatch(text):
        return int(text)
    if _OCTAL.fullmatch(text):
        return int(text.replace("o", ""), 8)
    if _HEXADECIMAL.fullmatch(text):
        return int(text, 16)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _parse_key(node: Node) -> str:
    """Keys are text, as in JSON: `8080:` is the key "8080"."""
    if isinstance(node.value, str):
        return node.value
    if isinstance(node.value, bool | None):
        return {True: "true", False: "false", None: "null"}[node.value]
    if isinstance(node.value, int | float):
        return str(node.value)
    raise ComposeError("syntax", "a key must be a plain word, not a list or mapping", node.line, node.column)


def _put(frame: _Open, key: str, node: Node) -> None:
    assert isinstance(frame.content, dict)
    if key == "<<":
        frame.merged = [*(frame.merged or ()), node]
        return
    if key in frame.content:
        first = frame.content[key]
        raise ComposeError(
            "duplicate_key", f"key {key!r} stands here twice, first in line {first.line}", node.line, node.column
        )
    frame.content[key] = node


def _merge(frame: _Open, source: Node) -> None:
    """YAML's `<<`: what the mapping has itself wins, then the first of several sources."""
    assert isinstance(frame.content, dict)
    sources = source.value if isinstance(source.value, list) else [source]
    for each in sources:
        if not isinstance(each.value, dict):
            raise ComposeError("syntax", "<< must name a mapping, or a list of mappings", source.line, source.column)
        for key, node in each.value.items():
            frame.content.setdefault(key, node)
