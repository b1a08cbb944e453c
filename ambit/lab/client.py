"""The client's side of a lab, for Python programs and the command line alike.

    with Lab.up(["examples/two-nodes.yaml"]) as lab:
        answer = lab.exec("client", "curl", "-s", "http://10.96.0.10/")
        print(answer.stdout, lab.status().pod("client").addresses)

Everything blocks. Errors of the supervisor arrive as LabError.
"""

import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ambit.lab import launch, requests
from ambit.lab.control import BrokenConversationError, Json, Message
from ambit.lab.fields import Fields
from ambit.lab.folder import LabFolder, lab_folder, running_labs
from ambit.lab.host_pids import translate_pids
from ambit.lab.requests import LabError, Progress
from ambit.lab.running import Capture, RunningCommand
from ambit.lab.settings import LabSettings, read_settings
from ambit.lab.sources import Given, Source, find_lab_name, read_sources
from ambit.lab.status import LabStatus, from_message
from mesh.kit.errors import RefusedError

__all__ = ["Applied", "Capture", "Lab", "LabError", "RunningCommand", "Source"]

DEFAULT_NAME = "lab"


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply did: lines like `Pod default/client created`, and warnings."""

    changes: list[str]
    warnings: list[str]


class Lab:
    """A running lab. As a context manager it is taken down at the end."""

    def __init__(self, name: str, settings: LabSettings | None = None, warnings: Sequence[str] = ()) -> None:
        self.name = name
        self.settings = settings or read_settings()
        self.folder: LabFolder = lab_folder(self.settings, name)
        self.warnings = list(warnings)

    def __enter__(self) -> "Lab":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    @classmethod
    def up(
        cls,
        files: Iterable[Given] = (),
        name: str | None = None,
        progress: Progress = lambda _text: None,
        settings: LabSettings | None = None,
    ) -> "Lab":
        """Bring a lab up and wait until it works; `warnings` then says what does not yet.

        The name is `name`, else the Lab object's, else "lab". Raises UnreadableSourceError, RefusedError (it
        is up already) and LabError. Whatever is raised, KeyboardInterrupt included, nothing is left behind.
        """
        settings = settings or read_settings()
        sources = read_sources(files)
        name = name or find_lab_name(sources) or DEFAULT_NAME
        result = launch.launch(settings, lab_folder(settings, name), sources, progress)
        return cls(name, settings, Fields(result).texts("warnings"))

    @classmethod
    def find(cls, name: str | None = None, settings: LabSettings | None = None) -> "Lab":
        """The running lab of that name, without one the only running lab; raises RefusedError that lists them."""
        settings = settings or read_settings()
        running = running_labs(settings)
        if name is not None and name not in running:
            there = f"running: {', '.join(running)}" if running else "none is; `ambit lab up` starts one"
            raise RefusedError(f"lab {name} is not running ({there})")
        if name is None and not running:
            raise RefusedError("no lab is running; `ambit lab up -f FILE` starts one")
        if name is None and len(running) > 1:
            raise RefusedError(f"several labs are running ({', '.join(running)}); choose one with --lab NAME")
        return cls(name or running[0], settings)

    def status(self) -> LabStatus:
        """Nodes, pods, services and processes now."""
        return from_message(self.raw_status())

    def raw_status(self) -> Message:
        """The same as JSON. Raises RefusedError when the lab is not running, or ends before it answers."""
        with requests.connect(self.folder) as connection:
            try:
                status = requests.converse(connection, {"operation": "status"})
            except BrokenConversationError as error:
                # A killed supervisor closes its files one by one: somebody may listen there who will never answer.
                raise RefusedError(f"lab {self.folder.path.name} is not running any more: {error}") from error
            return translate_pids(status, requests.peer_pid(connection))

    def apply(self, *files: Given, wait: bool = True) -> Applied:
        """Apply manifests; with `wait`, until new pods run, are enrolled and listen; warnings say what does not."""
        result = self._request("apply", sources=launch.encode_sources(read_sources(files)), wait=wait)
        changes = [f"{change.text('object')} {change.text('verb')}" for change in result.children("changes")]
        return Applied(changes, list(result.texts("warnings")))

    def delete(self, *files: Given) -> list[str]:
        """Delete the objects that manifests name and return what is gone; pods end gracefully first."""
        return list(self._request("delete", sources=launch.encode_sources(read_sources(files))).texts("deleted"))

    def delete_object(self, kind: str, name: str, namespace: str = "default") -> list[str]:
        """Delete one object and return what is gone; `kind` as kubectl takes it."""
        return list(self._request("delete", kind=kind, name=name, namespace=namespace).texts("deleted"))

    def rules(self, pod: str, namespace: str = "default") -> str:
        """The redirect rules in a pod, as its node's agent shows them."""
        return self._request("rules", pod=pod, namespace=namespace).text("rules")

    def ztunnel_page(self, node: str, path: str, method: str = "GET") -> str:
        """A page of a node's ztunnel's admin server. Raises LabError when it does not answer, or with an error."""
        return self._request("ztunnel page", node=node, path=path, method=method).text("text")

    def stop_process(self, name: str) -> None:
        """End a process of the mesh (`controller`, `ztunnel/node-1`, `cni/node-1`) and keep it down."""
        self._request("process", action="stop", name=name)

    def start_process(self, name: str) -> None:
        """Start a stopped process again (without waiting until it is ready)."""
        self._request("process", action="start", name=name)

    def replace_process(self, name: str) -> None:
        """Let a new ztunnel (`ztunnel/node-1`) take the place of the running one, which drains; waits until it has."""
        self._request("process", action="replace", name=name)

    def kill_process(self, name: str) -> None:
        """Crash a process (SIGKILL); the lab restarts it."""
        self._request("process", action="kill", name=name)

    def log_path(self, name: str, namespace: str = "default") -> Path:
        """The log of a process (`controller`, `ztunnel/node-1`), of `supervisor`, or of a pod's first container."""
        if name == "supervisor":
            return self.folder.supervisor_log
        process = self.folder.logs / f"{name.replace('/', '_')}.log"
        if process.exists():
            return process
        found = sorted(self.folder.logs.glob(f"pod_{namespace}_{name}_*.log"))
        if not found:
            raise RefusedError(
                f"there is no log of a process {name!r}, or of a pod {name!r} in namespace {namespace!r}"
            )
        return found[0]

    def logs(self, name: str, namespace: str = "default") -> str:
        """The whole log of a process or pod so far."""
        return self.log_path(name, namespace).read_text(errors="replace")

    def exec(
        self, pod: str, *command: str, namespace: str = "default", stdin: bytes = b"", timeout: float | None = 30.0
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program in a pod; returns what it wrote and its exit status (127 and 126 as in a shell).

        Raises subprocess.TimeoutExpired after `timeout` seconds; the program is killed.
        """
        with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
            source.write(stdin)
            for file in (source, out, errors):
                file.seek(0)
            streams = (source.fileno(), out.fileno(), errors.fileno())
            with self.start(pod, *command, namespace=namespace, streams=streams) as running:
                status = running.wait(timeout)
            written, complaints = (_read_again(file.fileno()) for file in (out, errors))
            complaints += f"{running.message}\n" if running.message else ""
            return subprocess.CompletedProcess(command, status, written, complaints)

    def start(
        self,
        pod: str,
        *command: str,
        namespace: str = "default",
        streams: tuple[int, int, int] = (0, 1, 2),
        environment: dict[str, str] | None = None,
    ) -> RunningCommand:
        """Start a program in a pod on these descriptors (default: the caller's own standard streams)."""
        request: Message = {
            "operation": "exec",
            "pod": pod,
            "namespace": namespace,
            "command": list(command),
            "environment": dict(environment or {}),
        }
        return RunningCommand(requests.connect(self.folder), request, streams)

    def capture(self, output: Path | int) -> Capture:
        """Start recording the underlay (pcap) to a new file or a descriptor; recording has begun on return."""
        return Capture(requests.connect(self.folder), output)

    def down(self) -> bool:
        """Take the lab down, whatever state it is in; False when there was nothing to take down."""
        return launch.end(self.folder)

    def _request(self, operation: str, **arguments: Json) -> Fields:
        with requests.connect(self.folder) as connection:
            return Fields(requests.converse(connection, {"operation": operation, **arguments}))


def _read_again(descriptor: int) -> str:
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        return file.read().decode(errors="replace")
