"""Print the Python requirements that pyproject.toml states: `python tools/requirements.py [EXTRA...]`.

One a line: the run-time dependencies, what builds the native module, and those of the named extras. It lets the set-up
install them without building Ambit itself, and tell by their text whether they changed. Standard library only, because
it runs before anything is installed.
"""

import sys
import tomllib
from pathlib import Path


def read_requirements(pyproject: Path, extras: list[str]) -> list[str]:
    """Return the requirements of `pyproject` and `extras`, sorted. Raises KeyError for an unknown extra."""
    document = tomllib.loads(pyproject.read_text())
    project = document["project"]
    requirements: set[str] = {*document["build-system"]["requires"], *project["dependencies"]}
    for extra in extras:
        requirements.update(project["optional-dependencies"][extra])
    return sorted(requirements)


if __name__ == "__main__":
    print("\n".join(read_requirements(Path(__file__).resolve().parent.parent / "pyproject.toml", sys.argv[1:])))
