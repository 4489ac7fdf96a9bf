"""One life of a kept interpreter, as its reader sees it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

from atelier_runner import (
    Backend,
    CellBegan,
    CellEnded,
    CellLimits,
    CellValue,
    Changed,
    Exited,
    Limits,
    Looked,
    Output,
    Spec,
)

LIFE = Limits(wall_seconds=60, cpu_seconds=30, memory_mb=192, processes=32, disk_mb=16, output_bytes=1 << 40)


class Kept:
    """Sends cells and keeps what comes."""

    def __init__(self, backend: Backend, run: str) -> None:
        self.backend, self.run = backend, run
        self.sent = 0
        self.printed: dict[tuple[int, str], bytes] = defaultdict(bytes)
        self.values: dict[int, list[CellValue]] = defaultdict(list)
        self.began: list[int] = []
        self.ended: dict[int, CellEnded] = {}
        self.changed: dict[str, bytes | None] = {}
        self.looks = 0
        self.end: Exited | None = None
        self._more = asyncio.Event()
        self.reading = asyncio.create_task(self._read())

    @classmethod
    async def begin(
        cls, backend: Backend, cells: CellLimits | None = None, *, limits: Limits = LIFE, **more: object
    ) -> Kept:
        spec = Spec("python", "", {"notes.txt": b"first\n"}, limits, cells=cells or CellLimits())
        return cls(backend, await backend.start(replace(spec, **more)))  # type: ignore[arg-type]

    async def _read(self) -> None:
        async for event in self.backend.events(self.run):
            match event:
                case CellBegan():
                    self.began.append(event.cell)
                case CellValue():
                    assert event.cell in self.began
                    self.values[event.cell].append(event)
                case CellEnded():
                    assert event.cell == self.began[-1]
                    self.ended[event.cell] = event
                case Output():
                    assert event.cell in self.began, event
                    self.printed[event.cell, event.stream] += event.data
                case Changed():
                    self.changed[event.path] = event.data
                case Looked():
                    self.looks += 1
                case Exited():
                    self.end = event
            self._more.set()

    async def send(self, code: str, path: str = "") -> int:
        self.sent += 1
        await self.backend.cell(self.run, self.sent, path, code)
        return self.sent

    async def cell(self, code: str, path: str = "", seconds: float = 20) -> CellEnded:
        """Run a cell to its end."""
        number = await self.send(code, path)
        await self.until(lambda: number in self.ended, seconds)
        return self.ended[number]

    async def out(self, code: str, path: str = "") -> str:
        """Return what a cell printed and its value, as text."""
        done = await self.cell(code, path)
        assert done.error is None, done.error.text
        return self.text(done.cell)

    def text(self, cell: int) -> str:
        shown = "".join(v.data.decode() for v in self.values[cell] if v.media_type == "text/plain")
        return self.printed[cell, "stdout"].decode() + shown

    def has_printed(self, cell: int, text: str) -> bool:
        return self.printed[cell, "stdout"] == text.encode()

    async def until(self, condition: Callable[[], bool], seconds: float = 20) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    assert not self.reading.done() or condition(), self.end
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            raise AssertionError(f"never: {self.began} {self.ended} {dict(self.printed)}") from None

    async def over(self, seconds: float = 20) -> Exited:
        await asyncio.wait_for(self.reading, seconds)
        assert self.end is not None
        return self.end

    async def close(self) -> None:
        await self.backend.cancel(self.run)
        await self.over()
