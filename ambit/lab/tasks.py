"""Running a few things side by side and meeting their first error as itself, not inside a group."""

import asyncio
from collections.abc import Coroutine, Mapping


async def run_together(work: Mapping[str, Coroutine[None, None, None]]) -> None:
    """Run named coroutines until all have ended; the first error cancels the others and is raised."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for name, coroutine in work.items():
                tasks.create_task(coroutine, name=name)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from group
