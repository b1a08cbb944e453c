"""Starting programs inside namespaces, and reaping: the first process of a PID namespace inherits every orphan.

One owner waits for all children, on SIGCHLD. So nothing else here may wait for a process: `subprocess.run` and
asyncio's child watchers would lose the exit status to it, or it to them.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from ambit.lab.kernel import MountNamespace, NetworkNamespace
from mesh.kit.errors import RefusedError


class CannotStartError(RefusedError):
    """The program does not exist (127) or may not be run (126), as shells number it."""

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


@dataclass(frozen=True, slots=True)
class Program:
    """What to run, where and with what. `standard_streams` are descriptors for stdin, stdout and stderr."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    namespace: NetworkNamespace
    standard_streams: tuple[int, int, int]
    working_directory: str = "/"
    files: MountNamespace | None = None


class Child:
    """A running program; it leads a session of its own, which is signalled as a whole."""

    def __init__(self, pid: int, exited: asyncio.Future[int]) -> None:
        self.pid = pid
        self._exited = exited

    @property
    def is_running(self) -> bool:
        return not self._exited.done()

    async def wait(self) -> int:
        """The exit status, 128 + n when signal n ended it. Cancellation leaves the program alone."""
        return await asyncio.shield(self._exited)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every process of the session; one that has ended is fine."""
        # The leader's own number cannot have been given away while it is not reaped; members are read just before.
        for pid in _session_members(self.pid):
            _send(pid, number)

    async def stop(self, grace_seconds: float) -> None:
        """SIGTERM, then after `grace_seconds` SIGKILL; returns when the program has been reaped."""
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_seconds):
                await self.wait()
        except TimeoutError:
            pass
        self.signal(signal.SIGKILL)
        await self.wait()


class Children:
    """Starts programs and learns of every exit; made on the event loop's thread and used only there."""

    def __init__(self) -> None:
        self._exits: dict[int, asyncio.Future[int]] = {}
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    def start(self, program: Program) -> Child:
        """Start a program in its namespace; raises CannotStartError. Blocks about a millisecond (vfork)."""
        stdin, stdout, stderr = program.standard_streams
        try:
            with program.namespace.entered(), program.files.entered() if program.files else nullcontext():
                # start_new_session: signals typed at the caller's terminal are not for the lab's programs.
                process = subprocess.Popen(
                    program.command,
                    env=program.environment,
                    cwd=program.working_directory,
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    start_new_session=True,
                )
        except (FileNotFoundError, NotADirectoryError) as error:
            raise CannotStartError(f"{program.command[0]}: {_what_is_missing(program, error)}", 127) from error
        except (OSError, ValueError) as error:
            raise CannotStartError(f"{program.command[0]}: cannot be run: {error}", 126) from error
        # Reaped below, not by Popen: tell it that there is nothing to wait for.
        process.returncode = 0
        exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._exits[process.pid] = exited
        return Child(process.pid, exited)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            exited = self._exits.pop(pid, None)
            if exited is not None and not exited.done():
                exited.set_result(code if code >= 0 else 128 - code)


def kill_everything_in(namespace: NetworkNamespace) -> None:
    """SIGKILL every process whose network namespace it is: what a pod's containers left running."""
    identity = namespace.identity()
    for pid in _processes():
        try:
            found = os.stat(f"/proc/{pid}/ns/net").st_ino
        except OSError:
            continue
        if found == identity and pid != os.getpid():
            _send(pid, signal.SIGKILL)


def proportional_memory_bytes(pid: int) -> int | None:
    """The process's PSS in bytes (proc(5), smaps_rollup), or None when it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return None


def _what_is_missing(program: Program, error: OSError) -> str:
    if not Path(program.working_directory).is_dir():
        return f"working directory {program.working_directory} does not exist"
    return f"no such program ({error.strerror})"


def _session_members(session: int) -> Sequence[int]:
    members = []
    for pid in _processes():
        try:
            if os.getsid(pid) == session:
                members.append(pid)
        except ProcessLookupError:
            continue
    return members


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
