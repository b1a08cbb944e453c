"""Starting a supervisor and ending one, and leaving nothing behind in either case."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import BinaryIO

from ambit.lab import control, requests
from ambit.lab.control import BrokenConversationError, Json, Message
from ambit.lab.folder import LabFolder, connected, try_lock
from ambit.lab.requests import LabError, Progress
from ambit.lab.settings import LabSettings, caller_environment, make_run_folder
from ambit.lab.sources import Source
from mesh.kit.errors import RefusedError

DOWN_TIMEOUT_SECONDS = 10.0
"""From the request to go down to the supervisor's end; then it is killed."""

CLAIM_TIMEOUT_SECONDS = 2.0
"""How long a folder may be locked while nobody listens there: another `up` or `down` is at work."""

DYING_TIMEOUT_SECONDS = 0.3
"""How long somebody may listen there and yet be about to end: a killed supervisor closes its files one by one."""

LOOK_AGAIN_SECONDS = 0.02

MAX_SHOWN_CHARACTERS = 4000
"""Of the log of a supervisor that ended: its last traceback."""


def launch(settings: LabSettings, folder: LabFolder, sources: Sequence[Source], progress: Progress) -> Message:
    """Start a supervisor, have it bring up the lab, and return its answer.

    Raises RefusedError when the lab is up already or namespaces are not allowed, and LabError for everything that the
    supervisor fails at. Whatever is raised, KeyboardInterrupt included, the lab is gone then.
    """
    lock = _claim(settings, folder)
    try:
        folder.create_contents()
        # Open from the start: the supervisor may remove the file, and with it why it ended.
        with folder.supervisor_log.open("a+b") as log:
            try:
                return _converse_with_new(folder, lock, log, sources, progress)
            except BrokenConversationError as error:
                log.seek(0)
                text = log.read().decode(errors="replace")
                raise LabError(f"{error}:\n{text[-MAX_SHOWN_CHARACTERS:]}", "internal") from error
    except BaseException:
        os.close(lock)
        lock = -1
        # The supervisor ends by itself when the conversation has; wait for it.
        end(folder)
        raise
    finally:
        if lock != -1:
            os.close(lock)


def end(folder: LabFolder) -> bool:
    """End a lab in whatever state it is, and remove its folder; False when there was nothing. Raises LabError."""
    was_running = _end_supervisor(folder)
    deadline = time.monotonic() + DOWN_TIMEOUT_SECONDS
    found = was_running
    while folder.path.exists():
        found = True
        lock = try_lock(folder)
        if lock is not None:
            folder.remove()
            os.close(lock)
            break
        if time.monotonic() > deadline:
            raise LabError(f"the folder of lab {folder.path.name} stays locked by another command: {folder.path}")
        time.sleep(LOOK_AGAIN_SECONDS)
    _remove_if_empty(folder)
    return found


def encode_sources(sources: Sequence[Source]) -> list[Json]:
    """Sources as a request carries them."""
    return [{"name": source.name, "text": source.text} for source in sources]


def _claim(settings: LabSettings, folder: LabFolder) -> int:
    """Make the lab's folder and lock it; what a crashed lab left in it is removed."""
    started = time.monotonic()
    while True:
        make_run_folder(settings)
        try:
            folder.path.mkdir(mode=0o700, exist_ok=True)
        except FileNotFoundError:
            continue
        lock = try_lock(folder)
        if lock is not None:
            folder.clear()
            return lock
        with connected(folder) as connection:
            patience = CLAIM_TIMEOUT_SECONDS if connection is None else DYING_TIMEOUT_SECONDS
            if time.monotonic() - started > patience:
                name = folder.path.name
                raise RefusedError(
                    f"lab {name} is already up; use it, take it down (ambit lab down --lab {name}), "
                    "or give the new one another name (--name NAME)"
                )
        time.sleep(LOOK_AGAIN_SECONDS)


def _converse_with_new(
    folder: LabFolder, lock: int, log: BinaryIO, sources: Sequence[Source], progress: Progress
) -> Message:
    """Start a supervisor and have it bring up the lab; hanging up before it has makes it end."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            _spawn(folder, theirs, lock, log)
        return requests.converse(ours, {"operation": "up", "sources": encode_sources(sources)}, progress)


def _spawn(folder: LabFolder, conversation: socket.socket, lock: int, log: BinaryIO) -> None:
    descriptors = (conversation.fileno(), lock)
    command = [sys.executable, "-P", "-m", "ambit.lab.daemon", folder.path.name, str(folder.path)]
    starter = subprocess.Popen(
        [*command, *map(str, descriptors)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=descriptors,
        cwd="/",
        start_new_session=True,
        env=caller_environment(),
    )
    # It hands over to the supervisor, which is nobody's child, as soon as that has its namespaces.
    starter.wait()


def _end_supervisor(folder: LabFolder) -> bool:
    """Ask the supervisor to end, then make it; False when there is none."""
    with connected(folder) as connection:
        if connection is None:
            return False
        try:
            descriptor = os.pidfd_open(requests.peer_pid(connection))
        except ProcessLookupError:
            return True
        try:
            try:
                control.send(connection, {"operation": "down"})
            except BrokenConversationError:
                pass
            if not _has_ended(descriptor):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                _has_ended(descriptor)
        finally:
            os.close(descriptor)
        return True


def _has_ended(process: int) -> bool:
    """Wait for the process behind a descriptor; for a first process, that is after all others of its namespace."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(DOWN_TIMEOUT_SECONDS * 1000))


def _remove_if_empty(folder: LabFolder) -> None:
    try:
        folder.path.parent.rmdir()
    except OSError:
        pass
