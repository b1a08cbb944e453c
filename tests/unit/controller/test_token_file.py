"""Tokens of nodes: made, kept as hashes, listed and taken away, in a file that somebody may have written by hand."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from controller.authority.node_tokens import NodeTokens
from controller.authority.token_file import (
    InvalidNodeNameError,
    InvalidTokenFileError,
    UnknownTokenError,
    add_token,
    mint_token,
    read_tokens,
    revoke_tokens,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "made" / "tokens"


async def test_a_token_that_was_added_proves_its_node_until_it_is_revoked(path: Path) -> None:
    (first, one), (second, two), (other, three) = (mint_token(node) for node in ("node-1", "node-1", "node-2"))
    for token in (one, two, three):
        add_token(path, token)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not {first, second, other} & set(path.read_text().split())
    known = NodeTokens(path)
    assert [await known.authenticate(f"Bearer {each}") for each in (first, second, other)] == [
        "node-1",
        "node-1",
        "node-2",
    ]
    assert revoke_tokens(path, "node-1", one.id) == 1
    assert [await known.authenticate(f"Bearer {each}") for each in (first, second)] == [None, "node-1"]
    add_token(path, mint_token("node-1")[1])
    assert revoke_tokens(path, "node-1") == 2
    assert [await known.authenticate(f"Bearer {each}") for each in (second, other)] == [None, "node-2"]
    assert read_tokens(path) == (three,)


def test_what_somebody_wrote_beside_the_tokens_stays(path: Path) -> None:
    path.parent.mkdir()
    line = f"node-1 {'a' * 64}"
    path.write_text(f"# the cellar\n\n{line}\n")
    _, token = mint_token("node-2")
    add_token(path, token)
    assert path.read_text() == f"# the cellar\n\n{line}\n{token.line}\n"
    revoke_tokens(path, "node-1")
    assert path.read_text() == f"# the cellar\n\n{token.line}\n"


def test_a_file_that_is_broken_is_named_and_left_as_it_is(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("node-1 secret\n")
    for change in (lambda: add_token(path, mint_token("node-2")[1]), lambda: revoke_tokens(path, "node-1")):
        with pytest.raises(InvalidTokenFileError, match="line 1"):
            change()
    assert path.read_text() == "node-1 secret\n"


def test_what_is_not_there_cannot_be_revoked(path: Path) -> None:
    add_token(path, mint_token("node-1")[1])
    for node, token_id in (("node-2", ""), ("node-1", "00000000")):
        with pytest.raises(UnknownTokenError, match=f"{node} has no token"):
            revoke_tokens(path, node, token_id)
    assert len(read_tokens(path)) == 1


@pytest.mark.parametrize("name", ["", "a b", "Node", "#node", "-a", "a\nb", "a" * 254])
def test_a_name_that_no_node_can_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidNodeNameError):
        mint_token(name)


def test_tokens_that_are_added_at_once_are_all_there(path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: add_token(path, mint_token(f"node-{number}")[1]), range(100)))
    assert len(read_tokens(path)) == 100
