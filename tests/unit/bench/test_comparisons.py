from bench import connections, l4, memory
from bench.connections import Trace, Usage
from bench.loads import (
    CLOSED_FAILURES,
    CLOSED_REQUESTS,
    CONNECTIONS,
    KEPT_REQUESTS,
    LATENCY_P50,
    LATENCY_P99,
    THROUGHPUT_1,
    THROUGHPUT_8,
)
from bench.pods import Memory
from bench.report import Row
from bench.samples import Measure, Samples, collect
from bench.setups import (
    AMBIENT_ACROSS,
    AMBIENT_SAME_NODE,
    ENVOY_PAIR,
    HAPROXY_PAIR,
    NO_MESH,
    NO_MESH_SAME_NODE,
    Setup,
)

BASE = {
    NO_MESH: 50.0,
    NO_MESH_SAME_NODE: 40.0,
    AMBIENT_SAME_NODE: 60.0,
    AMBIENT_ACROSS: 90.0,
    ENVOY_PAIR: 130.0,
    HAPROXY_PAIR: 120.0,
}

WITHOUT_HTTP = (THROUGHPUT_1, THROUGHPUT_8, LATENCY_P50, LATENCY_P99, CONNECTIONS)


def sample(*measures: Measure) -> Samples:
    samples = Samples()
    for measure in measures:
        for setup, value in BASE.items():
            samples.add(measure, setup, value)
    return samples


def row_named(rows: list[Row], start: str) -> Row:
    return next(row for row in rows if row.measure.startswith(start))


def test_setups_take_turns_within_each_load_and_take_turns_at_being_first() -> None:
    turns: list[str] = []

    def probe(name: str, setup: Setup) -> dict[Measure, float]:
        turns.append(f"{name}:{setup.server}")
        return {CONNECTIONS: 1.0}

    probes = {name: lambda setup, name=name: probe(name, setup) for name in ("a", "b")}
    collect(probes, [NO_MESH, NO_MESH_SAME_NODE], rounds=2, progress=lambda _text: None)

    assert turns == ["a:far", "a:near", "b:far", "b:near", "a:near", "a:far", "b:near", "b:far"]


def test_one_disturbed_round_does_not_move_the_median() -> None:
    samples = Samples()
    for value in (100.0, 102.0, 3.0):
        samples.add(CONNECTIONS, NO_MESH, value)
    assert samples.median(CONNECTIONS, NO_MESH) == 100.0


ACROSS, SAME = "ambient, across nodes", "ambient, same node"
PAIR, PLAIN, PLAIN_SAME = "Envoy pair, across nodes", "no mesh, across nodes", "no mesh, same node"


def test_each_measure_has_its_aim() -> None:
    rows = l4.build_rows(sample(*l4.AGAINST_PEER, CLOSED_FAILURES))

    assert {row.measure: str(row.aim) for row in rows if row.aim is not None} == {
        f"{THROUGHPUT_1.title}: {ACROSS} vs {PAIR}": "ratio >= 1.15",
        f"{THROUGHPUT_8.title}: {ACROSS} vs {PAIR}": "ratio >= 1.15",
        f"{THROUGHPUT_1.title}: {SAME} vs {PLAIN_SAME}": "ratio >= 0.55",
        f"{LATENCY_P50.title}: {ACROSS} vs {PAIR}": "ratio <= 1",
        f"{LATENCY_P99.title}: {ACROSS} vs {PAIR}": "ratio <= 1",
        f"added latency p50: {ACROSS} vs {PAIR}": "ratio <= 0.65",
        f"added latency p50: {SAME}": "ours <= 25",
        f"{KEPT_REQUESTS.title}: {ACROSS} vs {PAIR}": "ratio >= 1.5",
        f"{CONNECTIONS.title}: {ACROSS} vs {PAIR}": "ratio >= 3",
        f"{CONNECTIONS.title}: {ACROSS} vs {PLAIN}": "ratio >= 0.6",
        f"{CLOSED_REQUESTS.title}: {ACROSS} vs {PAIR}": "ratio >= 5",
        f"{CLOSED_FAILURES.title}, worst round: {ACROSS} vs {PAIR}": "ours <= 0",
    }


def test_rows_with_an_aim_come_first() -> None:
    aimless = [row.aim is None for row in l4.build_rows(sample(*l4.AGAINST_PEER, CLOSED_FAILURES))]
    assert aimless == sorted(aimless)


def test_one_round_with_a_failure_misses_the_aim() -> None:
    samples = sample(*l4.AGAINST_PEER)
    for failures in (0.0, 1.0, 0.0):
        for setup in BASE:
            samples.add(CLOSED_FAILURES, setup, failures)

    row = row_named(l4.build_rows(samples), CLOSED_FAILURES.title)

    assert (row.ours, row.is_met) == (1.0, False)


def test_added_latency_is_over_the_same_way_without_a_mesh() -> None:
    rows = l4.build_rows(sample(*WITHOUT_HTTP))

    across = row_named(rows, "added latency p50: ambient, across nodes")
    same = row_named(rows, "added latency p50: ambient, same node")

    assert (across.ours, across.peer) == (40.0, 80.0)
    assert (same.ours, same.peer) == (20.0, None)


def test_loads_that_were_not_run_have_no_rows() -> None:
    measures = {row.measure.partition(":")[0] for row in l4.build_rows(sample(*WITHOUT_HTTP))}
    assert not measures & {KEPT_REQUESTS.title, CLOSED_REQUESTS.title, CLOSED_FAILURES.title}


def test_connections_that_are_not_let_go_miss_the_aim() -> None:
    before, leaking = Usage(40, 14.0), Usage(1040, 20.0)

    kept = connections.build_rows("ztunnel/node-1", "in sequence", Trace(before, before, Usage(42, 15.0)))
    leaked = connections.build_rows("ztunnel/node-1", "in sequence", Trace(before, leaking, leaking))

    assert [row.is_met for row in kept] == [True, True, None]
    assert [row.is_met for row in leaked] == [False, False, None]


def test_what_carries_the_bytes_is_compared_with_all_sidecars() -> None:
    processes = {
        name: Memory(pss, pss + 10) for name, pss in (("controller", 80), ("cni/node-1", 30), ("ztunnel/node-1", 15))
    }

    *each, total = memory.build_rows(10, processes, [Memory(40, 60)] * 10)

    assert (total.ours, total.peer) == (45.0, 400.0)
    assert {row.measure.rpartition(" ")[2]: row.is_met for row in each} == {
        "controller": None,
        "cni/node-1": True,
        "ztunnel/node-1": True,
    }
