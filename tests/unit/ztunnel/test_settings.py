"""The environment as Istio writes it: ztunnel.settings."""

import pytest

from mesh.kit.errors import InvalidInputError
from ztunnel.settings import build_node_id, build_node_metadata, parse_seconds, read_settings


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5s", 5.0), ("500ms", 0.5), ("1m", 60.0), ("2h", 7200.0), ("1.5s", 1.5)],
)
def test_durations_have_a_unit(text: str, seconds: float) -> None:
    assert parse_seconds("X", text) == seconds


@pytest.mark.parametrize("text", ["", "5", "s", "-1s", "5 s", "1.2.3s", "fast"])
def test_what_is_no_duration_is_refused_with_the_variable_named(text: str) -> None:
    with pytest.raises(InvalidInputError, match="CONNECTION_TERMINATION_DEADLINE"):
        read_settings({"CONNECTION_TERMINATION_DEADLINE": text})


@pytest.mark.parametrize("text", ["0", "-1", "two", ""])
def test_a_bad_number_of_threads_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="ZTUNNEL_WORKER_THREADS"):
        read_settings({"ZTUNNEL_WORKER_THREADS": text})


def test_the_node_id_is_that_of_a_stock_ztunnel() -> None:
    env = {"POD_NAME": "ztunnel-x", "POD_NAMESPACE": "istio-system", "INSTANCE_IP": "192.0.2.1"}
    assert build_node_id(env) == "ztunnel~192.0.2.1~ztunnel-x.istio-system~istio-system.svc.cluster.local"


def test_metadata_can_be_added_by_the_environment() -> None:
    metadata = build_node_metadata({"NODE_NAME": "n1", "ISTIO_META_CLUSTER_ID": "c2"}, "Kubernetes")
    assert metadata["NODE_NAME"] == "n1"
    assert metadata["CLUSTER_ID"] == "c2"
