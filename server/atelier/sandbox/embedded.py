"""The runner package in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import atelier_runner as runner
from atelier.sandbox.base import Capabilities, Event, Place, RunSpec, Turns, Window
from atelier.sandbox.words import capabilities_of, event_of, spec_for_runner, translated, window_for_runner


class EmbeddedSandbox:
    """A client of the runner's local backend."""

    def __init__(self, backend: runner.Backend, turns: Turns) -> None:
        self.turns = turns
        self._backend = backend

    async def capabilities(self) -> Capabilities:
        """Say what this machine enforces; takes about a second the first time."""
        return capabilities_of(await self._backend.capabilities())

    async def start(self, spec: RunSpec, place: Place | None = None) -> str:
        """Begin a run; see `Sandbox`."""
        with translated():
            return await self._backend.start(spec_for_runner(spec))

    async def events(self, run: str) -> AsyncIterator[Event]:
        """Yield the run's events; see `Sandbox`."""
        with translated():
            async for event in self._backend.events(run):
                yield event_of(event)

    async def write(self, run: str, data: bytes, *, close: bool = False) -> None:
        """Send bytes to stdin, and close it when asked."""
        with translated():
            await self._backend.write(run, data, close=close)

    async def bring(self, run: str, files: Mapping[str, bytes | None]) -> None:
        """Bring files up to date while it runs; see `Sandbox`."""
        with translated():
            await self._backend.bring(run, files)

    async def look(self, run: str) -> None:
        """Let what has been written so far come as events."""
        await self._backend.look(run)

    async def cell(self, run: str, number: int, path: str, code: str) -> None:
        """Hand an interpreter its next cell."""
        with translated():
            await self._backend.cell(run, number, path, code)

    async def interrupt(self, run: str, cell: int) -> None:
        """Interrupt a cell."""
        with translated():
            await self._backend.interrupt(run, cell)

    async def resize(self, run: str, window: Window) -> None:
        """Change the size of a run's terminal."""
        with translated():
            await self._backend.resize(run, window_for_runner(window))

    async def signal(self, run: str, name: str) -> None:
        """Send a signal to the program."""
        with translated():
            await self._backend.signal(run, name)

    async def cancel(self, run: str) -> None:
        """End the whole process tree."""
        await self._backend.cancel(run)
