"""Every YAML document of the five articles that this mesh began with, as they print it, at the door.

What is of a mesh is accepted; what other tools read is passed over; what is only a part of an object is refused. The
first article has none.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from controller.analysis.codes import Severity
from controller.analysis.report import analyze_texts
from controller.sources.documents import parse_documents

FOLDER = Path(__file__).parent / "seeds"
ACCEPTED, PASSED_OVER = "accepted", "passed over"
DOCUMENTS = {
    "001": [
        ("VirtualService reviews", ACCEPTED),
        ("DestinationRule reviews", ACCEPTED),
        ("DestinationRule my-service", ACCEPTED),
    ],
    "002": [("static_resources", PASSED_OVER), ("dynamic_resources", PASSED_OVER)],
    "003": [
        ("ClusterConfig eks-istio-demo", PASSED_OVER),
        ("IstioOperator istio-gwapi", PASSED_OVER),
        ("Deployment myapp-v1", PASSED_OVER),
        ("Service myapp-v1", ACCEPTED),
        ("Deployment myapp-v2", PASSED_OVER),
        ("Service myapp-v2", ACCEPTED),
        ("Deployment otherapp", PASSED_OVER),
        ("Service otherapp", ACCEPTED),
        ("GatewayClass istio", ACCEPTED),
        ("Gateway istio-gwapi", ACCEPTED),
        ("HTTPRoute myapp-route", ACCEPTED),
        ("HTTPRoute other-route", ACCEPTED),
        ("EnvoyFilter ingress-local-ratelimit", ACCEPTED),
    ],
    "004": [
        ("PeerAuthentication default", ACCEPTED),
        ("VirtualService web-canary", ACCEPTED),
        ("DestinationRule web-destination", ACCEPTED),
        ("ConfigMap istio-sidecar-injector", ACCEPTED),
    ],
}
FRAGMENTS = {
    "004-fragment-1": "duplicate-key",
    "004-fragment-2": "missing-field",
    "004-fragment-7": "missing-field",
    "004-fragment-8": "missing-field",
}


def read(name: str) -> str:
    return (FOLDER / f"{name}.yaml").read_text()


def list_documents(name: str) -> Iterator[tuple[str, str]]:
    """Each document by kind and name, with its text."""
    for each in yaml.safe_load_all(read(name)):
        shown = f"{each['kind']} {each['metadata']['name']}" if "kind" in each else next(iter(each))
        yield shown, yaml.safe_dump(each)


def test_every_file_is_in_the_tables() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == {*DOCUMENTS, *FRAGMENTS}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_document_is_accepted_or_passed_over(name: str) -> None:
    found = []
    for shown, text in list_documents(name):
        parsed = parse_documents(text, name)
        assert not parsed.problems
        found.append((shown, ACCEPTED if parsed.objects else PASSED_OVER))
        assert len(parsed.objects) + len(parsed.passed_over) == 1
    assert found == DOCUMENTS[name]


@pytest.mark.parametrize(("name", "code"), FRAGMENTS.items())
def test_a_part_of_an_object_is_no_object(name: str, code: str) -> None:
    assert {each.code for each in parse_documents(read(name), name).problems} == {code}


def test_a_folder_with_all_of_them_has_notices_for_what_is_of_other_tools() -> None:
    entries = analyze_texts({f"{name}.yaml": read(name) for name in DOCUMENTS}).entries
    notices = [each for each in entries if each.severity is Severity.NOTICE]
    passed_over = [each for documents in DOCUMENTS.values() for each in documents if each[1] == PASSED_OVER]
    assert len(notices) == len(passed_over)
    assert any("meshConfig" in each.message for each in notices)
    idle = [each for each in entries if each.code == "envoy-filter-idle"]
    assert [each.object for each in idle] == ["EnvoyFilter default/ingress-local-ratelimit"]
    assert "write context: GATEWAY" in idle[0].message
