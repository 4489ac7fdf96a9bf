"""A pool of sandboxes that are started and waiting, so that a run begins without starting one.

Each is used once: `take` hands it out and it never comes back. One task refills, a few at a time; while others wait a
moment passes first, so that refilling does not compete with the run that just began, and while a run waits for a
sandbox of its own it does not refill at all. How many wait follows what is asked for (`demand`), between a floor and
bounds: their number, and the memory that they have been measured to hold, both over all pools of the carrier. A
waiting sandbox that dies is thrown away and replaced; when starting fails the task waits longer each time (up to 30 s),
and `take` then starts one itself, so that its caller sees the error. A `take` for another disk size starts one cold.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from atelier_runner.carrier import Idle, Launcher, Sandbox
from atelier_runner.demand import Budget, Demand
from atelier_runner.errors import SandboxUnavailable
from atelier_runner.model import Limits

REFILL_DELAY = 0.03
"""Seconds between a take and the start of its replacement."""
FIRST_RETRY = 0.5
LONGEST_RETRY = 30.0
LOOK_SECONDS = 5.0
"""How often a pool that has grown looks whether it may shrink."""
MEASURED = 16
"""One in so many is measured; they are alike."""


class Pool:
    """An async context manager; entering does not wait for the first sandbox."""

    def __init__(
        self,
        launcher: Launcher,
        limits: Limits,
        demand: Demand,
        budget: Budget,
        *,
        at_once: int = 1,
        clock: Callable[[], float] = time.monotonic,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._launcher = launcher
        self._limits = limits
        self._demand = demand
        self._budget = budget
        self._at_once = at_once
        self._clock = clock
        self._look_seconds = look_seconds
        self._idle: deque[Sandbox] = deque()
        self._dead: list[Sandbox] = []
        self._changed = asyncio.Event()
        self._full = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._starting = 0
        self._started = 0
        self._memory_each = 0
        self._waited_for = 0
        """Runs that wait for a sandbox of their own."""
        self.warm = 0
        self.cold = 0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._refill(), name="pool-refill")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for sandbox in (*self._idle, *self._dead):
            sandbox.on_death = None
            await sandbox.close()
        self._idle.clear()
        self._budget.let_go(self)

    async def take(self, limits: Limits) -> Sandbox:
        """Return a sandbox that nobody else has or had; the caller closes it.

        Raises:
            SandboxUnavailable: none was waiting and none can be started.
        """
        if limits.disk_mb == self._limits.disk_mb:
            self._demand.took(self._clock())
            self._note()
            if (sandbox := self._waiting_one()) is not None:
                return sandbox
        self.cold += 1
        self._waited_for += 1
        try:
            return await self._launcher.start(limits)
        finally:
            self._waited_for -= 1
            self._changed.set()

    def take_waiting(self, limits: Limits) -> Sandbox | None:
        """Return one that waits, or None; that one was asked for counts all the same."""
        if limits.disk_mb != self._limits.disk_mb:
            return None
        self._demand.took(self._clock())
        self._note()
        if (sandbox := self._waiting_one()) is None:
            self.cold += 1
        return sandbox

    def _waiting_one(self) -> Sandbox | None:
        while self._idle:
            sandbox = self._idle.popleft()
            sandbox.on_death = None
            self._note()
            if sandbox.alive:
                self.warm += 1
                return sandbox
            self._dead.append(sandbox)
        return None

    @property
    def waiting(self) -> list[Sandbox]:
        """The sandboxes that wait at this moment."""
        return list(self._idle)

    def idle(self) -> Idle:
        """Say what waits, and what has been asked for."""
        return Idle(
            len(self._idle),
            len(self._idle) * self._memory_each,
            self._demand.wanted(self._clock()),
            self.warm,
            self.cold,
        )

    async def filled(self) -> None:
        """Wait until as many sandboxes wait as the pool is to hold."""
        await self._full.wait()

    def _note(self) -> None:
        """Something about what waits, or is wanted, is another than it was."""
        self._budget.hold(self, len(self._idle) + self._starting, self._memory_each)
        self._full.clear()
        self._changed.set()

    def _died(self, sandbox: Sandbox) -> None:
        with contextlib.suppress(ValueError):
            self._idle.remove(sandbox)
        self._dead.append(sandbox)
        self._note()

    async def _refill(self) -> None:
        retry = FIRST_RETRY
        while True:
            self._changed.clear()
            while self._dead:
                await self._dead.pop().close()
            missing = self._missing()
            while missing < 0 and self._idle:
                await self._drop()
                missing += 1
            if missing <= 0 or self._waited_for:
                if missing <= 0:
                    self._full.set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._look_seconds):
                        await self._changed.wait()
                if self._idle:
                    await asyncio.sleep(REFILL_DELAY)
                continue
            if await self._start(min(missing, self._at_once)):
                retry = FIRST_RETRY
            else:
                await asyncio.sleep(retry)
                retry = min(retry * 2, LONGEST_RETRY)

    def _missing(self) -> int:
        """Return how many more are to be started; negative: how many wait too many."""
        return min(
            self._demand.wanted(self._clock()) - len(self._idle),
            max(self._budget.room(self), -len(self._idle)),
        )

    async def _drop(self) -> None:
        sandbox = self._idle.popleft()
        sandbox.on_death = None
        self._note()
        await sandbox.close()

    async def _start(self, count: int) -> bool:
        """Start some; returns whether all could be."""
        self._starting = count
        self._note()
        try:
            return all(await asyncio.gather(*(self._start_one() for _ in range(count))))
        finally:
            self._starting = 0
            self._note()

    async def _start_one(self) -> bool:
        begun = self._clock()
        try:
            sandbox = await self._launcher.start(self._limits)
        except SandboxUnavailable:
            return False
        self._demand.started(self._clock() - begun)
        self._starting -= 1
        sandbox.on_death = lambda: self._died(sandbox)
        if not sandbox.alive:
            self._dead.append(sandbox)
            return True
        self._idle.append(sandbox)
        self._note()
        self._started += 1
        if self._started % MEASURED == 1:
            self._memory_each = await sandbox.memory()
        return True
