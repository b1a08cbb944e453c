"""Waiting beside a task for what it signals to nobody."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object]) -> None:
    """Let the others run until `condition` holds. Raises TimeoutError after ten seconds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # there is no event for it, and nothing but tests would need one
            await asyncio.sleep(0.001)
