"""EndpointSlices: endpoints of Services that no selector finds."""

import pytest

from controller.sources.documents import parse_documents
from mesh.wire import workload_pb2 as pb
from tests.support import objects
from tests.support.publishing import publish

BARE = "clusterIP: 192.0.2.1, ports: [{name: http, port: 80}, {name: other, port: 81}]"
UID = "Kubernetes/discovery.k8s.io/EndpointSlice/demo/web-1"
KEY = "demo/web.demo.svc.cluster.local"


def test_endpoints_that_are_no_pods_serve_by_the_names_of_their_ports() -> None:
    served = publish(
        objects.service(spec=BARE),
        objects.endpoint_slice(
            "endpoints: [{addresses: [203.0.113.1]}, {addresses: [203.0.113.2], conditions: {ready: false}}], "
            "ports: [{name: http, port: 8080}, {name: udp, port: 53, protocol: UDP}]"
        ),
    )
    one, two = (served[f"{UID}/203.0.113.{last}"].workload for last in (1, 2))
    assert [(port.service_port, port.target_port) for port in one.services[KEY].ports] == [(80, 8080)]
    assert (one.status, two.status) == (pb.HEALTHY, pb.UNHEALTHY)
    assert not one.tunnel_protocol, "nobody there would understand a tunnel"


def test_pods_that_a_slice_names_serve_a_service_without_selector_once() -> None:
    pod, ports = "targetRef: {kind: Pod, name: web-1}", "ports: [{name: http, port: 8080}]"
    served = publish(
        objects.service(spec=BARE),
        objects.pod(),
        objects.endpoint_slice(f"endpoints: [{{addresses: [198.51.100.1], {pod}}}], {ports}"),
        objects.endpoint_slice(f"endpoints: [{{addresses: ['2001:db8::1'], {pod}}}], {ports}", "web-2", family="IPv6"),
    )
    assert set(served) == {KEY, "Kubernetes//Pod/demo/web-1"}
    found = served["Kubernetes//Pod/demo/web-1"].workload.services[KEY].ports
    assert [(port.service_port, port.target_port) for port in found] == [(80, 8080)]


def test_slices_of_a_service_with_a_selector_add_no_pods() -> None:
    named = "endpoints: [{addresses: [198.51.100.9], targetRef: {kind: Pod, name: other}}], ports: [{port: 80}]"
    served = publish(objects.service(), objects.pod("other", labels="app: x"), objects.endpoint_slice(named))
    assert not served["Kubernetes//Pod/demo/other"].workload.services


@pytest.mark.parametrize(
    ("service", "family"), [("nobody", "IPv4"), ("web", "FQDN")], ids=["of no service", "of names"]
)
def test_what_leads_nowhere_is_left_out(service: str, family: str) -> None:
    address = "vm.example" if family == "FQDN" else "203.0.113.1"
    part = objects.endpoint_slice(f"endpoints: [{{addresses: [{address}]}}]", service=service, family=family)
    assert set(publish(objects.service(spec=BARE), part)) == {KEY}


def test_an_address_of_the_other_family_is_refused() -> None:
    parsed = parse_documents(
        "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: a}, addressType: IPv6, "
        "endpoints: [{addresses: [192.0.2.1]}]}",
        "a.yaml",
    )
    assert "192.0.2.1 is no IPv6 address" in parsed.problems[0].message
