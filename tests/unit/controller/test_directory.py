"""Files change under the controller; each object keeps what was last valid of it."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.kinds.meta import ObjectKey
from controller.sources.directory import Directory, DirectoryChange, FileText, Unreadable
from controller.sources.problems import ProblemReason

A = ObjectKey("", "Namespace", "", "a")
B = ObjectKey("", "Namespace", "", "b")


def text(*names: str, label: str = "x") -> str:
    template = "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {}, labels: {{l: {}}}}}\n"
    return "---\n".join(template.format(name, label) for name in names)


def label_of(directory: Directory, key: ObjectKey) -> str:
    return directory.objects[key].labels["l"]


@pytest.fixture
def directory() -> Directory:
    made = Directory()
    made.apply({"f": text("a", "b", label="old")})
    return made


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(text("a", label="[]"), id="invalid-value"),
        pytest.param("a: [", id="syntax-error"),
        pytest.param(text("a", label="new").replace("Namespace", "Namespce"), id="misspelt-kind"),
        pytest.param("kind: Namespace", id="nameless"),
        pytest.param(Unreadable("cannot be read"), id="unreadable"),
    ],
)
def test_object_that_becomes_invalid_goes_on_as_it_was(directory: Directory, broken: FileText) -> None:
    change = directory.apply({"f": broken})
    assert label_of(directory, A) == "old"
    assert A not in change.objects
    assert directory.is_held(A)
    assert change.new_problems


def test_invalid_object_does_not_keep_another_that_its_file_no_longer_has(directory: Directory) -> None:
    change = directory.apply({"f": text("a", label="[]")})
    assert change.objects == {B: None}
    assert set(directory.objects) == {A}


def test_valid_part_of_a_file_with_a_syntax_error_is_taken_and_the_rest_kept(directory: Directory) -> None:
    directory.apply({"f": text("a", label="new") + "---\na: ["})
    assert label_of(directory, A) == "new"
    assert label_of(directory, B) == "old"


def test_repaired_object_serves_in_its_new_form(directory: Directory) -> None:
    directory.apply({"f": "a: ["})
    change = directory.apply({"f": text("a", "b", label="new")})
    assert label_of(directory, A) == "new"
    assert len(change.solved_problems) == 1
    assert not directory.problems
    assert not directory.held


def test_object_whose_file_is_removed_disappears_even_if_it_was_invalid(directory: Directory) -> None:
    directory.apply({"f": "a: ["})
    assert directory.apply({"f": None}).objects == {A: None, B: None}
    assert not directory.problems


def test_unchanged_object_is_no_change(directory: Directory) -> None:
    assert directory.apply({"f": text("b", "a", label="old")}).objects == {}


def test_object_in_two_files_belongs_to_the_file_that_had_it_first(directory: Directory) -> None:
    change = directory.apply({"0": text("a", label="other")})
    assert label_of(directory, A) == "old"
    assert [(problem.file, problem.reason) for problem in change.new_problems] == [
        ("0", ProblemReason.DUPLICATE_OBJECT)
    ]
    change = directory.apply({"f": text("b", label="old")})
    assert label_of(directory, A) == "other"
    assert list(change.objects) == [A]
    assert len(change.solved_problems) == 1


def test_object_moved_to_another_file_in_one_step_is_no_duplicate(directory: Directory) -> None:
    change = directory.apply({"f": None, "g": text("a", "b", label="old")})
    assert change.objects == {}
    assert not change.new_problems


_files = st.dictionaries(
    st.sampled_from(["f", "g", "h"]),
    st.none() | st.lists(st.sampled_from("abc"), max_size=3, unique=True).map(lambda names: text(*names)),
    max_size=3,
)


@given(st.lists(_files, max_size=8))
def test_valid_files_always_add_up_to_their_objects(steps: list[Mapping[str, FileText]]) -> None:
    directory = Directory()
    files: dict[str, FileText] = {}
    seen: dict[ObjectKey, object] = {}
    for step in steps:
        change: DirectoryChange = directory.apply(step)
        files |= step
        for key, value in change.objects.items():
            seen.pop(key, None)
            if value is not None:
                seen[key] = value
        expected = {
            name for name in "abc" for content in files.values() if content and f"name: {name}," in str(content)
        }
        assert {key.name for key in directory.objects} == expected
        assert directory.objects == seen
