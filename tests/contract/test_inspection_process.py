"""`ambit controller` beside a real controller: clients, what they have, why they refused, a dump and its replay."""

import json
import urllib.error
import urllib.request
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.test_controller_process import DENY, POD, POD_NAME, SERVICE, SERVICE_NAME, subscribe
from tests.support.command_line import run_ambit
from tests.support.controller_process import ADDRESS, ControllerProcess, DeltaStream

LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
TOKEN = "correct-horse-battery"


ambit = partial(run_ambit, "controller")


def read(*arguments: str) -> list[dict[str, Any]]:
    done = ambit(*arguments, "-o", "json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.fixture
def controller(tmp_path: Path) -> "ControllerProcess":
    process = ControllerProcess(tmp_path)
    process.write("service.yaml", SERVICE)
    process.write("pod.yaml", POD)
    return process


def test_clients_are_shown_with_what_they_have_and_why_they_refused(controller: ControllerProcess) -> None:
    with controller, closing(controller.start().connect()) as channel, closing(subscribe(channel)) as stream:
        admin = controller.address("admin")
        stream.receive_and_acknowledge()
        stream.receive_and_acknowledge()
        controller.write("pod.yaml", POD.replace('"True"', '"False"'))
        changed = stream.receive()
        [holding] = [each for each in read("config", "node-1", "--controller", admin) if each["name"] == POD_NAME]
        assert holding["state"] == "unanswered"
        stream.refuse(changed, "no room for it")
        controller.wait_for_log("xds response refused by the client")
        [client] = read("clients", "--controller", admin)
        told = client["types"][ADDRESS]
        [refusal] = told["refusals"]
        assert (refusal["error"], refusal["resources"], refusal["resource_count"]) == ("no room for it", [POD_NAME], 1)
        assert (told["sent_version"], told["acked_version"]) == (2, 1)
        table = ambit("clients", "--controller", admin).stdout
        for words in ("1 clients", "1 refusals", "no room for it", POD_NAME, "ztunnel~127.0.0.1~ztunnel.node-1"):
            assert words in table, table

        states = {each["name"]: each["state"] for each in read("config", "node-1", "--controller", admin)}
        assert states == {POD_NAME: "refused", SERVICE_NAME: "acknowledged"}
        controller.write("pod.yaml", POD)
        stream.receive_and_acknowledge()
        shown = ambit("config", "node-1", "--type", "address", "--resource", POD_NAME,
                      "--controller", admin, "-o", "yaml").stdout  # fmt: skip
        [mended] = yaml.safe_load(shown)
        assert mended["state"] == "acknowledged"
        assert mended["resource"]["workload"]["canonical_name"] == "echo"


def test_a_client_that_nobody_is_or_that_several_are_is_named(controller: ControllerProcess) -> None:
    with controller, closing(controller.start().connect()) as channel:
        admin = controller.address("admin")
        with closing(subscribe(channel)) as one, closing(subscribe(channel)) as other:
            for stream in (one, other):
                stream.receive_and_acknowledge()
            several = ambit("config", "node-1", "--controller", admin)
            assert several.returncode == 1
            assert "several clients" in several.stderr
        nobody = ambit("config", "nobody", "--controller", admin)
        assert (nobody.returncode, "no client is 'nobody'" in nobody.stderr) == (1, True)


def test_a_dump_is_replayed_to_the_same_resources(controller: ControllerProcess, tmp_path: Path) -> None:
    file = tmp_path / "dump.json"
    with controller, closing(controller.start(AMBIT_CLUSTER_ID="east").connect()) as channel:
        admin = controller.address("admin")
        with closing(DeltaStream(channel, "token-1")) as stream:
            stream.send(LISTENER)
            stream.receive_and_acknowledge()
            controller.write("deny.yaml", DENY)
            controller.wait_for_log("configuration applied version=2")
            controller.write("deny.yaml", DENY.replace("principals", "principles"))
            controller.wait_for_log("configuration refused")
            controller.write("pod.yaml", POD.replace("echo-1", "echo-2"))
            controller.wait_for_log("configuration applied version=3")
            written = ambit("dump", str(file), "--controller", admin)
        assert written.returncode == 0, written.stderr
        key = (controller.state / "root-key.pem").read_text().splitlines()[1]
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text()
    document = json.loads(text)
    assert [each["path"] for each in document["problems"]] == ["spec.rules[0].from[0].source.principles"]
    assert document["clients"][0]["types"][LISTENER]["acked_version"] == 1
    assert (document["mesh"]["cluster_id"], document["settings"]["source"]) == ("east", "files")
    assert "token-1" not in text
    assert key not in text

    done = ambit("replay", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "equal to the dump" in done.stderr
    shown = ambit("replay", str(file), "--resource", "demo/no-client")
    assert yaml.safe_load(shown.stdout)["resource"]["action"] == "DENY", "the form that served"

    document["resources"][ADDRESS][SERVICE_NAME] = "another"
    pod = next(each for each in document["objects"] if each["object"]["kind"] == "Pod")
    document["objects"].remove(pod)
    file.write_text(json.dumps(document))
    done = ambit("replay", str(file), "-o", "json")
    assert done.returncode == 1
    differing = {
        each["name"]: (each["dumped"], bool(each["rebuilt"])) for each in json.loads(done.stdout)["differences"]
    }
    assert differing[SERVICE_NAME] == ("another", True)
    assert differing["east//Pod/demo/echo-2"][1] is False


def test_what_is_no_dump_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    done = ambit("replay", str(tmp_path / "a.json"))
    assert (done.returncode, "no dump" in done.stderr) == (1, True)


def fetch(url: str, token: str = "") -> int:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_debug_pages_that_others_reach_demand_the_token(controller: ControllerProcess, tmp_path: Path) -> None:
    file = tmp_path / "admin-token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    with controller:
        status, log = controller.run_to_end(AMBIT_ADMIN_LISTEN="0.0.0.0:0")
        assert status == 1
        assert "AMBIT_ADMIN_TOKEN_FILE" in log
        controller.start(AMBIT_ADMIN_LISTEN="0.0.0.0:0", AMBIT_ADMIN_TOKEN_FILE=str(file))
        admin = controller.address("admin").replace("0.0.0.0", "127.0.0.1")
        assert fetch(f"http://{admin}/ca-crl.pem") == 404, "open, and not there"
        for path in ("/healthz/ready", "/metrics", "/spiffe/bundle"):
            assert fetch(f"http://{admin}{path}") == 200
        pages = ("state", "conditions", "syncz", "dump", "config_dump?client=x", "../debug/state", "nothing")
        for path in (*(f"/debug/{page}" for page in pages), "//debug/state", "/%64ebug/state", "/"):
            assert fetch(f"http://{admin}{path}") == 401
            assert fetch(f"http://{admin}{path}", "wrong-horse-battery") == 401
        assert fetch(f"http://{admin}/debug/state", TOKEN) == 200
        refused = ambit("clients", "--controller", admin)
        assert (refused.returncode, "--token-file" in refused.stderr) == (1, True)
        assert ambit("clients", "--controller", admin, "--token-file", str(file)).returncode == 0
        assert ambit("clients", "--controller", admin, AMBIT_ADMIN_TOKEN_FILE=str(file)).returncode == 0

        file.write_text("another-horse-battery")
        assert fetch(f"http://{admin}/debug/state", TOKEN) == 401
        assert fetch(f"http://{admin}/debug/state", "another-horse-battery") == 200
        file.unlink()
        assert fetch(f"http://{admin}/debug/state", "another-horse-battery") == 401


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        pytest.param(None, 0, id="missing"),
        pytest.param(TOKEN, 0o644, id="readable-by-all"),
        pytest.param("short", 0o600, id="short"),
        pytest.param("two words that are long", 0o600, id="words"),
    ],
)
def test_a_token_that_protects_nothing_ends_the_start(
    controller: ControllerProcess, tmp_path: Path, text: str | None, mode: int
) -> None:
    file = tmp_path / "admin-token"
    if text is not None:
        file.write_text(text)
        file.chmod(mode)
    with controller:
        status, log = controller.run_to_end(AMBIT_ADMIN_TOKEN_FILE=str(file))
    assert status == 1
    assert "AMBIT_ADMIN_TOKEN_FILE" in log
