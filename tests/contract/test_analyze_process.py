"""`ambit analyze` as a pipeline runs it: what it prints, and what it exits with."""

import json
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from controller.registry.names import DEFAULT_ROOT_NAMESPACE
from tests.support.command_line import run_ambit

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop, labels: {app: web}}\n"
WARNED = (
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\n"
    "spec:\n  selector: {matchLabels: {app: wbe}}\n"
)
REFUSED = WARNED.replace("selector", "selektor")


def run(*arguments: str | Path, text: str = "") -> CompletedProcess[str]:
    return run_ambit("analyze", *map(str, arguments), text=text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "below").mkdir()
    (tmp_path / "below/pod.yaml").write_text(POD)
    (tmp_path / "notes.txt").write_text("[")
    return tmp_path


def test_healthy_folder_passes(folder: Path) -> None:
    done = run("-f", folder, "--strict")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "1 object in 1 file: 0 errors, 0 warnings\n"


@pytest.mark.parametrize("paths", [["examples/demo"], ["examples/first-lab.yaml", "examples/strict.yaml"]])
def test_examples_pass(paths: list[str]) -> None:
    done = run("--strict", *(word for path in paths for word in ("-f", path)))
    assert done.returncode == 0, done.stdout


def test_warning_fails_only_when_strict(folder: Path) -> None:
    (folder / "policy.yaml").write_text(WARNED)
    lenient = run("-f", folder)
    assert lenient.returncode == 0
    assert "policy-selector-matches-nothing" in lenient.stdout
    assert "policy.yaml:5" in lenient.stdout
    assert run("-f", folder, "--strict").returncode == 1


def test_json_has_every_field(folder: Path) -> None:
    (folder / "policy.yaml").write_text(REFUSED)
    done = run("-f", folder, "-o", "json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    [problem] = report.pop("problems")
    assert report == {"files": 2, "objects": 1}
    assert problem.pop("message").startswith("unknown field")
    assert problem.pop("fix")
    assert problem == {
        "code": "unknown-field",
        "severity": "error",
        "object": "AuthorizationPolicy shop/p",
        "field": "spec.selektor",
        "file": str(folder / "policy.yaml"),
        "line": 5,
    }


def test_policy_for_the_whole_mesh_stands_in_the_root_namespace(folder: Path) -> None:
    (folder / "policy.yaml").write_text(WARNED.replace("wbe", "web").replace("shop", DEFAULT_ROOT_NAMESPACE))
    assert run("-f", folder, "--strict").returncode == 0
    assert run("-f", folder, "--strict", "--root-namespace", "mesh").returncode == 1


def test_files_and_standard_input_are_read_as_one_mesh(folder: Path) -> None:
    done = run("-f", folder / "below/pod.yaml", "-f", "-", "--strict", text=WARNED)
    assert done.returncode == 1
    assert "<stdin>:5" in done.stdout


def test_a_file_named_beside_its_directory_counts_once(folder: Path) -> None:
    assert run("-f", f"{folder}/", "-f", f"{folder}/./below/pod.yaml").stdout.startswith("1 object in 1 file: 0 errors")


def test_pods_of_a_lab_are_judged_as_a_lab_does(folder: Path) -> None:
    lab = folder / "lab.yaml"
    lab.write_text("{apiVersion: ambit.dev/v1alpha1, kind: Lab, metadata: {name: mine}}\n")
    done = run("-f", folder, "-o", "json")
    assert done.returncode == 1
    assert {problem["code"] for problem in json.loads(done.stdout)["problems"]} == {"missing-field"}


@pytest.mark.parametrize("arguments", [[], ["-f", "no/such/file.yaml"], ["-f", "."], ["-f", ".", "-o", "yaml"]])
def test_misuse_exits_with_2(arguments: list[str], tmp_path: Path) -> None:
    done = run(*[str(tmp_path) if each == "." else each for each in arguments])
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr
