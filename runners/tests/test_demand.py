"""How many sandboxes wait: what is asked for decides, bounds hold, and nothing is guessed. The clock is the test's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from atelier_runner import Limits, SandboxUnavailable, open_local
from atelier_runner.carrier import Sandbox
from atelier_runner.demand import FIRST_START, HALF_LIFE, LONGEST_START, Budget, Demand
from atelier_runner.local import LocalCarrier
from atelier_runner.model import MIB
from atelier_runner.pool import Pool

LIMITS = Limits(disk_mb=8)


def test_those_taken_while_one_is_started_are_to_wait() -> None:
    demand = Demand(2, 16)
    assert demand.wanted(0.0) == 2
    for _ in range(7):
        demand.took(100.0)
    assert demand.wanted(100.0) == 7
    assert demand.wanted(100.0 + HALF_LIFE) == 4
    assert demand.wanted(100.0 + 10 * HALF_LIFE) == 2


def test_one_after_the_other_wants_no_more_than_the_floor() -> None:
    demand = Demand(2, 16)
    for n in range(1000):
        demand.took(n * FIRST_START * 1.01)
    assert demand.wanted(1000 * FIRST_START * 1.01) == 2


def test_the_slower_a_start_the_more_are_wanted_up_to_the_most() -> None:
    demand = Demand(0, 12)
    for n in range(400):
        demand.started(60.0)
        demand.took(n * 0.25)  # four a second
    assert demand.wanted(100.0) == 4 * LONGEST_START
    for _ in range(99):
        demand.took(100.0)
    assert demand.wanted(100.0) == 12


def test_without_a_floor_one_stays_for_a_while_after_its_last_use() -> None:
    demand = Demand(0, 2, half_life=600)
    assert demand.wanted(0.0) == 0
    demand.took(1000.0)
    assert demand.wanted(1000.0) == demand.wanted(1599.0) == 1
    assert demand.wanted(1601.0) == 0


def test_a_budget_counts_sandboxes_and_their_memory_over_all_pools() -> None:
    budget = Budget(10, 100)
    one, two = object(), object()
    budget.hold(one, 3, 10)
    assert budget.room(two) == 7  # nobody knows yet what one of its holds
    budget.hold(two, 1, 30)
    assert budget.room(one) == 4
    assert budget.room(two) == 1
    budget.hold(two, 3, 30)
    assert budget.room(two) < 0
    budget.let_go(one)
    assert budget.room(two) == 0


class Waiting:
    """What a pool sees of a sandbox."""

    def __init__(self, memory_bytes: int) -> None:
        self.on_death: Callable[[], None] | None = None
        self.alive = True
        self.closed = False
        self._memory_bytes = memory_bytes

    async def memory(self) -> int:
        return self._memory_bytes

    async def close(self) -> None:
        self.alive, self.closed = False, True


class Starting:
    """A launcher whose sandboxes are there at once, or not at all."""

    def __init__(self, memory_bytes: int = MIB) -> None:
        self.made: list[Waiting] = []
        self.broken = False
        self._memory_bytes = memory_bytes

    async def start(self, limits: Limits) -> Sandbox:
        await asyncio.sleep(0)
        if self.broken:
            raise SandboxUnavailable("It is broken.")
        self.made.append(Waiting(self._memory_bytes))
        return cast("Sandbox", self.made[-1])

    @property
    def open(self) -> int:
        return sum(not one.closed for one in self.made)


class Clock:
    """Says what it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def pool_over(launcher: Starting, clock: Clock, **bounds: Any) -> AsyncIterator[Pool]:
    budget = Budget(bounds.get("sandboxes", 16), bounds.get("memory_mb", 64) * MIB)
    demand = Demand(bounds.get("floor", 2), bounds.get("most", 16))
    async with Pool(launcher, LIMITS, demand, budget, at_once=2, clock=clock, look_seconds=0.01) as pool:
        yield pool


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_a_pool_grows_with_a_crowd_and_shrinks_when_it_has_gone() -> None:
    launcher, clock = Starting(), Clock()
    async with pool_over(launcher, clock) as pool:
        await pool.filled()
        assert pool.idle().sandboxes == 2
        for sandbox in await asyncio.gather(*(pool.take(LIMITS) for _ in range(9))):
            await sandbox.close()
        await until(lambda: pool.idle().sandboxes == 9)
        assert (pool.idle().warm, pool.idle().cold, pool.idle().wanted) == (2, 7, 9)
        assert pool.idle().memory_bytes == 9 * MIB
        clock.now += 20 * HALF_LIFE
        await until(lambda: pool.idle().sandboxes == 2)
        assert launcher.open == 2
    assert launcher.open == 0


async def test_a_pool_holds_no_more_memory_than_it_may() -> None:
    launcher, clock = Starting(20 * MIB), Clock()
    async with pool_over(launcher, clock, floor=8, memory_mb=70) as pool:
        await until(lambda: pool.idle().sandboxes == 3 and launcher.open == 3)
        await pool.filled()  # as full as it may be
        taken = await pool.take(LIMITS)
        await until(lambda: pool.idle().sandboxes == 3)
        await taken.close()
        assert pool.idle().memory_bytes <= 70 * MIB


async def test_where_one_is_too_large_none_waits_and_runs_start_their_own() -> None:
    launcher = Starting(100 * MIB)
    async with pool_over(launcher, Clock(), memory_mb=64) as pool:
        await until(lambda: bool(launcher.made) and launcher.open == 0)
        await pool.filled()
        await (await pool.take(LIMITS)).close()
        assert pool.idle().cold == 1


async def test_two_pools_share_what_they_may_hold() -> None:
    clock, budget = Clock(), Budget(5, 1000 * MIB)
    first, second = Starting(), Starting()
    async with (
        Pool(first, LIMITS, Demand(4, 4), budget, clock=clock) as one,
        Pool(second, LIMITS, Demand(4, 4), budget, clock=clock) as two,
    ):
        await one.filled()
        await two.filled()
        assert first.open + second.open == 5


async def test_what_waits_is_only_asked_for_where_it_may_be_missing() -> None:
    launcher, clock = Starting(), Clock()
    async with pool_over(launcher, clock, floor=0) as pool:
        assert pool.take_waiting(LIMITS) is None
        await until(lambda: pool.idle().sandboxes == 1)
        assert pool.take_waiting(Limits(disk_mb=9)) is None
        found = pool.take_waiting(LIMITS)
        assert found is not None
        await found.close()


async def test_what_real_sandboxes_hold_is_measured() -> None:
    async with open_local(limits=LIMITS, pool_size=1, pool_most=4) as backend:
        await backend.warm()
        carrier = backend._carrier
        assert isinstance(carrier, LocalCarrier)
        assert carrier._pool is not None
        await until(lambda: carrier._pool is not None and carrier._pool.idle().memory_bytes > 0)
        idle = await backend.idle()
        assert idle.sandboxes == 1
        assert 2 * MIB < idle.memory_bytes < 64 * MIB
        found = await asyncio.gather(*(carrier._pool.take(LIMITS) for _ in range(4)))
        await asyncio.gather(*(sandbox.close() for sandbox in found))
        async with asyncio.timeout(30):
            while (await backend.idle()).sandboxes < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
