"""What bench cluster writes is what the controller reads, and its table."""

from collections.abc import Iterator

from bench.cluster import FULL_SIZE, QUICK_SIZE, Figures, build_rows
from bench.population import PODS_PER_SERVICE, Request, create_agent, create_pod, create_service
from controller.kinds.core import Pod, Service
from controller.kinds.meta import KubernetesObject
from controller.registry.services import selects
from controller.sources.documents import PlainObject, parse_plain


def parse(document: PlainObject) -> KubernetesObject:
    parsed = parse_plain(document, "cluster")
    assert not parsed.problems, [str(problem) for problem in parsed.problems]
    [located] = parsed.objects
    return located.value


def pods_of(requests: Iterator[tuple[Request, Request]]) -> list[Pod]:
    """Pods as they are after both of their requests."""
    pods = [parse({**created.body, **told.body}) for created, told in requests]
    return [pod for pod in pods if isinstance(pod, Pod)]


def test_its_pods_and_services_are_valid_and_belong_together() -> None:
    pods = pods_of(create_pod(number, number % 3) for number in range(3 * PODS_PER_SERVICE))
    agents = pods_of(create_agent(number) for number in range(3))
    assert len({pod.addresses for pod in [*pods, *agents]}) == 3 * PODS_PER_SERVICE + 3
    assert all(pod.is_ready and pod.addresses for pod in [*pods, *agents])
    for number in range(3):
        service = parse(create_service(number).body)
        assert isinstance(service, Service)
        mine = [pod for pod in pods if pod.namespace == service.namespace and selects(service, pod.labels)]
        assert len(mine) == PODS_PER_SERVICE


FIGURES = Figures(2.0, 3.0, [float(each) for each in range(1, 101)], [0.5] * 100, 200.0, 301.0)


def test_its_table_has_aims_at_full_size_only_and_the_peer_where_it_was_measured() -> None:
    full = {row.measure.partition(": ")[2]: row for row in build_rows(FULL_SIZE, FIGURES, FIGURES)}
    assert {name: row.is_met for name, row in full.items() if row.aim} == {
        "all agents connect at once, until the last has everything": True,
        "a pod changes, until the last has it, p50": False,
        "a pod changes, until the last has it, p99": True,
        "PSS after all of this": False,
    }
    assert full["a pod changes, until the last has it, p50"].ours == 50.0
    assert full["a pod changes, until the last has it, p99"].ours == 99.0
    assert {row.ratio for row in full.values()} == {1.0}
    assert all(row.aim is None and row.peer is None for row in build_rows(QUICK_SIZE, FIGURES, None))
