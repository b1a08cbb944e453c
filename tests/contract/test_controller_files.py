"""The directory source on a real directory: what it sees, what it leaves alone, and how soon it tells."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path

import pytest

from controller.sources.directory import FileText, Unreadable
from controller.sources.files import MAX_FILE_BYTES, FileScanner, watch_files
from mesh.kit.errors import FatalError

PATIENCE_SECONDS = 20


def names(changes: Mapping[str, FileText], root: Path) -> dict[str, FileText]:
    return {str(Path(path).relative_to(root)): text for path, text in changes.items()}


def test_only_object_files_are_read(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yml", "c.json", ".d.yaml", "e.yaml.new", "f.txt", "sub/g.yaml", ".hidden/h.yaml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    assert sorted(names(FileScanner(tmp_path).scan_all(), tmp_path)) == ["a.yaml", "b.yml", "c.json", "sub/g.yaml"]


def test_file_counts_only_when_it_changed(tmp_path: Path) -> None:
    scanner = FileScanner(tmp_path)
    path = tmp_path / "a.yaml"
    path.write_text("1")
    assert scanner.scan_all() == {str(path): "1"}
    assert scanner.scan_all() == {}
    path.write_text("two")
    assert scanner.scan([str(path), str(tmp_path / "b.yaml")]) == {str(path): "two"}
    path.unlink()
    assert scanner.scan_all() == {str(path): None}
    assert scanner.scan_all() == {}


def test_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff")
    with (tmp_path / "large.yaml").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    (tmp_path / "directory.yaml").mkdir()
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    found = names(FileScanner(tmp_path).scan_all(), tmp_path)
    assert found["latin.yaml"] == Unreadable("is not UTF-8 (byte 3)")
    assert isinstance(found["large.yaml"], Unreadable)
    assert isinstance(found["loop.yaml"], Unreadable)
    assert "directory.yaml" not in found


async def next_changes(changes: AsyncIterator[Mapping[str, FileText]], root: Path) -> dict[str, FileText]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return names(await anext(changes), root)


async def test_changes_are_told_one_batch_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("1")
    async with aclosing(watch_files(tmp_path)) as changes:
        assert await next_changes(changes, tmp_path) == {"a.yaml": "1"}
        # Not watched yet: what happens meanwhile is found when the watch begins.
        (tmp_path / "b.yaml").write_text("2")
        assert await next_changes(changes, tmp_path) == {"b.yaml": "2"}
        (tmp_path / ".c.yaml.new").write_text("3")
        (tmp_path / ".c.yaml.new").rename(tmp_path / "c.yaml")
        assert await next_changes(changes, tmp_path) == {"c.yaml": "3"}
        (tmp_path / "a.yaml").unlink()
        assert await next_changes(changes, tmp_path) == {"a.yaml": None}


async def test_directory_that_arrives_by_rename_and_config_map_that_is_swapped(tmp_path: Path) -> None:
    mount, outside = tmp_path / "mount", tmp_path / "outside"
    for number in "12":
        (mount / f"..{number}").mkdir(parents=True)
        (mount / f"..{number}" / "a.yaml").write_text(number)
    (mount / "..data").symlink_to("..1")
    (mount / "a.yaml").symlink_to("..data/a.yaml")
    outside.mkdir()
    (outside / "b.yaml").write_text("b")
    async with aclosing(watch_files(mount)) as changes:
        assert await next_changes(changes, mount) == {"a.yaml": "1"}
        (mount / "c.yaml").write_text("c")
        assert await next_changes(changes, mount) == {"c.yaml": "c"}
        (mount / "..new").symlink_to("..2")
        (mount / "..new").rename(mount / "..data")
        assert await next_changes(changes, mount) == {"a.yaml": "2"}
        outside.rename(mount / "more")
        assert await next_changes(changes, mount) == {"more/b.yaml": "b"}


async def test_missing_directory_is_fatal(tmp_path: Path) -> None:
    async with aclosing(watch_files(tmp_path / "none")) as changes:
        with pytest.raises(FatalError, match="none"):
            await anext(changes)
