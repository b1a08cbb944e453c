import logging
import stat
from pathlib import Path

import pytest

from cni.agent.journal import Journal
from tests.support.pods import know


def test_what_is_stored_is_loaded_by_the_next_agent(tmp_path: Path) -> None:
    pods = [know("a", tmp_path / "a"), know("b", tmp_path / "b")]
    Journal(str(tmp_path / "pods.json")).store(pods)
    entries = Journal(str(tmp_path / "pods.json")).load()
    assert [entry.pod for entry in entries] == [known.announcement for known in pods]
    assert [entry.identity for entry in entries] == [known.namespace.identity for known in pods]
    for known in pods:
        known.namespace.close()


def test_storing_replaces_all_and_leaves_one_private_file(tmp_path: Path) -> None:
    path = tmp_path / "pods.json"
    known = know("a", tmp_path / "a")
    Journal(str(path)).store([known])
    Journal(str(path)).store([])
    assert Journal(str(path)).load() == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "pods.json"]
    known.namespace.close()


def test_no_file_is_an_empty_journal_without_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert Journal(str(tmp_path / "pods.json")).load() == []
    assert not caplog.records


@pytest.mark.parametrize(
    "text",
    ["", "{", "7", "[7]", "[{}]", '[{"pod": {}, "namespace": [1, 2]}]', '[{"pod": {}, "namespace": 7}]', "\x00"],
)
def test_a_damaged_file_is_ignored_with_a_warning(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "pods.json").write_text(text)
    with caplog.at_level(logging.WARNING):
        assert Journal(str(tmp_path / "pods.json")).load() == []
    assert [record.getMessage() for record in caplog.records] == ["journal ignored"]


def test_a_file_that_cannot_be_written_is_logged_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    Journal("/dev/null/pods.json").store([])
    assert [record.getMessage() for record in caplog.records] == ["journal not written"]
