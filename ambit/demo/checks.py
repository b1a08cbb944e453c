"""What the demo's evidence says: pure functions from answers, logs and a capture to rows of the table."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from ambit.demo.access_log import AccessLine
from ambit.demo.pcap import read_frames, read_tcp_segments
from ambit.demo.report import Row
from ambit.demo.tls import TLS_1_3, find_server_hellos
from ambit.demo.traffic import OUTSIDE, Addressing, Answer, Placement, pod_identity
from ambit.lab.status import PodStatus, ProcessStatus

HBONE_PORT = 15008

WAYS = (
    (Placement.ACROSS_NODES, Addressing.NAME),
    (Placement.ACROSS_NODES, Addressing.SERVICE),
    (Placement.ACROSS_NODES, Addressing.POD),
    (Placement.ON_ONE_NODE, Addressing.NAME),
    (Placement.ON_ONE_NODE, Addressing.SERVICE),
    (Placement.ON_ONE_NODE, Addressing.POD),
    (Placement.FROM_OUTSIDE, Addressing.POD),
)
"""Each must have been gone: where there was no request, the row fails."""


def judge_enrolment(pods: Iterable[PodStatus], warnings: Sequence[str]) -> Row:
    """Whether the pods that are to be in the mesh are, the one outside is not, and nothing was odd when all came up."""
    pods = list(pods)
    meshed = [pod for pod in pods if pod.namespace != OUTSIDE]
    enrolled = [pod for pod in pods if pod.enrolled]
    measured = f"{len(enrolled)} of {len(meshed)} pods, on {len({pod.node for pod in enrolled})} nodes"
    measured += "".join(f"; {warning}" for warning in warnings)
    return Row("pods enrolled in the mesh", measured, bool(meshed) and enrolled == meshed and not warnings)


def judge_answers(answers: Sequence[Answer]) -> list[Row]:
    """A row for each placement and addressing: how many requests were answered, and how fast."""
    rows = []
    for placement, addressing in WAYS:
        way = (placement, addressing)
        group = [each for each in answers if (each.request.placement, each.request.addressing) == way]
        rows.append(Row(f"{placement}, {addressing}", _describe_answers(group), _all_ok(group)))
    return rows


def judge_client_addresses(answers: Sequence[Answer], seen: Mapping[str, str]) -> Row:
    """Whether each server saw the address of the pod that the request came from; `seen` is by marker."""
    right = [each for each in answers if seen.get(each.request.marker) in each.request.client.addresses]
    wrong = [each for each in answers if each not in right]
    example = {each.request.family: seen[each.request.marker] for each in right if each.request.is_meshed}
    measured = f"{len(right)} of {len(answers)} requests, as {' and '.join(example.values()) or 'none'}"
    if wrong:
        found = seen.get(wrong[0].request.marker, "nothing")
        measured += f"; {_way(wrong[0])} was seen from {found}"
    return Row("client's own address, at the server", measured, bool(answers) and not wrong)


def judge_identities(answers: Sequence[Answer], lines: Sequence[AccessLine]) -> Row:
    """Whether both nodes' access logs (`lines`) name both ends' identities for each request across nodes."""
    crossing = [each for each in answers if each.request.placement is Placement.ACROSS_NODES]
    ends = {_ends(each) for each in crossing}
    outbound = {line.source: _proven(line) for line in lines if line.direction == "outbound"}
    # A tunnel's port is not the client's own, so that the server's side can only be counted.
    inbound = Counter((line.source_address, *_proven(line)) for line in lines if line.direction == "inbound")
    missing = [each for each in crossing if outbound.get(each.client) != _ends(each)]
    expected = Counter((each.client_address, *_ends(each)) for each in crossing)
    unproven = expected - inbound
    pairs = [f"{source} → {destination}" for source, destination in sorted(ends)]
    measured = f"{', '.join(pairs)}; {len(crossing)} connections, in both nodes' access logs"
    if missing:
        measured = f"client's log says {outbound.get(missing[0].client, 'nothing')} about {_way(missing[0])}"
    elif unproven:
        measured = f"server's log lacks {unproven.total()} of {len(crossing)} connections, as {next(iter(unproven))}"
    return Row("identities of both ends", measured, bool(crossing) and not missing and not unproven)


def judge_capture(capture: bytes, dropped: int, meshed: Sequence[str], outside: Sequence[str]) -> list[Row]:
    """What somebody on the network between the nodes could read; `meshed` and `outside` are the requests' markers.

    A capture that lacks frames (`dropped`) proves nothing about what was never on the wire.
    """
    frames = sum(1 for _ in read_frames(capture))
    volume = f"{frames} frames, {len(capture) / 1024:.0f} KiB" + (f", {dropped} more lost" if dropped else "")
    readable = [marker for marker in outside if marker.encode() in capture]
    leaked = [marker for marker in meshed if marker.encode() in capture]
    hellos = find_server_hellos(read_tcp_segments(capture), HBONE_PORT)
    chosen = Counter(f"TLS 1.{hello.version - 0x0301} {hello.cipher_name}" if hello else "no TLS" for hello in hellos)
    described = ", ".join(f"{count} × {name}" for name, count in chosen.items())
    return [
        Row(
            "outside pod's text, between the nodes",
            f"found {len(readable)} of {len(outside)} markers in {volume}",
            bool(outside) and len(readable) == len(outside),
        ),
        Row(
            "meshed pods' text, between the nodes",
            f"found {len(leaked)} of {len(meshed)} markers in {volume}",
            bool(meshed) and not leaked and not dropped,
        ),
        Row(
            f"handshakes on port {HBONE_PORT}",
            described or "none seen",
            bool(hellos) and all(hello is not None and hello.version == TLS_1_3 for hello in hellos),
        ),
    ]


def judge_memory(processes: Iterable[ProcessStatus]) -> list[Row]:
    """A row for each kind of process with the proportional set size of each."""
    kinds: dict[str, list[ProcessStatus]] = {}
    for process in processes:
        kinds.setdefault(process.name.partition("/")[0], []).append(process)
    return [
        Row(
            f"memory (PSS) of {kind}",
            ", ".join(f"{process.node} {_mebibytes(process.pss_bytes)}".strip() for process in group),
            all(process.pss_bytes for process in group),
        )
        for kind, group in kinds.items()
    ]


def _describe_answers(answers: Sequence[Answer]) -> str:
    good = [each for each in answers if each.is_ok]
    speeds = ", ".join(
        f"IPv{family} {1000 * median(seconds):.1f} ms"
        for family in (4, 6)
        if (seconds := [each.seconds for each in good if each.request.family == family])
    )
    text = f"{len(good)} of {len(answers)} answered"
    failed = [each for each in answers if not each.is_ok]
    if failed:
        return f"{text}; {_way(failed[0])}: HTTP {failed[0].status} {failed[0].failure}"
    return f"{text}: {speeds}"


def _all_ok(answers: Sequence[Answer]) -> bool:
    return bool(answers) and all(each.is_ok for each in answers)


def _ends(answer: Answer) -> tuple[str, str]:
    return pod_identity(answer.request.client), pod_identity(answer.request.server)


def _proven(line: AccessLine) -> tuple[str, str]:
    return line.source_identity, line.destination_identity


def _way(answer: Answer) -> str:
    request = answer.request
    client, server = request.client, request.server
    names = f"{client.namespace}/{client.name} → {server.namespace}/{server.name}"
    return f"{names} {request.addressing}, IPv{request.family}"


def _mebibytes(count: int | None) -> str:
    return "unknown" if count is None else f"{count / (1 << 20):.1f} MiB"
