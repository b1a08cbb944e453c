"""What a table's content sums up to, and what has changed since a summary."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from controller.serve import resources
from controller.serve.resources import Resource, ResourceChanges, ResourceTable

Step = Mapping[str, str | None]
STEPS = st.lists(
    st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["1", "2", "3"]) | st.none(), min_size=1), max_size=12
)


def apply(table: ResourceTable, step: Step) -> None:
    updated = {name: Resource(name, version, b"") for name, version in step.items() if version}
    table.apply(ResourceChanges(updated, frozenset(step) - updated.keys()))


def versions_of(table: ResourceTable) -> dict[str, str | None]:
    return {name: table.version(name) for name in table.names()}


def test_it_is_what_clients_make_of_the_same() -> None:
    """The same texts as in dataplane/io/src/control/summary.rs."""
    table = ResourceTable()
    assert table.summary == 0
    apply(table, {"demo/web": "1", "Kubernetes//Pod/demo/web-1": "0123456789abcdef"})
    assert f"{table.summary:032x}" == "1d2eb6a8596b4a3b8d7dfdcd2eff0c83"


@given(STEPS)
def test_equal_content_has_equal_summaries_however_it_came_about(steps: list[Step]) -> None:
    table, fresh = ResourceTable(), ResourceTable()
    for step in steps:
        apply(table, step)
    for name, version in versions_of(table).items():
        apply(fresh, {name: version})
    assert table.summary == fresh.summary


@given(STEPS, STEPS)
def test_all_that_differs_has_changed_since(before: list[Step], after: list[Step]) -> None:
    table = ResourceTable()
    for step in before:
        apply(table, step)
    summary, then = table.summary, versions_of(table)
    for step in after:
        apply(table, step)
    changed = table.find_changed_since(summary)
    now = versions_of(table)
    differing = {name for name in {*then, *now} if then.get(name) != now.get(name)}
    assert changed is not None
    assert differing <= set(changed)


def test_what_nobody_remembers_is_not_known() -> None:
    table = ResourceTable()
    apply(table, {"a": "1"})
    assert table.find_changed_since(12345) is None
    first = table.summary
    many = {f"name-{number}": "1" for number in range(resources.REMEMBERED_NAMES)}
    apply(table, many)
    assert table.find_changed_since(first) == many.keys()
    apply(table, {"a": "2"})
    assert table.find_changed_since(first) is None
