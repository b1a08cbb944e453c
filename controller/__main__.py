"""`python -m controller`: run the controller with the settings of the environment."""

import asyncio
import logging
import sys

from controller.app import run
from controller.settings import read_settings
from mesh.kit.errors import AmbitError, list_errors
from mesh.kit.logs import configure_logs


def main() -> int:
    """Run until told to stop; 1 when it could not start or go on."""
    configure_logs()
    log = logging.getLogger("controller")
    status = 0
    try:
        settings = read_settings()
        configure_logs(settings.log_level)
        for library in ("asyncio", "watchfiles"):
            logging.getLogger(library).setLevel(logging.WARNING)
        asyncio.run(run(settings))
    except* AmbitError as group:
        for error in list_errors(group):
            log.error("controller cannot run", extra={"error": error, "reason": error.reason})
        status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
