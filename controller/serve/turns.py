"""Large responses, a few at a time: a thousand agents that come at once must not all be held in memory at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# A mesh of 100,000 pods is 40 MB for each agent, twice while it is sent.
TURNS = 3
# After this it is the client that is slow, and the next one's turn.
TURN_SECONDS = 5.0


class Turns:
    """So many at a time, each for a while: who takes longer goes on, and holds up nobody."""

    def __init__(self, count: int = TURNS, seconds: float = TURN_SECONDS) -> None:
        self._free = asyncio.Semaphore(count)
        self._seconds = seconds

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it until the block or the time ends."""
        await self._free.acquire()
        is_over = False

        def end() -> None:
            nonlocal is_over
            if not is_over:
                is_over = True
                self._free.release()

        timer = asyncio.get_running_loop().call_later(self._seconds, end)
        try:
            yield
        finally:
            timer.cancel()
            end()
