"""A small pool of sandboxes that are started and waiting, so that a run begins without starting one.

Each is used once: `take` hands it out and it never comes back. One task refills, one sandbox at a time, a moment after
a take, so that refilling does not compete with the run that just began. A waiting sandbox that dies is thrown away and
replaced; when starting fails the task waits longer each time (up to 30 s), and `take` then starts one itself, so that
its caller sees the error. The pool's size is its bound; a `take` for another disk size starts one cold.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from types import TracebackType
from typing import Self

from atelier_runner.carrier import Launcher, Sandbox
from atelier_runner.errors import SandboxUnavailable
from atelier_runner.model import Limits

REFILL_DELAY = 0.03
"""Seconds between a take and the start of its replacement."""
FIRST_RETRY = 0.5
LONGEST_RETRY = 30.0


class Pool:
    """An async context manager; entering does not wait for the first sandbox."""

    def __init__(self, launcher: Launcher, limits: Limits, size: int) -> None:
        self._launcher = launcher
        self._limits = limits
        self._size = size
        self._idle: deque[Sandbox] = deque()
        self._dead: list[Sandbox] = []
        self._changed = asyncio.Event()
        self._full = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

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

    async def take(self, limits: Limits) -> Sandbox:
        """Return a sandbox that nobody else has or had; the caller closes it.

        Raises:
            SandboxUnavailable: none was waiting and none can be started.
        """
        if limits.disk_mb == self._limits.disk_mb:
            while self._idle:
                sandbox = self._idle.popleft()
                sandbox.on_death = None
                self._full.clear()
                self._changed.set()
                if sandbox.alive:
                    return sandbox
                self._dead.append(sandbox)
        return await self._launcher.start(limits)

    @property
    def waiting(self) -> list[Sandbox]:
        """The sandboxes that wait at this moment."""
        return list(self._idle)

    async def filled(self) -> None:
        """Wait until as many sandboxes wait as the pool is to hold."""
        await self._full.wait()

    def _died(self, sandbox: Sandbox) -> None:
        with contextlib.suppress(ValueError):
            self._idle.remove(sandbox)
        self._dead.append(sandbox)
        self._full.clear()
        self._changed.set()

    async def _refill(self) -> None:
        retry = FIRST_RETRY
        while True:
            while self._dead:
                await self._dead.pop().close()
            if len(self._idle) >= self._size:
                self._full.set()
                self._changed.clear()
                await self._changed.wait()
                await asyncio.sleep(REFILL_DELAY)
                continue
            try:
                sandbox = await self._launcher.start(self._limits)
            except SandboxUnavailable:
                await asyncio.sleep(retry)
                retry = min(retry * 2, LONGEST_RETRY)
                continue
            retry = FIRST_RETRY
            sandbox.on_death = lambda sandbox=sandbox: self._died(sandbox)
            if sandbox.alive:
                self._idle.append(sandbox)
            else:
                self._dead.append(sandbox)
