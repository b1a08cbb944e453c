"""An ordinary user needs no privilege for a lab."""

from collections.abc import Iterator

import pytest

from tests.support import labs
from tests.support.unprivileged import NOBODY, OrdinaryUser, ordinary_user


@pytest.fixture
def user() -> Iterator[OrdinaryUser]:
    with ordinary_user() as user:
        yield user


def test_lab_works_without_root(user: OrdinaryUser) -> None:
    (user.folder / "two.yaml").write_text(labs.TWO_NODES)
    up = user.ambit("lab", "up", "-f", str(user.folder / "two.yaml"))
    assert up.returncode == 0, up.stderr
    try:
        for server in ("10.244.1.2", "[fd00:10:244:1::2]"):
            url = f"http://{server}:8080/"
            answer = user.ambit("lab", "exec", "far", "--", "curl", "-sS", "-g", "-o", "/dev/null", url)
            assert answer.returncode == 0, answer.stderr
        whoami = user.ambit("lab", "exec", "far", "--", "cat", "/proc/self/uid_map")
        assert whoami.stdout.split() == ["0", str(NOBODY), "1"]
    finally:
        down = user.ambit("lab", "down")
    assert down.returncode == 0, down.stderr
    assert user.labs == []
