import logging

import pytest

from cni.agent.announcement import PodAnnouncement
from cni.agent.eligibility import EligibilitySettings, EnrolmentDecision, choose_settings, decide_enrolment, is_enrolled
from cni.kernel.rules import PodSettings

AMBIENT = {"istio.io/dataplane-mode": "ambient"}
NONE = {"istio.io/dataplane-mode": "none"}
OTHER = {"istio.io/dataplane-mode": "sidecar"}


def announce(
    labels: dict[str, str] | None = None,
    namespace_labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    namespace: str = "default",
    host_network: bool = False,
) -> PodAnnouncement:
    return PodAnnouncement(
        uid="u",
        name="web",
        namespace=namespace,
        service_account="web",
        netns="/proc/1/ns/net",
        labels=labels or {},
        namespace_labels=namespace_labels or {},
        annotations=annotations or {},
        host_network=host_network,
    )


SIDECAR = {"sidecar.istio.io/status": "{}"}
DISABLED = {"ambient.istio.io/redirection": "disabled"}


@pytest.mark.parametrize(
    ("pod", "decision"),
    [
        pytest.param(announce(), EnrolmentDecision.NOT_LABELLED, id="no labels"),
        pytest.param(announce(AMBIENT), EnrolmentDecision.POD_LABEL, id="pod"),
        pytest.param(announce({}, AMBIENT), EnrolmentDecision.NAMESPACE_LABEL, id="namespace"),
        pytest.param(announce(NONE, AMBIENT), EnrolmentDecision.OPTED_OUT, id="pod opts out of its namespace"),
        pytest.param(announce(AMBIENT, NONE), EnrolmentDecision.POD_LABEL, id="pod opts in"),
        pytest.param(announce({}, OTHER), EnrolmentDecision.NOT_LABELLED, id="namespace of another mode"),
        pytest.param(announce(OTHER, AMBIENT), EnrolmentDecision.NAMESPACE_LABEL, id="pod of an unknown mode"),
        pytest.param(announce(AMBIENT, host_network=True), EnrolmentDecision.HOST_NETWORK, id="host network"),
        pytest.param(announce(AMBIENT, AMBIENT, SIDECAR), EnrolmentDecision.SIDECAR, id="sidecar"),
        pytest.param(announce(AMBIENT, {}, DISABLED), EnrolmentDecision.POD_LABEL, id="status is no opt-out"),
        pytest.param(
            announce(AMBIENT, AMBIENT, namespace="kube-system"), EnrolmentDecision.EXCLUDED_NAMESPACE, id="kube-system"
        ),
        pytest.param(
            announce(AMBIENT | {"app": "ztunnel"}, namespace="istio-system"), EnrolmentDecision.ZTUNNEL, id="ztunnel"
        ),
        pytest.param(announce(AMBIENT | {"app": "ztunnel"}), EnrolmentDecision.POD_LABEL, id="app called ztunnel"),
    ],
)
def test_enrolment_follows_labels_and_exclusions(pod: PodAnnouncement, decision: EnrolmentDecision) -> None:
    assert decide_enrolment(pod, EligibilitySettings()) is decision
    assert is_enrolled(pod, EligibilitySettings()) is decision.is_enrolled


def test_the_operator_chooses_which_namespaces_are_excluded() -> None:
    settings = EligibilitySettings(excluded_namespaces=frozenset({"legacy"}))
    assert is_enrolled(announce(AMBIENT, namespace="kube-system"), settings)
    assert not is_enrolled(announce(AMBIENT, namespace="legacy"), settings)


@pytest.mark.parametrize(
    ("annotations", "settings"),
    [
        ({}, PodSettings()),
        ({"ambient.istio.io/bypass-inbound-capture": "true"}, PodSettings(bypass_inbound_capture=True)),
        ({"ambient.istio.io/bypass-inbound-capture": "0"}, PodSettings()),
        ({"ambient.istio.io/dns-capture": "T"}, PodSettings(dns_capture=True)),
        ({"istio.io/reroute-virtual-interfaces": "vnet0, vnet1,"}, PodSettings(reroute_interfaces=("vnet0", "vnet1"))),
        ({"istio.io/reroute-virtual-interfaces": "vnet0,vnet0"}, PodSettings(reroute_interfaces=("vnet0",))),
    ],
    ids=["none", "ingress", "not ingress", "DNS", "interfaces", "interface twice"],
)
def test_annotations_override_the_nodes_settings(annotations: dict[str, str], settings: PodSettings) -> None:
    assert choose_settings(announce(annotations=annotations), PodSettings()) == settings


def test_a_pod_may_switch_off_what_the_node_switches_on() -> None:
    pod = announce(annotations={"ambient.istio.io/dns-capture": "false"})
    assert choose_settings(pod, PodSettings(ipv6=False, dns_capture=True)) == PodSettings(ipv6=False)


@pytest.mark.parametrize(
    "annotations",
    [
        {"ambient.istio.io/bypass-inbound-capture": "yes please"},
        {"ambient.istio.io/dns-capture": ""},
        {"istio.io/reroute-virtual-interfaces": "a-name-of-more-than-fifteen"},
        {"istio.io/reroute-virtual-interfaces": 'eth0" accept; #'},
        {"istio.io/reroute-virtual-interfaces": ".."},
    ],
    ids=["word", "empty", "long interface", "nft in an interface", "dots"],
)
def test_an_annotation_that_does_not_parse_is_ignored_with_a_warning(
    annotations: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert choose_settings(announce(annotations=annotations), PodSettings()) == PodSettings()
    (record,) = caplog.records
    assert (record.getMessage(), record.__dict__["pod"]) == ("annotation ignored", "web")
