"""The verdict on an object that somebody applies. Pure.

The same door as for every source: what is invalid there is denied here, with field, reason and code. What is valid and
fits nothing else that there is gets a warning, as `ambit analyze` would give it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from controller.analysis.findings import Finding
from controller.analysis.given import Given
from controller.analysis.report import CHECKS
from controller.kinds.catalogue import CATALOGUE, Catalogue
from controller.registry.names import MeshSettings
from controller.snapshot import Snapshot
from controller.sources.documents import PlainObject, parse_plain

# The checks look at all there is; an answer should not take seconds.
MAX_OBJECTS = 20_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an object is let in. The message says why not; warnings are shown to who applies it, either way."""

    is_allowed: bool
    message: str = ""
    warnings: Sequence[str] = ()


def judge(
    document: PlainObject, snapshot: Snapshot, settings: MeshSettings, catalogue: Catalogue = CATALOGUE
) -> Verdict:
    """The verdict on an object as the API server has it. What is of a kind that is not read is let in."""
    if (str(document.get("apiVersion")), str(document.get("kind"))) not in catalogue:
        return Verdict(is_allowed=True)
    parsed = parse_plain(document, "", catalogue)
    if parsed.problems:
        reasons = (f"{each.path or 'object'}: {each.message} [{each.code}]" for each in parsed.problems)
        return Verdict(is_allowed=False, message="; ".join(reasons))
    [located] = parsed.objects
    if snapshot.object_count > MAX_OBJECTS:
        return Verdict(is_allowed=True)
    given = Given(snapshot.apply({located.value.key: located.value}), settings)
    found = {finding for check in CHECKS for finding in check(given) if finding.key == located.value.key}
    return Verdict(is_allowed=True, warnings=sorted(map(_show, found)))


def _show(finding: Finding) -> str:
    field = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in finding.path).lstrip(".")
    return f"{field}: {finding.message} [{finding.code}]"
