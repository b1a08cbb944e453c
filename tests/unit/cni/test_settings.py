import pytest

from cni.kernel.rules import PodSettings
from cni.settings import InvalidSettingError, read_settings


def test_a_name_is_all_that_an_agent_needs() -> None:
    settings = read_settings({"NODE_NAME": "node-1"})
    assert settings.zds.path == "/var/run/ztunnel/ztunnel.sock"
    assert settings.enrolment.defaults == PodSettings(ipv6=True, dns_capture=False)
    assert settings.enrolment.eligibility.excluded_namespaces == {"kube-system"}


def test_every_setting_is_read() -> None:
    settings = read_settings(
        {
            "NODE_NAME": "node-1",
            "ZTUNNEL_UDS_ADDRESS": "/run/zds.sock",
            "AMBIT_AGENT_SOCKET": "/run/node-1/agent.sock",
            "AMBIENT_IPV6": "false",
            "AMBIENT_DNS_CAPTURE": "true",
            "EXCLUDE_NAMESPACES": "legacy, kube-system",
            "SYSTEM_NAMESPACE": "mesh",
            "AMBIT_LOG_LEVEL": "debug",
        }
    )
    assert (settings.zds.path, settings.agent_socket) == ("/run/zds.sock", "/run/node-1/agent.sock")
    assert settings.journal_path == "/run/node-1/agent.pods.json"
    assert settings.enrolment.defaults == PodSettings(ipv6=False, dns_capture=True)
    assert settings.enrolment.eligibility.excluded_namespaces == {"legacy", "kube-system"}
    assert (settings.enrolment.eligibility.system_namespace, settings.log_level) == ("mesh", "debug")


def test_no_namespace_may_be_excluded() -> None:
    assert not read_settings({"NODE_NAME": "n", "EXCLUDE_NAMESPACES": ""}).enrolment.eligibility.excluded_namespaces


@pytest.mark.parametrize(
    ("environment", "named"),
    [({}, "NODE_NAME"), ({"NODE_NAME": "n", "AMBIENT_IPV6": "perhaps"}, "AMBIENT_IPV6='perhaps'")],
    ids=["no node", "no boolean"],
)
def test_a_bad_setting_is_named(environment: dict[str, str], named: str) -> None:
    with pytest.raises(InvalidSettingError, match=named):
        read_settings(environment)
