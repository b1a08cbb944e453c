"""docs/behaviours.md: each behaviour has tests that exist, or a reason."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ROWS = [
    line.strip("|").split("|")
    for line in (REPOSITORY / "docs/behaviours.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| behaviour")
]
NOT_SUPPORTED = "**not supported**: "
LEAST_REASON_CHARACTERS = 30


def test_the_list_is_not_empty() -> None:
    assert len(ROWS) > 80


@pytest.mark.parametrize("row", ROWS, ids=[row[0].strip() for row in ROWS])
def test_a_behaviour_has_tests_or_a_reason(row: list[str]) -> None:
    _, where = (cell.strip() for cell in row)
    if where.startswith(NOT_SUPPORTED):
        assert len(where) > len(NOT_SUPPORTED) + LEAST_REASON_CHARACTERS
        return
    for part in where.split("<br>"):
        file, *names = re.findall(r"`([^`]+)`", part)
        assert names, part
        source = (REPOSITORY / file).read_text()
        keyword = "def" if file.endswith(".py") else "fn"
        missing = [name for name in names if not re.search(rf"\b{keyword} {name}\b", source)]
        assert not missing, f"{file} has no {missing}; rename them in docs/behaviours.md as well"
