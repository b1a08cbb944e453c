from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

REPOSITORY = Path(__file__).parents[2]
CONFTEST = "from tests.conftest import pytest_sessionfinish, pytest_terminal_summary"


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    pytester.makeconftest(CONFTEST)
    return pytester


def skip_with(run: pytest.Pytester, reason: str) -> pytest.RunResult:
    run.makepyfile(f"import pytest\ndef test_passes(): pass\ndef test_skips(): pytest.skip({reason!r})")
    return run.runpytest_subprocess()


def test_skips_are_counted_with_their_reason(run: pytest.Pytester) -> None:
    result = skip_with(run, "needs nft: apt-get install nftables")
    result.stdout.fnmatch_lines(["*1 SKIPPED*", "*1  needs nft: apt-get install nftables"])
    assert result.ret == pytest.ExitCode.OK


def test_a_skip_for_something_missing_fails_in_ci(run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    result = skip_with(run, "needs nft: apt-get install nftables")
    result.stdout.fnmatch_lines(["*<- fails this run*"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_a_skip_for_nothing_to_test_passes_in_ci(run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    assert skip_with(run, "not applicable: only where pods share a node").ret == pytest.ExitCode.OK


def test_a_skipped_module_counts_too(run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    run.makepyfile("import pytest\npytest.skip('needs root', allow_module_level=True)")
    assert run.runpytest_subprocess().ret != pytest.ExitCode.OK


def test_a_run_without_skips_says_nothing_of_them(run: pytest.Pytester) -> None:
    run.makepyfile("def test_passes(): pass")
    run.runpytest_subprocess().stdout.no_fnmatch_line("*SKIPPED*")
