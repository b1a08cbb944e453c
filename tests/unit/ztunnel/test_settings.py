"""The environment as Istio writes it: ztunnel.settings."""

import pytest

from mesh.kit.errors import InvalidInputError
from ztunnel.settings import build_node_id, build_node_metadata, read_settings
from ztunnel.values import parse_seconds, read_number


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


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PACKET_MARK", "0"),
        ("PACKET_MARK", "0x100000000"),
        ("PACKET_MARK", "many"),
        ("IPV6_ENABLED", "no"),
        ("IPV6_ENABLED", "True"),
        ("ENABLE_ORIG_SRC", ""),
        ("KEEPALIVE_ENABLED", "1"),
        ("KEEPALIVE_TIME", "10"),
        ("KEEPALIVE_TIME", "10ms"),
        ("KEEPALIVE_INTERVAL", "10h"),
        ("KEEPALIVE_RETRIES", "0"),
        ("USER_TIMEOUT_ENABLED", "yes"),
        ("POOL_MAX_STREAMS_PER_CONNECTION", "65536"),
        ("POOL_UNUSED_RELEASE_TIMEOUT", "5"),
        ("HTTP2_STREAM_WINDOW_SIZE", "2147483648"),
        ("HTTP2_CONNECTION_WINDOW_SIZE", "65534"),
        ("HTTP2_FRAME_SIZE", "16383"),
        ("ENABLE_RESPONSE_BAGGAGE", "maybe"),
        ("LOCALHOST_APP_TUNNEL", "off"),
        ("UNSTABLE_ENABLE_SOCKS5", "on"),
        ("PROXY_MODE", "dedicated"),
        ("SECRET_TTL", "1s"),
        ("SECRET_TTL", "24"),
        ("TLS12_ENABLED", "true"),
        ("COMPLIANCE_POLICY", "fips"),
        ("AUTHZ_POLICY_INFO_LOGGING", "yes"),
        ("XDS_ON_DEMAND", "yes"),
    ],
)
def test_what_the_traffic_cannot_be_set_to_is_refused_with_the_variable_named(name: str, text: str) -> None:
    with pytest.raises(InvalidInputError, match=name):
        read_settings({name: text})


def test_every_setting_of_the_traffic_is_taken() -> None:
    read_settings(
        {
            "PACKET_MARK": "0x539",
            "IPV6_ENABLED": "false",
            "INPOD_PORT_REUSE": "false",
            "ZTUNNEL_WORKER_THREADS": "1",
            "ENABLE_ORIG_SRC": "true",
            "KEEPALIVE_TIME": "30s",
            "KEEPALIVE_INTERVAL": "1m",
            "KEEPALIVE_RETRIES": "3",
            "USER_TIMEOUT_ENABLED": "true",
            "POOL_MAX_STREAMS_PER_CONNECTION": "2",
            "POOL_UNUSED_RELEASE_TIMEOUT": "500ms",
            "HTTP2_STREAM_WINDOW_SIZE": "65535",
            "HTTP2_CONNECTION_WINDOW_SIZE": "65535",
            "HTTP2_FRAME_SIZE": "16384",
            "ENABLE_RESPONSE_BAGGAGE": "false",
            "LOCALHOST_APP_TUNNEL": "false",
            "UNSTABLE_ENABLE_SOCKS5": "true",
            "PROXY_MODE": "shared",
            "SECRET_TTL": "2s",
            "TLS12_ENABLED": "false",
            "COMPLIANCE_POLICY": "pqc",
            "CRL_PATH": "/nowhere/ca-crl.pem",
            "AUTHZ_POLICY_INFO_LOGGING": "true",
        }
    )


def test_discovery_on_demand_and_the_dns_proxy_exclude_each_other() -> None:
    read_settings({"XDS_ON_DEMAND": "true", "ISTIO_META_DNS_CAPTURE": "false"})
    with pytest.raises(InvalidInputError, match="ISTIO_META_DNS_CAPTURE=false"):
        read_settings({"XDS_ON_DEMAND": "true"})


def test_one_listener_a_port_cannot_serve_several_workers() -> None:
    with pytest.raises(InvalidInputError, match="INPOD_PORT_REUSE"):
        read_settings({"INPOD_PORT_REUSE": "false", "ZTUNNEL_WORKER_THREADS": "2"})


@pytest.mark.parametrize(("text", "number"), [("10", 10), ("0x10", 16), ("0", 0)])
def test_numbers_are_decimal_or_hexadecimal(text: str, number: int) -> None:
    assert read_number({"X": text}, "X", 1, range(100)) == number


def test_ztunnels_own_pod_is_known_when_all_of_its_names_are() -> None:
    env = {"POD_NAMESPACE": "istio-system", "POD_NAME": "ztunnel-x", "SERVICE_ACCOUNT": "ztunnel"}
    assert read_settings(env).own_pod == ("istio-system", "ztunnel-x", "ztunnel")
    for missing in env:
        assert read_settings({key: value for key, value in env.items() if key != missing}).own_pod is None
