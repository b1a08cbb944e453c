"""The controller's settings: what is missing or malformed is named."""

import pytest

from controller.settings import InvalidSettingError, ListenAddress, read_settings
from mesh.kit.errors import InvalidInputError

NEEDED = {"AMBIT_CONFIG_DIR": "/c", "AMBIT_STATE_DIR": "/s", "AMBIT_NODE_TOKENS": "/t"}


def test_defaults_are_istios_ports_and_names() -> None:
    settings = read_settings(NEEDED)
    assert settings.listen == (ListenAddress("0.0.0.0", 15012),)
    assert settings.admin == ListenAddress("127.0.0.1", 15014)
    assert (settings.mesh.cluster_id, settings.mesh.trust_domain) == ("Kubernetes", "cluster.local")
    assert settings.mesh.root_namespace == "istio-system"
    assert settings.mesh.prefers_near
    assert not read_settings({**NEEDED, "AMBIT_LOCALITY_FAILOVER": "false"}).mesh.prefers_near


def test_lists_and_ipv6_addresses_are_read() -> None:
    settings = read_settings(
        {**NEEDED, "AMBIT_LISTEN": "192.0.2.1:1, [::]:2", "AMBIT_SERVING_NAMES": "a.example, ::1,"}
    )
    assert settings.jwks_hosts == frozenset()
    assert read_settings({**NEEDED, "AMBIT_JWKS_HOSTS": "A.example, b.example:8443"}).jwks_hosts == {
        "a.example",
        "b.example:8443",
    }
    assert [str(address) for address in settings.listen] == ["192.0.2.1:1", "[::]:2"]
    assert settings.serving_names == ("a.example", "::1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("AMBIT_CONFIG_DIR", "", id="missing"),
        pytest.param("AMBIT_LISTEN", "15012", id="port-alone"),
        pytest.param("AMBIT_LISTEN", "a:b", id="port-word"),
        pytest.param("AMBIT_ADMIN_LISTEN", "127.0.0.1:70000", id="port-large"),
        pytest.param("AMBIT_ADMIN_LISTEN", "0.0.0.0:15014", id="open-debug-pages"),
        pytest.param("AMBIT_ADMIN_LISTEN", "localhost:15014", id="a-name-may-lead-anywhere"),
        pytest.param("AMBIT_CONNECTION_MAX_AGE", "long", id="age"),
        pytest.param("AMBIT_DISCOVERY_SELECTORS", "mesh: in", id="selectors-no-list"),
        pytest.param("AMBIT_DISCOVERY_SELECTORS", "[{matchLabel: {mesh: in}}]", id="selectors-field"),
        pytest.param("AMBIT_DISCOVERY_SELECTORS", "[{", id="selectors-no-yaml"),
        pytest.param(
            "AMBIT_DISCOVERY_SELECTORS", "[{matchExpressions: [{key: a, operator: In}]}]", id="selectors-no-values"
        ),
        pytest.param(
            "AMBIT_DISCOVERY_SELECTORS",
            "[{matchExpressions: [{key: a, operator: Exists, values: [b]}]}]",
            id="selectors-needless-values",
        ),
        pytest.param("AMBIT_LOG_LEVEL", "loud", id="level"),
        pytest.param("AMBIT_LOCALITY_FAILOVER", "no", id="switch"),
    ],
)
def test_bad_setting_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(InvalidSettingError, match=name):
        read_settings({**NEEDED, name: value})


def test_trust_domain_must_fit_an_identity() -> None:
    with pytest.raises(InvalidInputError, match="trust domain"):
        read_settings({**NEEDED, "AMBIT_TRUST_DOMAIN": "a/b"})


def test_with_kubernetes_node_tokens_may_be_missing_and_there_is_no_directory() -> None:
    settings = read_settings({"AMBIT_KUBECONFIG": "in-cluster", "AMBIT_STATE_DIR": "/s"})
    assert (settings.config_dir, settings.kubeconfig, settings.node_tokens) == (None, "in-cluster", None)
    assert settings.node_accounts == {"istio-system/ztunnel"}
    with pytest.raises(InvalidSettingError, match="not both"):
        read_settings({**NEEDED, "AMBIT_KUBECONFIG": "in-cluster"})
    with pytest.raises(InvalidSettingError, match="AMBIT_NODE_TOKENS"):
        read_settings({**NEEDED, "AMBIT_NODE_TOKENS": ""})


def test_debug_pages_may_be_open_to_others_with_a_token() -> None:
    settings = read_settings({**NEEDED, "AMBIT_ADMIN_LISTEN": "0.0.0.0:1", "AMBIT_ADMIN_TOKEN_FILE": "/token"})
    assert str(settings.admin_token_file) == "/token"


def test_ages_are_durations() -> None:
    assert read_settings(NEEDED).max_age_seconds == 1800
    assert read_settings({**NEEDED, "AMBIT_CONNECTION_MAX_AGE": "0s"}).max_age_seconds == 0


def test_what_a_dump_says_of_settings_has_no_paths() -> None:
    given = {"AMBIT_KUBECONFIG": "/hidden", "AMBIT_STATE_DIR": "/hidden", "AMBIT_CA_DIR": "/hidden"}
    described = read_settings(given).describe()
    assert "hidden" not in str(described)
    assert (described["source"], described["has_own_root"]) == ("kubernetes", False)


def test_selectors_are_read_in_istios_form() -> None:
    text = "[{matchLabels: {mesh: in}}, {matchExpressions: [{key: team, operator: NotIn, values: [other]}]}]"
    [first, second] = read_settings({**NEEDED, "AMBIT_DISCOVERY_SELECTORS": text}).discovery_selectors
    assert first.matches({"mesh": "in"})
    assert not first.matches({})
    assert second.matches({})
    assert not second.matches({"team": "other"})
