import json
from pathlib import Path

import pytest
from cryptography import x509

from bench.certificates import IDENTITY, write_mutual_tls_files
from bench.setups import AMBIENT, as_source, build_lab, build_paths
from bench.sidecar import OWN_MARK, SidecarFiles, build_configuration


@pytest.fixture
def configuration(tmp_path: Path) -> dict[str, dict[str, dict[str, str]]]:
    tls = write_mutual_tls_files(tmp_path)
    resources = json.loads(json.dumps(build_configuration(tls.identity, tls.as_context())))["static_resources"]
    return {kind: {one["name"]: one for one in resources[kind]} for kind in ("listeners", "clusters")}


def test_peer_speaks_tls_1_3_only_and_to_its_own_identity_only(configuration: dict[str, dict[str, object]]) -> None:
    for side in (configuration["clusters"]["outbound"], configuration["listeners"]["inbound"]):
        text = json.dumps(side)
        assert '"tls_minimum_protocol_version": "TLSv1_3"' in text
        assert '"tls_maximum_protocol_version": "TLSv1_3"' in text
        assert f'"exact": "{IDENTITY}"' in text
    assert '"require_client_certificate": true' in json.dumps(configuration["listeners"]["inbound"])


def test_peer_marks_its_own_sockets_so_that_they_are_not_redirected(
    configuration: dict[str, dict[str, object]],
) -> None:
    for cluster in configuration["clusters"].values():
        assert f'"int_value": {OWN_MARK}' in json.dumps(cluster)


def test_peer_presents_a_certificate_of_its_identity_and_hides_its_key(tmp_path: Path) -> None:
    files = write_mutual_tls_files(tmp_path)

    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value

    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [IDENTITY]
    assert files.key.stat().st_mode & 0o777 == 0o600


def test_only_the_ambient_namespace_is_enrolled() -> None:
    files = SidecarFiles(Path("/envoy"), Path("/envoy.json"), Path("/redirect.nft"))
    documents = [build_lab("bench"), *build_paths(Path("/nginx.conf"), files)]

    enrolled = [document["metadata"] for document in documents if "ambient" in json.dumps(document.get("metadata"))]

    assert {"name": AMBIENT, "labels": {"istio.io/dataplane-mode": "ambient"}} in enrolled
    assert '"istio.io/dataplane-mode"' in as_source(documents).text
    assert as_source(documents).text.count("istio.io/dataplane-mode") == 1
