"""Large responses, a few at a time."""

import asyncio

from controller.serve.turns import Turns


class Holder:
    """Somebody who takes a turn, and has it until told to end. What happens is told to a queue."""

    def __init__(self, turns: Turns, name: str, told: "asyncio.Queue[str]") -> None:
        self._turns = turns
        self._name = name
        self._told = told
        self.end = asyncio.Event()

    async def run(self) -> None:
        async with self._turns.take():
            self._told.put_nowait(self._name)
            await self.end.wait()
        self._told.put_nowait(f"{self._name} ended")


async def test_only_so_many_have_a_turn_and_the_next_gets_it_when_one_ends() -> None:
    turns, told = Turns(count=2, seconds=60), asyncio.Queue[str]()
    first, second, third = (Holder(turns, name, told) for name in ("first", "second", "third"))
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        for holder in (first, second, third):
            tasks.create_task(holder.run(), name="hold")
        assert [await told.get(), await told.get()] == ["first", "second"]
        assert told.empty()
        second.end.set()
        assert {await told.get(), await told.get()} == {"second ended", "third"}
        first.end.set()
        third.end.set()


async def test_a_slow_one_loses_its_turn_and_goes_on() -> None:
    turns, told = Turns(count=1, seconds=0.01), asyncio.Queue[str]()
    slow, other = Holder(turns, "slow", told), Holder(turns, "other", told)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        for holder in (slow, other):
            tasks.create_task(holder.run(), name="hold")
        assert [await told.get(), await told.get()] == ["slow", "other"]
        slow.end.set()
        other.end.set()
    async with asyncio.timeout(10), turns.take():
        pass  # what was lost is not given back twice, and what was had is given back
