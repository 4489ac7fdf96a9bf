"""A run whose environment must be built first: it looks like a run, says how that goes, and then becomes one.

The time that installing takes is not the program's: its limits begin with it. What is typed meanwhile waits. When the
packages cannot be installed the run ends with the reason `environment`; a terminal opens all the same, since that is where
somebody mends it, and Ctrl+C in it does without them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import replace

from atelier_runner.carrier import Sandbox
from atelier_runner.environments.service import Held
from atelier_runner.errors import RunnerError, SpecInvalid
from atelier_runner.model import MOST_CELLS, Event, Exited, Reason, Spec, Window, check_files
from atelier_runner.outbox import Outbox
from atelier_runner.run import Run

INTERRUPT = b"\3"


class Preparing:
    """`drive` prepares and then drives the run. The other methods are those of `Run`."""

    def __init__(
        self,
        spec: Spec,
        prepare: Callable[[Callable[[bytes], Awaitable[None]]], Coroutine[None, None, Held]],
        begin: Callable[[Spec, Held | None], Awaitable[tuple[Run, Sandbox]]],
    ) -> None:
        self.taken = False
        self._spec = spec
        self._prepare = prepare
        self._begin = begin
        self._outbox = Outbox()
        self._run: Run | None = None
        self._ready = asyncio.Event()
        """There is a run, or there will be none."""
        self._ended = False
        self._files = dict(spec.files)
        self._installing: asyncio.Task[Held] | None = None
        self._stopped = False
        self._cells: deque[tuple[int, str, str]] = deque()
        """Cells that wait for the interpreter."""
        self._handed_over = False

    @property
    def ended(self) -> bool:
        """Whether the last event has been queued."""
        return self._ended or (self._run is not None and self._run.ended)

    async def drive(self) -> None:
        """Install, run the program to its end, leave nothing behind."""
        began = time.monotonic()
        held: Held | None = None
        try:
            self._installing = asyncio.create_task(self._prepare(self._say), name="prepare")
            failure = ""
            try:
                held = await self._installing
            except RunnerError as error:
                failure = " ".join(filter(None, (error.detail, error.hint)))
            except asyncio.CancelledError:
                if not self._installing.cancelled():  # it is this that is cancelled
                    self._installing.cancel()
                    await asyncio.gather(self._installing, return_exceptions=True)
                    raise
                failure = "Nothing was installed."
            if self._stopped:
                self._end(Reason.CANCELLED, "It was stopped.", began)
            elif failure and self._spec.terminal is None:
                self._end(Reason.ENVIRONMENT, failure, began)
            else:
                if failure:
                    await self._say(f"{failure}\n".encode())
                await self._go_on(held, began)
        finally:
            if held is not None:
                held.let_go()
            self._ended = True
            self._ready.set()
            if self._run is None:
                self._end(Reason.LOST, "It never began.", began)

    async def _go_on(self, held: Held | None, began: float) -> None:
        try:
            run, sandbox = await self._begin(replace(self._spec, files=self._files), held)
        except RunnerError as error:
            self._end(Reason.LOST, " ".join(filter(None, (error.detail, error.hint))), began)
            return
        try:
            self._run = run
            self._outbox.exited(
                Exited(0, Reason.EXITED, 0, None, 0.0, 0.0, 0)
            )  # of the installation: nobody sees it
            self._ready.set()
            if self._stopped:
                run.stop(Reason.CANCELLED, files=False)
            handing = asyncio.create_task(self._hand_over(run), name="hand-over")
            try:
                await run.drive()
            finally:
                handing.cancel()
                await asyncio.gather(handing, return_exceptions=True)
        finally:
            await sandbox.close()

    def _end(self, reason: Reason, detail: str, began: float) -> None:
        if not self._ended:
            self._ended = True
            wall = round(time.monotonic() - began, 6)
            self._outbox.exited(Exited(0, reason, None, None, wall, 0.0, 0, detail))

    async def _say(self, data: bytes) -> None:
        if self._spec.terminal is None:
            await self._outbox.output("install", data)
        else:
            await self._outbox.output("terminal", data.replace(b"\n", b"\r\n"))

    async def events(self) -> AsyncIterator[Event]:
        """Yield what is said while it is prepared, then the run's events."""
        last = 0
        async for event in self._outbox.read():
            if isinstance(event, Exited) and self._run is not None:
                break
            last = event.seq
            yield event
        if self._run is not None:
            async for event in self._run.events():
                yield replace(event, seq=last + event.seq)

    def stop(self, reason: Reason, *, files: bool = True) -> None:
        """End it, also while it is being prepared."""
        if self._run is not None:
            self._run.stop(reason, files=files)
        elif not self._ended:
            self._stopped = True
            self._outbox.stop_waiting()
            if self._installing is not None:
                self._installing.cancel()

    async def write(self, data: bytes, *, close: bool) -> None:
        """Send bytes to stdin once there is a program."""
        if self._run is None and self._spec.terminal is not None and INTERRUPT in data:
            if self._installing is not None:
                self._installing.cancel()
            data = data.rpartition(INTERRUPT)[2]
        await self._ready.wait()
        if self._run is not None and (data or close):
            await self._run.write(data, close=close)

    async def bring(self, files: Mapping[str, bytes | None]) -> None:
        """Bring files up to date, before or while it runs."""
        if self._run is not None:
            await self._run.bring(files)
            return
        check_files({**self._files, **{path: data or b"" for path, data in files.items()}}, self._spec.limits)
        for path, data in files.items():  # in place: a run that takes its sandbox just now has them too
            if data is None:
                self._files.pop(path, None)
            else:
                self._files[path] = data

    async def look(self) -> None:
        """Let what has been written come as events; while it is prepared that is nothing."""
        if self._run is not None:
            await self._run.look()
        else:
            self._outbox.looked()

    async def cell(self, number: int, path: str, code: str) -> None:
        """Hand the interpreter a cell; before there is one, keep it."""
        if self._run is not None and self._handed_over:
            await self._run.cell(number, path, code)
        elif self._spec.cells is None:
            raise SpecInvalid("no_cells", "This run is not an interpreter that is sent cells.")
        elif len(self._cells) >= MOST_CELLS:
            raise SpecInvalid("cells_full", f"{MOST_CELLS} cells wait already.")
        else:
            self._cells.append((number, path, code))

    async def _hand_over(self, run: Run) -> None:
        while self._cells:
            with contextlib.suppress(SpecInvalid):  # said by the next one, which is out of turn then
                await run.cell(*self._cells.popleft())
        self._handed_over = True

    async def interrupt(self, number: int) -> None:
        """Interrupt a cell, if it runs; none does while it is prepared."""
        if self._run is not None:
            await self._run.interrupt(number)

    async def resize(self, window: Window) -> None:
        """Change the size of its terminal, before or while it runs."""
        window.check()
        if self._run is not None:
            await self._run.resize(window)
        elif self._spec.terminal is not None:
            self._spec = replace(self._spec, terminal=window)

    async def send_signal(self, name: str) -> None:
        """Send a signal to the program; what would end a program ends the installation."""
        if self._run is not None:
            await self._run.send_signal(name)
        elif name in ("INT", "TERM", "HUP", "QUIT", "KILL"):
            self.stop(Reason.CANCELLED)
