"""A controller that signs with somebody else's intermediate, and whose root is replaced while it runs."""

from pathlib import Path

import grpc
from cryptography import x509

from tests.contract.test_controller_process import IDENTITY, POD
from tests.support.controller_process import ControllerProcess, create_certificate
from tests.support.mesh_certificates import build_request, make_authority, write_authority


def fetch_chain(channel: grpc.Channel) -> list[x509.Certificate]:
    answer = create_certificate(channel, "token-1", build_request(), IDENTITY)
    return [each for pem in answer.cert_chain for each in x509.load_pem_x509_certificates(pem.encode())]


def test_a_root_is_replaced_while_the_controller_runs(tmp_path: Path) -> None:
    folder = tmp_path / "cacerts"
    folder.mkdir()
    old, new = make_authority("old", rsa=True), make_authority("new")
    first, second = make_authority("first", old), make_authority("second", new)
    write_authority(folder, first, [old], [first])
    with ControllerProcess(tmp_path) as controller:
        controller.write("pod.yaml", POD)
        controller.start(AMBIT_CA_DIR=str(folder))
        assert not controller.state.joinpath("root-key.pem").exists(), "it needs none of its own"
        with controller.connect(folder / "root-cert.pem") as channel:
            leaf, intermediate, root = fetch_chain(channel)
            leaf.verify_directly_issued_by(first.certificate)
            assert (intermediate, root) == (first.certificate, old.certificate)
            (folder / "ca-cert.pem").write_text("half of it")
            controller.wait_for_log("the last one goes on")
            assert fetch_chain(channel)[1] == first.certificate
            write_authority(folder, second, [old, new], [second])
            controller.wait_for_log("certificate authority replaced")
            leaf, intermediate, *roots = fetch_chain(channel)
            leaf.verify_directly_issued_by(second.certificate)
            assert (intermediate, roots) == (second.certificate, [old.certificate, new.certificate])


def test_files_that_do_not_fit_together_end_the_start_with_their_name(tmp_path: Path) -> None:
    folder = tmp_path / "cacerts"
    folder.mkdir()
    root = make_authority("root")
    write_authority(folder, root, [make_authority("other")], [])
    with ControllerProcess(tmp_path) as controller:
        status, log = controller.run_to_end(AMBIT_CA_DIR=str(folder))
    assert status != 0
    assert "root-cert.pem" in log
