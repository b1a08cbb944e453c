"""`python -m cni agent`: run the node agent until it is told to stop. Exit 0, 1 when it cannot go on, 2 on misuse."""

import asyncio
import logging
import sys

from cni.app import run_agent
from cni.settings import read_settings
from mesh.kit.errors import FatalError
from mesh.kit.logs import configure_logs

log = logging.getLogger("cni")


def main(arguments: list[str]) -> int:
    """Run what `arguments` ask for; return the exit status."""
    configure_logs()
    if arguments != ["agent"]:
        log.error("usage: python -m cni agent", extra={"arguments": " ".join(arguments)})
        return 2
    try:
        settings = read_settings()
        configure_logs(settings.log_level)
        asyncio.run(run_agent(settings))
    except FatalError as error:
        return _fail(error)
    except ExceptionGroup as group:
        fatal, other = group.split(FatalError)
        if fatal is None or other is not None:
            raise
        return _fail(*fatal.exceptions)
    return 0


def _fail(*errors: Exception) -> int:
    for error in errors:
        log.error("agent failed", extra={"error": str(error)})
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
