"""The supervisor's process: `python -m ambit.lab.daemon NAME FOLDER FIRST-CONVERSATION LOCK` (two descriptors).

The lock is only held; it is free again as soon as this process is gone, however it went.
"""

import asyncio
import faulthandler
import logging
import os
import socket
import sys
from pathlib import Path

from ambit.lab import isolation, kernel
from ambit.lab.control import BrokenConversationError, send
from ambit.lab.folder import LabFolder
from ambit.lab.settings import inherited_environment
from mesh.kit.errors import AmbitError
from mesh.kit.logs import configure_logs

log = logging.getLogger(__name__)


def main(arguments: list[str]) -> None:
    """Become the lab's supervisor, and end when the lab does."""
    name, path, first_descriptor, _lock = arguments
    first = socket.socket(fileno=int(first_descriptor))
    folder = LabFolder(Path(path))
    try:
        isolation.become_first_process()
        isolation.mount_private_folder(folder.namespaces)
    except (AmbitError, OSError) as error:
        reason = error.reason if isinstance(error, AmbitError) else "refused"
        send(first, {"error": {"reason": reason, "message": str(error)}})
        _remove(folder)
        return
    configure_logs()
    # A first process that crashes takes all witnesses with it.
    faulthandler.enable()
    asyncio.run(_supervise(folder, name, inherited_environment(), first))
    kernel.unmount(str(folder.namespaces))
    _remove(folder)
    # At once, threads or not: with the first process ends everything.
    os._exit(0)


async def _supervise(folder: LabFolder, name: str, inherited: dict[str, str], first: socket.socket) -> None:
    # Late: what it imports is large, and nothing may start threads before the process is alone.
    from ambit.lab.supervisor import Supervisor

    try:
        await Supervisor(folder, name, inherited).run(first)
    except BrokenConversationError:
        log.exception("lab ends")


def _remove(folder: LabFolder) -> None:
    try:
        folder.remove()
    except OSError:
        # Somebody waits for the lock, and will do it.
        pass


if __name__ == "__main__":
    main(sys.argv[1:])
