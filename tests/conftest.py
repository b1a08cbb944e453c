"""What every test run says about itself: see tests/support/skips.py."""

import os
import signal

import pytest

from tests.support import skips

# A shell without job control starts background commands with SIGINT ignored, and programs inherit that: the tests that
# interrupt one would then interrupt nobody.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _skipped(config: pytest.Config) -> dict[str, list[str]]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return skips.group_by_reason(reporter.stats.get("skipped", [])) if reporter else {}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run when it skipped, in CI, what CI must have."""
    if session.exitstatus == pytest.ExitCode.OK and skips.find_failures(_skipped(session.config), os.environ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print how many tests were skipped and why, last before pytest's closing line."""
    groups = _skipped(config)
    if not groups:
        return
    failures = skips.find_failures(groups, os.environ)
    count = sum(map(len, groups.values()))
    terminalreporter.section(f"{count} SKIPPED", red=bool(failures), bold=True)
    for reason, tests in groups.items():
        verdict = "  <- fails this run: CI must have it" if reason in failures else ""
        terminalreporter.line(f"{len(tests):5}  {reason}{verdict}")
