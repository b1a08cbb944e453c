"""Keeping programs running: start, watch, restart with growing pauses, stop; output goes to a log file.

waiting ─start─▶ running ─exit─▶ restarting ─pause─▶ running ...
                    │ exit, and no restart is wanted ─▶ succeeded | failed
                    ├ stop() ─▶ stopped ─start()─▶ running
                    └ replace() ─▶ running: a new process beside the old one, which ends in its own time
"""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ambit.lab.children import CannotStartError, Child, Children, Program
from ambit.lab.kernel import MountNamespace, NetworkNamespace
from mesh.kit.errors import TransientError

FIRST_PAUSE_SECONDS = 0.1
"""After a first crash the next start is nearly immediate: traffic waits for it."""

LONGEST_PAUSE_SECONDS = 5.0
"""Short beside Kubernetes' five minutes: somebody is sitting in front of a lab."""

STEADY_SECONDS = 10.0
"""A program that ran this long starts afresh with short pauses."""

LOOK_AGAIN_SECONDS = 0.02
"""How often a new process is asked whether it is ready."""


class RunState(StrEnum):
    """Where a program is in its life."""

    WAITING = "waiting"
    RUNNING = "running"
    RESTARTING = "restarting"
    STOPPED = "stopped"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RunSpec:
    """A program to keep running. `restart_when` says for an exit status whether to start it again."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    namespace: NetworkNamespace
    log: Path
    working_directory: str = "/"
    files: MountNamespace | None = None
    restart_when: Callable[[int], bool] = lambda _status: True


class KeptProcess:
    """One program and its supervision; `run` is its task."""

    def __init__(self, spec: RunSpec, children: Children, on_change: Callable[[], None] = lambda: None) -> None:
        self.spec = spec
        self.state = RunState.WAITING
        self.restarts = 0
        self.starts = 0
        self.last_failure = ""
        self._children = children
        self._on_change = on_change
        self._child: Child | None = None
        # Nothing runs, and `state` says so.
        self._at_rest = asyncio.Event()
        self._at_rest.set()
        self._replaced = asyncio.Event()
        self._replacing = asyncio.Lock()
        self._leaving: list[Child] = []
        self._is_wanted = asyncio.Event()
        self._is_wanted.set()

    @property
    def pid(self) -> int | None:
        """The process's number in the lab's PID namespace, None when it is not running."""
        return self._child.pid if self._child is not None and self._child.is_running else None

    async def run(self) -> None:
        """Keep the program running until it has ended for good; on cancellation it is killed."""
        try:
            await self._keep_running()
        finally:
            self._at_rest.set()

    async def _keep_running(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            await self._is_wanted.wait()
            started = time.monotonic()
            status = await self._run_once()
            if not self._is_wanted.is_set():
                self._enter(RunState.STOPPED)
                continue
            if not self.spec.restart_when(status):
                self._enter(RunState.SUCCEEDED if status == 0 else RunState.FAILED)
                return
            if time.monotonic() - started >= STEADY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            self._enter(RunState.RESTARTING)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            self.restarts += 1

    def start(self) -> None:
        """Start again after `stop`."""
        self._is_wanted.set()

    async def stop(self, grace_seconds: float) -> None:
        """End the program and do not restart it: SIGTERM, after `grace_seconds` SIGKILL. Then `state` says so."""
        self._is_wanted.clear()
        if self._child is not None:
            await self._child.stop(grace_seconds)
            await self._at_rest.wait()

    @property
    def leaving(self) -> list[int]:
        """The processes that were replaced and have not ended yet, by their numbers in the lab's PID namespace."""
        self._leaving = [child for child in self._leaving if child.is_running]
        return [child.pid for child in self._leaving]

    async def replace(self, is_ready: Callable[[int], Awaitable[bool]], timeout_seconds: float) -> None:
        """Start the program anew beside itself, and when that is ready, ask the old process to end (SIGTERM).

        `is_ready` is asked about the new process's number in the lab's PID namespace. Raises TransientError, with the
        old process serving on, when the new one is not ready in time.
        """
        if self._replacing.locked():
            raise TransientError(f"{self.spec.name} is being replaced already; try again when that is done")
        async with self._replacing:
            await self._replace(is_ready, timeout_seconds)

    async def _replace(self, is_ready: Callable[[int], Awaitable[bool]], timeout_seconds: float) -> None:
        old = self._child
        if old is None or not old.is_running:
            raise TransientError(f"{self.spec.name} is not running, so there is nothing to replace")
        new = self._start_child()
        try:
            async with asyncio.timeout(timeout_seconds):
                while not (new.is_running and await is_ready(new.pid)):
                    if not new.is_running:
                        raise TransientError(f"the new {self.spec.name} ended at once; its log says why")
                    await asyncio.sleep(LOOK_AGAIN_SECONDS)
            if self._child is not old or not old.is_running:
                raise TransientError(f"{self.spec.name} ended meanwhile, and was started again; nothing was replaced")
        except (TimeoutError, TransientError, asyncio.CancelledError) as error:
            new.signal(signal.SIGKILL)
            if isinstance(error, TimeoutError):
                raise TransientError(f"the new {self.spec.name} is not ready after {timeout_seconds:.0f} s") from error
            raise
        self.starts += 1
        self._child = new
        self._leaving.append(old)
        self._replaced.set()
        self._on_change()
        old.signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the program as a crash would (SIGKILL); supervision starts it again."""
        if self._child is not None:
            self._child.signal(signal.SIGKILL)

    async def _run_once(self) -> int:
        try:
            self._child = self._start_child()
        except CannotStartError as error:
            self.last_failure = str(error)
            self._note(str(error))
            return error.exit_status
        self.starts += 1
        self._at_rest.clear()
        self._enter(RunState.RUNNING)
        try:
            status = await self._wait_for_current()
        except asyncio.CancelledError:
            for child in (self._child, *self._leaving):
                child.signal(signal.SIGKILL)
            raise
        self.last_failure = f"exited with status {status}"
        self._note(f"{self.spec.name} {self.last_failure}")
        return status

    async def _wait_for_current(self) -> int:
        """The exit status of the process, or of the one that replaced it."""
        while True:
            child = self._child
            assert child is not None
            self._replaced.clear()
            async with asyncio.TaskGroup() as tasks:
                ended = tasks.create_task(child.wait(), name=f"{self.spec.name} ended")
                replaced = tasks.create_task(self._replaced.wait(), name=f"{self.spec.name} replaced")
                await asyncio.wait((ended, replaced), return_when=asyncio.FIRST_COMPLETED)
                ended.cancel()
                replaced.cancel()
            if self._child is child:
                return ended.result()

    def _start_child(self) -> Child:
        log = os.open(self.spec.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return self._children.start(
                Program(
                    command=self.spec.command,
                    environment=self.spec.environment,
                    namespace=self.spec.namespace,
                    standard_streams=(nothing, log, log),
                    working_directory=self.spec.working_directory,
                    files=self.spec.files,
                )
            )
        finally:
            os.close(nothing)
            os.close(log)

    def _enter(self, state: RunState) -> None:
        self.state = state
        if state is not RunState.RUNNING:
            self._at_rest.set()
        self._on_change()

    def _note(self, text: str) -> None:
        with self.spec.log.open("a") as log:
            log.write(f"ambit lab: {text}\n")
