"""A controller that hands out revocation lists and the trust bundle, and says when its certificates end."""

import base64
import json
import re
import time
import urllib.error
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from ambit.demo.polling import wait_for
from tests.support.command_line import run_ambit
from tests.support.controller_process import PATIENCE_SECONDS, ControllerProcess
from tests.support.mesh_certificates import forge_authority, make_authority, read_authority, revoke, write_authority

ambit = partial(run_ambit, "certificates")


def read_metrics(controller: ControllerProcess) -> dict[str, float]:
    """The metrics without labels."""
    found = re.findall(r"^([a-z_]+) (\S+)$", controller.fetch("/metrics"), re.MULTILINE)
    return {name: float(value) for name, value in found}


def list_served(controller: ControllerProcess) -> list[int]:
    """The serial numbers in the list that the controller hands out."""
    try:
        text = controller.fetch("/ca-crl.pem")
    except urllib.error.HTTPError as error:
        with error:
            return [] if error.code == 404 else [-1]
    return [entry.serial_number for entry in x509.load_pem_x509_crl(text.encode())]


def test_what_is_revoked_is_handed_out_and_survives_a_restart(tmp_path: Path) -> None:
    with ControllerProcess(tmp_path) as controller:
        controller.start()
        assert list_served(controller) == []
        assert "ambit_crl_expiry_seconds" not in read_metrics(controller)
        done = ambit("revoke", "0x1234", "77", "--state-dir", str(controller.state))
        assert done.returncode == 0, done.stderr
        assert "2 certificates revoked" in done.stderr
        assert wait_for(lambda: list_served(controller) == [0x1234, 77], PATIENCE_SECONDS)
        assert read_metrics(controller)["ambit_crl_revoked_certificates"] == 2
        assert ambit("revoke", "77", "78", AMBIT_STATE_DIR=str(controller.state)).returncode == 0
        assert wait_for(lambda: list_served(controller) == [0x1234, 77, 78], PATIENCE_SECONDS)
        assert controller.stop() == 0
        controller.start()
        assert list_served(controller) == [0x1234, 77, 78]
        listed = json.loads(ambit("revoked", "-o", "json", AMBIT_STATE_DIR=str(controller.state)).stdout)
        assert [each["serial"] for each in listed] == ["4660", "77", "78"]
        text = controller.fetch("/ca-crl.pem")
        authority = read_authority(controller.state)
        public = authority.certificate.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        assert x509.load_pem_x509_crl(text.encode()).is_signature_valid(public)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        pytest.param(["revoke", "7f3a", "--state-dir", "STATE"], "'7f3a' is no serial number", id="bare-hexadecimal"),
        pytest.param(["revoke", "5"], "AMBIT_STATE_DIR", id="no-authority"),
        pytest.param(["revoke", "5", "--ca-dir", "STATE"], "ca-cert.pem is missing", id="no-plugged-in-authority"),
    ],
)
def test_what_cannot_be_revoked_is_named(tmp_path: Path, arguments: list[str], text: str) -> None:
    done = ambit(*(each.replace("STATE", str(tmp_path)) for each in arguments))
    assert (done.returncode, text in done.stderr) == (1, True), done.stderr
    assert not list(tmp_path.iterdir())


def test_a_list_that_is_none_ends_the_start_and_later_leaves_the_last_one(tmp_path: Path) -> None:
    with ControllerProcess(tmp_path) as controller:
        controller.start()
        authority = read_authority(controller.state)
        forged = revoke(forge_authority(authority.certificate), 5)
        (controller.state / "ca-crl.pem").write_text(revoke(authority, 6))
        controller.wait_for_log("revocation lists read")
        (controller.state / "ca-crl.pem").write_text(forged)
        controller.wait_for_log("the last ones stay")
        assert list_served(controller) == [6]
        assert controller.stop() == 0
        status, log = controller.run_to_end()
        assert status == 1
        assert "ca-crl.pem has a list of" in log


def read_bundle(controller: ControllerProcess) -> tuple[int, list[x509.Certificate]]:
    """The number of the trust bundle, and its roots."""
    document = json.loads(controller.fetch("/spiffe/bundle"))
    assert document["spiffe_refresh_hint"] == 300
    chains = [each["x5c"] for each in document["keys"]]
    return document["spiffe_sequence"], [
        x509.load_der_x509_certificate(base64.b64decode(certificate)) for [certificate] in chains
    ]


def test_the_trust_bundle_and_metrics_follow_a_root_that_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "cacerts"
    folder.mkdir()
    old, new = make_authority("old"), make_authority("new", rsa=True)
    first, second = make_authority("first", old), make_authority("second", new)
    write_authority(folder, first, [old], [first])
    (folder / "ca-crl.pem").write_text(revoke(first, 5))
    with ControllerProcess(tmp_path) as controller:
        controller.start(AMBIT_CA_DIR=str(folder))
        begun, roots = read_bundle(controller)
        assert roots == [old.certificate]
        found = read_metrics(controller)
        ends = first.certificate.not_valid_after_utc.timestamp()
        assert found["citadel_server_cert_chain_expiry_timestamp"] == ends
        assert found["citadel_server_root_cert_expiry_timestamp"] == old.certificate.not_valid_after_utc.timestamp()
        assert abs(found["citadel_server_cert_chain_expiry_seconds"] - (ends - time.time())) < 60
        assert found["ambit_serving_cert_expiry_timestamp"] == ends, "no certificate outlives what signed it"
        assert found["ambit_crl_expiry_seconds"] < 0, "the list should have been replaced; it counts all the same"
        assert list_served(controller) == [5]
        write_authority(folder, second, [old, new], [second])
        controller.wait_for_log("certificate authority replaced")
        changed, roots = read_bundle(controller)
        assert roots == [old.certificate, new.certificate]
        assert changed > begun
        assert controller.stop() == 0
        controller.start(AMBIT_CA_DIR=str(folder))
        assert list_served(controller) == [5], "what signed before may have revoked what is still in use"
