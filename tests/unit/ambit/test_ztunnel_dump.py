"""Dumps as rows, also those of a stock ztunnel, which has fields that ours has not and lacks some."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from ambit.cli import app
from ambit.ztunnel_dump import Kind, Object, select, tabulate

STOCK: Object = {
    "workloads": [
        {
            "workloadIps": ["10.0.0.2", "fd00::2"],
            "waypoint": {"destination": "/10.0.0.9", "hboneMtlsPort": 15008},
            "protocol": "HBONE",
            "uid": "Kubernetes//Pod/shop/web",
            "name": "web",
            "namespace": "shop",
            "node": "node-1",
            "status": "Healthy",
        },
        {"workloadIps": [], "protocol": "TCP", "name": "a", "namespace": "other", "status": "Unhealthy"},
    ],
    "services": [
        {
            "name": "web",
            "namespace": "shop",
            "vips": ["/10.96.0.1", "east/10.96.0.2"],
            "ports": {"80": 8080},
            "endpoints": {"one": {"status": "Healthy"}, "two": {"status": "Unhealthy"}},
        }
    ],
    "policies": [
        {"name": "deny", "namespace": "shop", "action": "Deny", "scope": "Namespace", "rules": [[]], "dryRun": True}
    ],
    "certificates": [
        {
            "identity": "spiffe://cluster.local/ns/shop/sa/web",
            "state": "Available",
            "certChain": [
                {"serialNumber": "7", "validFrom": "2026-01-01T00:00:00Z", "expirationTime": "2026-01-02T00:00:00Z"},
                {"serialNumber": "8"},
            ],
            "rootCerts": [{"serialNumber": "9"}],
        },
        {"identity": "spiffe://cluster.local/ns/other/sa/a", "state": "Initializing", "certChain": []},
    ],
    "workloadState": {
        "uid": {
            "state": "Up",
            "info": {"name": "web", "namespace": "shop", "serviceAccount": "web"},
            "connections": {
                "inbound": [
                    {"src": "10.0.0.3:4", "originalDst": None, "actualDst": "10.0.0.2:8080", "protocol": "HBONE"}
                ],
                "outbound": [],
            },
        },
        "pending": {"state": "Pending"},
    },
}

ROWS = [
    pytest.param(
        Kind.WORKLOADS,
        [
            ("other", "a", "-", "-", "-", "TCP", "Unhealthy"),
            ("shop", "web", "10.0.0.2 fd00::2", "node-1", "10.0.0.9", "HBONE", "Healthy"),
        ],
        id="workloads",
    ),
    pytest.param(Kind.SERVICES, [("shop", "web", "10.96.0.1 east/10.96.0.2", "80:8080", "-", "1/2")], id="services"),
    pytest.param(Kind.POLICIES, [("shop", "deny", "Deny (dry run)", "Namespace", "1", "-")], id="policies"),
    pytest.param(
        Kind.CERTIFICATES,
        [
            ("spiffe://cluster.local/ns/other/sa/a", "-", "Initializing", "-", "-", "-"),
            ("spiffe://cluster.local/ns/shop/sa/web", "intermediate", "Available", "8", "-", "-"),
            (
                "spiffe://cluster.local/ns/shop/sa/web",
                "leaf",
                "Available",
                "7",
                "2026-01-01T00:00:00Z",
                "2026-01-02T00:00:00Z",
            ),
            ("spiffe://cluster.local/ns/shop/sa/web", "root", "Available", "9", "-", "-"),
        ],
        id="certificates",
    ),
    pytest.param(
        Kind.CONNECTIONS,
        [("shop", "web", "inbound", "10.0.0.3:4", "-", "10.0.0.2:8080", "HBONE", "-", "-")],
        id="connections",
    ),
]


@pytest.mark.parametrize(("kind", "rows"), ROWS)
def test_rows_are_sorted_and_what_is_missing_is_a_dash(kind: Kind, rows: list[tuple[str, ...]]) -> None:
    (table,) = tabulate(STOCK, kind)
    assert list(table.rows) == rows
    assert {len(row) for row in table.rows} == {len(table.columns)}


def test_all_is_every_kind() -> None:
    assert [table.title for table in tabulate(STOCK, Kind.ALL)] == [
        "Workloads",
        "Services",
        "Policies",
        "Certificates",
        "Connections",
    ]


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.ALL])
def test_a_namespace_shows_only_its_own(kind: Kind) -> None:
    found = select(STOCK, kind, "other")
    assert found in ([], {}) or all("other" in str(one) for one in (found if isinstance(found, list) else []))
    assert "shop" not in json.dumps(found)


def test_an_empty_dump_has_no_rows() -> None:
    assert not [row for table in tabulate({}, Kind.ALL) for row in table.rows]


@pytest.mark.parametrize(("form", "load"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_a_saved_dump_is_shown_as_it_stands(tmp_path: Path, form: str, load: object) -> None:
    file = tmp_path / "dump.json"
    file.write_text(json.dumps(STOCK))
    done = CliRunner().invoke(app, ["ztunnel-config", "services", "--file", str(file), "--output", form])
    assert callable(load)
    assert load(done.stdout) == STOCK["services"]


@pytest.mark.parametrize(("text", "said"), [("[]", "it is not an object"), ("{", "this is no /config_dump")])
def test_what_is_no_dump_is_refused(text: str, said: str) -> None:
    done = CliRunner().invoke(app, ["ztunnel-config", "all", "--file", "-"], input=text)
    assert said in str(done.exception)
