from pathlib import Path

import pytest

from tools.requirements import read_requirements

PYPROJECT = """
[build-system]
requires = ["maturin"]
[project]
dependencies = ["pyyaml", "grpcio"]
[project.optional-dependencies]
dev = ["pytest", "pyyaml"]
"""


@pytest.fixture
def pyproject(tmp_path: Path) -> Path:
    path = tmp_path / "pyproject.toml"
    path.write_text(PYPROJECT)
    return path


def test_run_time_and_build_requirements_come_without_extras(pyproject: Path) -> None:
    assert read_requirements(pyproject, []) == ["grpcio", "maturin", "pyyaml"]


def test_an_extra_adds_its_own_once(pyproject: Path) -> None:
    assert read_requirements(pyproject, ["dev"]) == ["grpcio", "maturin", "pytest", "pyyaml"]


def test_an_unknown_extra_is_refused(pyproject: Path) -> None:
    with pytest.raises(KeyError, match="dve"):
        read_requirements(pyproject, ["dve"])
