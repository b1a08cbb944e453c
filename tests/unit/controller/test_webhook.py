"""Verdicts on objects that somebody applies, and the registration that asks for them."""

import base64
from collections.abc import Mapping
from typing import cast

import pytest
import yaml

from controller.registry.names import MeshSettings
from controller.snapshot import Snapshot
from controller.sources.documents import PlainObject
from controller.webhooks.registration import build_registration
from controller.webhooks.validation import Verdict, judge
from tests.support.objects import build_snapshot, service

ROUTE = "apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: demo}"


def verdict(text: str, snapshot: Snapshot | None = None) -> Verdict:
    document: PlainObject = yaml.safe_load(text)
    return judge(document, snapshot or Snapshot(), MeshSettings())


def test_what_is_invalid_is_denied_with_field_reason_and_code() -> None:
    found = verdict(f"{{{ROUTE}, spec: {{rules: [{{timeouts: {{request: soon}}}}], unknown: 1}}}}")
    assert not found.is_allowed
    assert "spec.rules[0].timeouts.request: is not a duration" in found.message
    assert "[duration-value]" in found.message
    assert "spec.unknown: unknown field [unknown-field]" in found.message


@pytest.mark.parametrize("text", ["{apiVersion: apps/v1, kind: Deployment}", "{apiVersion: v9, kind: HTTPRoute}", "{}"])
def test_what_is_not_read_is_let_in(text: str) -> None:
    assert verdict(text) == Verdict(is_allowed=True)


def test_what_fits_nothing_is_let_in_with_a_warning() -> None:
    text = f"{{{ROUTE}, spec: {{parentRefs: [{{group: '', kind: Service, name: web}}]}}}}"
    assert any("there is no Service demo/web [route-not-attached]" in each for each in verdict(text).warnings)
    found = verdict(text, build_snapshot(service()))
    assert found.is_allowed
    assert not any("route-not-attached" in each for each in found.warnings)


def test_nothing_is_said_of_other_objects() -> None:
    alone = verdict(f"{{{ROUTE}, spec: {{}}}}", build_snapshot(service("nobodys")))
    assert not any("nobodys" in each for each in alone.warnings)


def test_a_registration_gets_our_roots_and_lets_nothing_past_us() -> None:
    given: PlainObject = {
        "metadata": {"name": "ambit-validator"},
        "webhooks": [{"name": "w", "failurePolicy": "Ignore", "clientConfig": {"url": "https://x"}}],
    }
    wanted = build_registration(given, "roots")
    [webhook] = cast(list[Mapping[str, object]], wanted["webhooks"])
    assert webhook["failurePolicy"] == "Fail"
    assert webhook["clientConfig"] == {"url": "https://x", "caBundle": base64.b64encode(b"roots").decode()}
    assert build_registration(wanted, "roots") == wanted
