"""YAML in, Envoy's resources out: one folder of `golden/` per feature, and one for each seed's YAML."""

import pytest

from tests.support.golden import list_cases, read_expected, translate


@pytest.mark.parametrize("case", list_cases())
def test_objects_become_these_resources(case: str) -> None:
    assert translate(case) == read_expected(case), "if it is meant: python -m tests.support.golden, and read the diff"
