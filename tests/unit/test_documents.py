"""The documents point at what is there, and what they show is what the examples hold."""

import re
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path for pattern in ("*.md", "docs/**/*.md", "changes/*.md", "bench/**/*.md") for path in REPOSITORY.glob(pattern)
)
KINDS_OF_CHANGE = {"breaking", "feature", "fix", "security"}


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def make_targets() -> set[str]:
    makefile = (REPOSITORY / "Makefile").read_text()
    return set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", document.read_text())
    missing = [target for target in targets if not (document.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_make_commands_that_documents_name_exist(document: Path) -> None:
    named = set(re.findall(r"(?:`|^    )make ([a-z][a-z-]*)", document.read_text(), re.MULTILINE))
    assert named <= make_targets()


def test_the_readme_shows_the_example_as_it_is() -> None:
    assert (REPOSITORY / "examples/first-lab.yaml").read_text() in (REPOSITORY / "README.md").read_text()


@pytest.mark.parametrize("example", sorted(REPOSITORY.glob("examples/**/*.yaml")), ids=name_of)
def test_examples_are_objects_with_kind_and_name(example: Path) -> None:
    for document in yaml.safe_load_all(example.read_text()):
        assert document["apiVersion"]
        assert document["kind"]
        assert document["metadata"]["name"]


def test_notes_on_changes_have_a_known_kind() -> None:
    notes = [path for path in (REPOSITORY / "changes").glob("*.md") if path.name != "README.md"]
    assert {path.name.split(".")[1] for path in notes} <= KINDS_OF_CHANGE


def test_every_decision_is_dated_and_listed() -> None:
    index = (REPOSITORY / "docs/decisions/README.md").read_text()
    for record in (REPOSITORY / "docs/decisions").glob("[0-9]*.md"):
        assert re.search(r"^\d{4}-\d{2}-\d{2}\b", record.read_text(), re.MULTILINE), record.name
        assert f"({record.name})" in index
