import json
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.agent.announcement import (
    InvalidAnnouncementError,
    PodAnnouncement,
    build_announcement,
    encode_announcement,
    parse_announcement,
)
from mesh.wire import zds_pb2

LEAST: dict[str, object] = {
    "uid": "8f1e",
    "name": "web-1",
    "namespace": "shop",
    "service_account": "web",
    "netns": "/proc/7/fd/9",
}
TEXTS = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=63)
PODS = st.builds(
    PodAnnouncement,
    uid=TEXTS,
    name=TEXTS,
    namespace=TEXTS,
    service_account=TEXTS,
    netns=TEXTS,
    addresses=st.lists(st.ip_addresses(), max_size=4).map(tuple),
    labels=st.dictionaries(st.text(), st.text()),
    annotations=st.dictionaries(st.text(), st.text()),
    namespace_labels=st.dictionaries(st.text(), st.text()),
    host_network=st.booleans(),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


def test_a_minimal_announcement_is_outside_of_everything() -> None:
    pod = parse_announcement(json.dumps(LEAST))
    assert (pod.addresses, pod.labels, pod.annotations, pod.namespace_labels, pod.host_network) == (
        (),
        {},
        {},
        {},
        False,
    )


def test_addresses_of_both_ip_versions_are_read() -> None:
    pod = build_announcement(LEAST | {"addresses": ["192.0.2.1", "2001:db8::1"]})
    assert pod.addresses == (ip_address("192.0.2.1"), ip_address("2001:db8::1"))


def test_fields_of_newer_sources_are_ignored() -> None:
    assert build_announcement(LEAST | {"qos": "best"}) == build_announcement(LEAST)


@pytest.mark.parametrize("name", list(LEAST))
@pytest.mark.parametrize(
    "value", [None, "", 7, "two\nlines", "x" * 5000], ids=["null", "empty", "number", "lines", "long"]
)
def test_a_bad_field_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidAnnouncementError, match=f"^{name}: ") as refusal:
        build_announcement(LEAST | {name: value})
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("addresses", "192.0.2.1", "addresses: expected a list"),
        ("addresses", ["192.0.2.256"], "addresses: '192.0.2.256'"),
        ("addresses", ["192.0.2.1"] * 65, "at most 64"),
        ("labels", ["a"], "labels: expected an object"),
        ("labels", {"app": 1}, "labels.app: 1 is not a text"),
        ("host_network", "yes", "host_network: 'yes' is neither"),
    ],
)
def test_a_field_of_another_form_is_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(InvalidAnnouncementError, match=message):
        build_announcement(LEAST | {field: value})


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"7", b"\xff\xfe", b'"pod"'])
def test_what_is_not_a_json_object_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidAnnouncementError):
        parse_announcement(text)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_do_worse_than_being_refused(text: bytes) -> None:
    try:
        parse_announcement(text)
    except InvalidAnnouncementError:
        pass


@given(st.dictionaries(st.sampled_from([*LEAST, "addresses", "labels", "host_network"]), JSON))
def test_no_object_does_worse_than_being_refused(fields: dict[str, object]) -> None:
    try:
        build_announcement(LEAST | fields)
    except InvalidAnnouncementError:
        pass


@given(PODS)
def test_what_is_encoded_is_read_back(pod: PodAnnouncement) -> None:
    assert parse_announcement(json.dumps(encode_announcement(pod))) == pod


def test_the_longest_names_fit_the_packet_that_ztunnel_reads() -> None:
    longest = build_announcement(
        LEAST | {"uid": "u" * 253, "name": "n" * 253, "namespace": "s" * 63, "service_account": "a" * 253}
    )
    info = zds_pb2.WorkloadInfo(name=longest.name, namespace=longest.namespace, service_account=longest.service_account)
    request = zds_pb2.WorkloadRequest(add=zds_pb2.AddWorkload(uid=longest.uid, workload_info=info))
    assert len(request.SerializeToString()) < 1024
