"""Skipped tests are loud: how many and why stands at the end of every run, and in CI a skip is a failure.

A test that needs what a machine may lack (a privilege, a program) skips with a reason that names it and how to get it.
CI has everything, so there such a skip means that the set-up is broken, and the run fails. A reason that begins with
`not applicable:` says that the test has nothing to test here, and stays a skip everywhere.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import pytest

NOT_APPLICABLE = "not applicable:"


def group_by_reason(reports: Iterable[pytest.TestReport | pytest.CollectReport]) -> dict[str, list[str]]:
    """Return reason -> node ids of the skipped tests in `reports`, the most frequent reason first."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for report in reports:
        groups[_read_reason(report)].append(report.nodeid)
    return dict(sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])))


def find_failures(reasons: Iterable[str], environment: Mapping[str, str]) -> list[str]:
    """Return the reasons that may not be skipped for in this environment: outside of CI, none."""
    if not environment.get("CI"):
        return []
    return [reason for reason in reasons if not reason.startswith(NOT_APPLICABLE)]


def _read_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(report.longrepr)
