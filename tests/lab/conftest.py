"""Fixtures of the tests that stand labs up. They run as root, and without root inside a user namespace."""

import os
import subprocess
from collections.abc import Iterator

import pytest

from ambit.lab.settings import LabSettings
from tests.support import labs
from tests.support.mesh_fixtures import shared_mesh as shared_mesh


@pytest.fixture(scope="session", autouse=True)
def namespaces() -> None:
    """Skip where this machine gives this user no namespaces."""
    as_root_of_its_own = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    probe = ["unshare", *as_root_of_its_own, "--mount", "--net", "--pid", "--fork", "true"]
    if subprocess.run(probe, capture_output=True, check=False, timeout=30).returncode != 0:
        pytest.skip("needs namespaces: run as root, or allow them to users (sysctl kernel.unprivileged_userns_clone=1)")


@pytest.fixture
def settings() -> Iterator[LabSettings]:
    """A run folder of the test's own."""
    with labs.run_folder() as settings:
        yield settings
