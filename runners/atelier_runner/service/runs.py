"""The runs that a service has in hand: each with its journal, its input in order, and what happens when nobody reads.

A run is pumped from the backend into its journal by one task, and fed by another. `disconnect` says what happens while
no reader is there: `cancel` waits for one, the program blocking on its output, and ends the run after its grace;
`keep` lets it go on until its limits end it, keeping head and tail of what it prints. What has ended is kept for a
while, or until its reader has confirmed the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import asdict, replace
from types import TracebackType
from typing import Any, Protocol, Self

from atelier_runner.carrier import Idle
from atelier_runner.errors import RunUnknown, ServiceRefused, SpecInvalid
from atelier_runner.journal import Journal
from atelier_runner.model import MIB, Capabilities, Event, Exited, Reason, Spec, Started, Window
from atelier_runner.outward import Outward
from atelier_runner.service import metrics
from atelier_runner.service.options import Options
from atelier_runner.wire import INPUT_WINDOW, BadMessage, Told, read_limits

MOST_ENDED = 256
"""Ended runs whose events are kept; the oldest are forgotten."""
STDIN_BYTES = 16 * MIB
FAREWELL_SECONDS = 2.0
POLICIES = ("cancel", "keep")


class Backend(Protocol):
    """What runs programs; see `atelier_runner.Backend`."""

    @property
    def outward(self) -> Outward: ...
    async def capabilities(self) -> Capabilities: ...
    async def start(self, spec: Spec) -> str: ...
    def events(self, run: str) -> AsyncIterator[Event]: ...
    async def write(self, run: str, data: bytes, *, close: bool = False) -> None: ...
    async def signal(self, run: str, name: str) -> None: ...
    async def bring(self, run: str, files: Mapping[str, bytes | None]) -> None: ...
    async def resize(self, run: str, window: Window) -> None: ...
    async def look(self, run: str) -> None: ...
    async def cell(self, run: str, number: int, path: str, code: str) -> None: ...
    async def interrupt(self, run: str, number: int) -> None: ...
    async def cancel(self, run: str) -> None: ...
    def kept(self) -> tuple[int, int]: ...
    async def idle(self) -> Idle: ...


class HostedRun:
    """One run. Made by `HostedRuns.start`."""

    def __init__(
        self,
        backend: Backend,
        name: str,
        within: str,
        policy: str,
        grace: float,
        asked: float,
        disk_mb: int,
    ) -> None:
        self.name = name
        self.disk_mb = disk_mb
        self._asked = asked
        self.journal = Journal(waits=policy == "cancel")
        self.ended: Exited | None = None
        self.held = 0
        self._stopping = False
        self._backend = backend
        self._within = within
        self._policy = policy
        self._grace = grace
        self._loop = asyncio.get_running_loop()
        self._giving_up: asyncio.TimerHandle | None = None
        self._given_up: asyncio.Task[None] | None = None
        self._readers = 0
        self._received = 0
        self._input: deque[tuple[int, bytes, bool]] = deque()
        self._input_size = 0
        self._input_came = asyncio.Event()
        self.taken = 0
        """Up to which number input has been taken by the program."""
        self.taken_changed = asyncio.Event()
        self.absent()

    async def pump(self) -> None:
        """Bring the run's events into the journal until it has ended."""
        async for event in self._backend.events(self._within):
            if isinstance(event, Started):
                metrics.START.observe(time.monotonic() - self._asked)
            if isinstance(event, Exited):
                if self._stopping and event.reason is Reason.CANCELLED:
                    event = replace(
                        event, reason=Reason.LOST, detail="The runner was stopped while this ran."
                    )
                self.ended = event
            await self.journal.append(event)
        self._settle()

    async def feed(self) -> None:
        """Hand on what was typed, in order; waits while the program does not read."""
        while True:
            await self._input_came.wait()
            self._input_came.clear()
            while self._input:
                number, data, close = self._input.popleft()
                await self._backend.write(self._within, data, close=close)
                self._input_size -= len(data)
                self.taken = number
                self.taken_changed.set()

    def take(self, number: int, data: bytes, *, close: bool) -> None:
        """Queue input; what has come before is left out, for a client says again what was not confirmed to it.

        Raises:
            BadMessage: a number is missing, or more came than may wait.
        """
        if number <= self._received:
            return
        if number != self._received + 1:
            raise BadMessage(f"input {number} came after {self._received}")
        if self._input_size + len(data) > 2 * INPUT_WINDOW:
            raise BadMessage(f"more than {INPUT_WINDOW} bytes of input were sent without a confirmation")
        self._received = number
        self._input.append((number, data, close))
        self._input_size += len(data)
        self._input_came.set()

    async def signal(self, name: str) -> None:
        """Send a signal to the program."""
        await self._backend.signal(self._within, name)

    async def resize(self, window: Window) -> None:
        """Give its terminal a size."""
        await self._backend.resize(self._within, window)

    async def look(self) -> None:
        """Let what it has written so far come as events."""
        await self._backend.look(self._within)

    async def cell(self, number: int, path: str, code: str) -> None:
        """Hand it its next cell."""
        await self._backend.cell(self._within, number, path, code)

    async def interrupt(self, number: int) -> None:
        """Interrupt a cell."""
        await self._backend.interrupt(self._within, number)

    async def bring(self, files: Mapping[str, bytes | None]) -> None:
        """Bring files of its working folder up to date."""
        await self._backend.bring(self._within, files)

    async def cancel(self) -> None:
        """End it."""
        await self._backend.cancel(self._within)
        self.journal.finish()

    async def stop(self) -> None:
        """End it because the runner ends."""
        self._stopping = self.ended is None
        await self.cancel()

    def present(self) -> None:
        """Somebody reads."""
        self._readers += 1
        self._settle()

    def left(self) -> None:
        """Somebody reads no more."""
        self._readers -= 1
        if not self._readers:
            self.absent()

    def absent(self) -> None:
        """Nobody reads: wait for so long as was agreed."""
        if self._policy == "cancel" and self.ended is None:
            self._giving_up = self._loop.call_later(self._grace, self._give_up)

    def _settle(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None

    def _give_up(self) -> None:
        self._given_up = self._loop.create_task(self.cancel(), name=f"give up {self.name}")


class HostedRuns:
    """All of them; an async context manager."""

    def __init__(self, backend: Backend, options: Options) -> None:
        self.backend = backend
        self.instance = secrets.token_hex(8)
        """Of this process: a run that another one began is not begun again here."""
        self._options = options
        self._runs: dict[str, HostedRun] = {}
        self._starting: dict[str, asyncio.Future[HostedRun]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ended: deque[str] = deque()
        self._held = 0
        self._reserved: dict[str, asyncio.TimerHandle] = {}
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for run in list(self._runs.values()):
            await run.stop()
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for name in list(self._reserved):
            self._free(name)

    async def stop(self) -> None:
        """End every run and give its reader a moment to hear of it."""
        for run in list(self._runs.values()):
            await run.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                while self._runs:
                    self._changed.clear()
                    await self._changed.wait()

    @property
    def running(self) -> int:
        """How many run or start."""
        return len(self._tasks) + len(self._starting)

    async def room(self) -> None:
        """Wait until there is room for another run."""
        while self.running + len(self._reserved) >= self._options.runs:
            self._changed.clear()
            await self._changed.wait()

    def reserve(self, name: str, seconds: float) -> None:
        """Hold a place for a run that is to come."""
        self._free(name)
        self._reserved[name] = asyncio.get_running_loop().call_later(seconds, self._free, name)

    def _free(self, name: str) -> None:
        if (held := self._reserved.pop(name, None)) is not None:
            held.cancel()
        self._changed.set()

    def refuse_if_full(self, name: str) -> None:
        """Raise ServiceRefused `runner_full` when no further run is taken, unless there is a place for it."""
        others = len(self._reserved.keys() - {name})
        if self.running + others >= self._options.runs:
            raise ServiceRefused(
                503,
                "runner_full",
                f"{self._options.runs} programs run at once already.",
                hint="Try again in a moment.",
                retry_after=1,
            )

    def hold(self, size: int) -> None:
        """Count bytes of files that are held in memory; raises ServiceRefused `runner_full`."""
        if self._held + size > self._options.held_mb * MIB:
            raise ServiceRefused(
                503,
                "runner_full",
                f"The files of all runs together have {self._options.held_mb} MiB already.",
                hint="Try again in a moment.",
                retry_after=1,
            )
        self._held += size

    def let_go(self, size: int) -> None:
        """Count them no more."""
        self._held -= size

    def check_sizes(self, head: Mapping[str, Any]) -> None:
        """Refuse what is too large by what its head says, before it is read.

        Raises:
            SpecInvalid: `limit_invalid`, `files_too_large`; ServiceRefused `too_large`.
        """
        limits = read_limits(head.get("limits", {}))
        limits.check()
        most, size = (
            min(limits.disk_mb, self._options.highest.disk_mb),
            sum(size for _, size in head["files"]),
        )
        if size > most * MIB:
            raise SpecInvalid(
                "files_too_large",
                f"The files have {size / MIB:.1f} MiB; the working folder of a run holds {most} MiB.",
            )
        if (head.get("stdin") or 0) > STDIN_BYTES:
            raise ServiceRefused(
                413, "too_large", f"Input that is given at once has at most {STDIN_BYTES} bytes."
            )

    def check(self, spec: Spec, policy: str, grace: float) -> None:
        """Raise SpecInvalid when a run asks for more than there is here."""
        spec.check()
        for name, most in asdict(self._options.highest).items():
            if max(getattr(spec.limits, name), getattr(spec.build, name, 0)) > most:
                raise SpecInvalid("limit_too_high", f"{name} is at most {most} here.", hint="Ask for less.")
        if policy not in POLICIES:
            raise SpecInvalid("policy_unknown", f"disconnect is one of: {', '.join(POLICIES)}.")
        if not 0 <= grace <= self._options.longest_grace_seconds:
            raise SpecInvalid(
                "limit_invalid", f"grace_seconds is at most {self._options.longest_grace_seconds:g}."
            )

    async def start(
        self, name: str, spec: Spec, policy: str, grace: float, held: int
    ) -> tuple[HostedRun, bool]:
        """Begin a run under a name of the client's; returns it, and whether it is new: a name is begun once.

        `held` is what was counted by `hold`; it is let go of when a new run ends.

        Raises:
            RunnerError: as the backend does; ServiceRefused `runner_full`.
        """
        if (found := self._runs.get(name)) is not None:
            return found, False
        if (starting := self._starting.get(name)) is not None:
            return await asyncio.shield(starting), False
        self.refuse_if_full(name)
        self._free(name)
        asked = time.monotonic()
        future = self._starting[name] = asyncio.get_running_loop().create_future()
        try:
            within = await self.backend.start(spec)
            run = HostedRun(self.backend, name, within, policy, grace, asked, spec.limits.disk_mb)
        except BaseException as error:
            future.set_exception(error)
            future.exception()  # whoever waits sees it; nobody need
            raise
        finally:
            del self._starting[name]
            self._changed.set()
        run.held = held
        self._runs[name] = run
        self._tasks[name] = asyncio.create_task(self._drive(run), name=f"host {name}")
        future.set_result(run)
        return run, True

    async def _drive(self, run: HostedRun) -> None:
        feeding = asyncio.create_task(run.feed(), name=f"feed {run.name}")
        try:
            await run.pump()
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
            del self._tasks[run.name]
            self.let_go(run.held)
            self._changed.set()
            metrics.ENDED.labels((run.ended.reason if run.ended else Reason.LOST).value).inc()
            self._ended.append(run.name)
            while len(self._ended) > MOST_ENDED:
                self.forget(self._ended[0])
            if run.ended is not None and run.journal.confirmed >= run.ended.seq:
                self.forget(run.name)
            else:
                asyncio.get_running_loop().call_later(self._options.keep_seconds, self.forget, run.name)

    def get(self, name: str) -> HostedRun:
        """Return a run. Raises RunUnknown."""
        if (found := self._runs.get(name)) is None:
            raise RunUnknown(
                f"There is no run {name[:64]!r} here.",
                hint="It may have ended, or the runner was started anew.",
            )
        return found

    def forget(self, name: str) -> None:
        """Drop what is kept of a run that has ended."""
        if name in self._runs and name not in self._tasks:
            del self._runs[name]
            self._ended.remove(name)
            self._changed.set()

    async def read(self, name: str, after: int) -> AsyncGenerator[Told, None]:
        """Yield a run's events after a number; see `Journal.read`."""
        run = self.get(name)
        run.present()
        try:
            async with aclosing(run.journal.read(after)) as events:
                async for event in events:
                    yield event
        finally:
            run.left()
