"""The cells of one interpreter as the host sees them: bounded, timed, believed in nothing.

The agent queues cells and says which runs; the interpreter says what came of it, and may say anything. So a number counts
only if that cell was sent, sizes are held against what was allowed, and what makes no sense is dropped or ends the run
as lost. A cell over its time or its output is interrupted, which keeps the variables; an interpreter that does not
follow within `GRACE_SECONDS` is ended.
"""

from __future__ import annotations

import asyncio
import io
import struct
import time
from collections.abc import Callable
from typing import Any

from atelier_runner import frames
from atelier_runner.errors import SpecInvalid
from atelier_runner.model import (
    MOST_CELLS,
    CellBegan,
    CellEnded,
    CellError,
    CellLimits,
    CellValue,
    Outcome,
    Reason,
    check_cell,
)
from atelier_runner.outbox import Outbox

GRACE_SECONDS = 3.0
MOST_VALUES = 200
"""Of one cell."""
TEXT = 256 * 1024
MEDIA = ("text/plain", "text/html", "image/svg+xml", "image/png", "image/jpeg")
ROLES = ("value", "display")
STREAMS = {ord("o"): "stdout", ord("e"): "stderr"}
NUMBER = struct.Struct(">I")


class Cells:
    """Takes cells to be sent, and the agent's frames about them."""

    def __init__(
        self,
        limits: CellLimits,
        outbox: Outbox,
        interrupt: Callable[[int], None],
        stop: Callable[[Reason], None],
    ) -> None:
        self._limits, self._outbox = limits, outbox
        self._interrupt, self._stop = interrupt, stop
        self._sent = 0
        self._ended = 0
        self._running = 0
        self._began = 0.0
        self._cause: Outcome | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._printed: dict[int, int] = {}
        self._shown: dict[int, tuple[int, int]] = {}
        self._value: tuple[int, dict[str, Any], int] | None = None
        self._data = io.BytesIO()
        self.detail = ""
        """Why the interpreter was ended, if it was."""

    def take(self, number: int, path: str, code: str) -> bytes:
        """Return the frame of the next cell, empty for one that came before.

        Raises:
            SpecInvalid: `cell_invalid`, `path_invalid`, `cells_full`.
        """
        if number <= self._sent:
            return b""
        if number != self._sent + 1:
            raise SpecInvalid("cell_invalid", f"Cell {number} came after {self._sent}.")
        check_cell(path, code)
        if self._sent - self._ended >= MOST_CELLS:
            raise SpecInvalid(
                "cells_full", f"{MOST_CELLS} cells wait already.", hint="Wait until some of them have run."
            )
        self._sent = number
        return frames.encode_cell(number, path, code)

    async def add(self, kind: int, payload: bytes) -> None:
        """Take a frame. Raises BadFrame for what the agent never says."""
        if len(payload) < NUMBER.size:
            raise frames.BadFrame("a frame about a cell came without its number")
        (cell,), rest = NUMBER.unpack_from(payload), payload[NUMBER.size :]
        if not 0 < cell <= self._sent:
            return
        if kind == frames.CELL_BEGUN:
            if self._running or cell != self._ended + 1:
                raise frames.BadFrame(f"cell {cell} began after {self._ended}")
            self._begin(cell)
        elif kind == frames.CELL_OUTPUT and len(rest) > 1:
            await self._output(cell, STREAMS.get(rest[0], "stdout"), rest[1:])
        elif kind == frames.CELL_VALUE:
            self._begin_value(cell, rest)
        elif kind == frames.CELL_MORE:
            self._more(cell, rest)
        elif kind == frames.CELL_ENDED and cell == self._running:
            await self._end(frames.json_object(rest))
        if self._value is not None and self._data.tell() >= self._value[2]:
            await self._finish_value()

    def close(self) -> None:
        """Let no timer go on."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    # --- time

    def _begin(self, cell: int) -> None:
        loop = asyncio.get_running_loop()
        self._running, self._cause, self._began = cell, None, time.monotonic()
        self._timers.append(loop.call_later(self._limits.wall_seconds, self._over, cell, Outcome.WALL_TIME))
        self._outbox.add(CellBegan(0, cell))

    def _over(self, cell: int, cause: Outcome) -> None:
        """Interrupt a cell that is over a limit; unless it follows, end the interpreter."""
        if cell != self._running or self._cause is not None:
            return
        self._cause = cause
        self._interrupt(cell)
        self._timers.append(asyncio.get_running_loop().call_later(GRACE_SECONDS, self._give_up, cell))

    def _give_up(self, cell: int) -> None:
        if cell != self._running:
            return
        limits = self._limits
        texts = {
            Outcome.WALL_TIME: f"Cell {cell} ran longer than {limits.wall_seconds:g} s and could not be interrupted.",
            Outcome.OUTPUT: f"Cell {cell} printed more than {limits.output_bytes} bytes and could not be interrupted.",
        }
        assert self._cause is not None
        self.detail = texts[self._cause]
        self._stop(Reason.WALL_TIME if self._cause is Outcome.WALL_TIME else Reason.OUTPUT)

    # --- what a cell says

    async def _output(self, cell: int, stream: str, data: bytes) -> None:
        """Keep the first bytes; a cell that prints more is interrupted, and what outlived it is no longer heard."""
        before = self._printed.get(cell, 0)
        self._printed[cell] = before + len(data)
        room = self._limits.output_bytes - before
        if room > 0:
            await self._outbox.output(stream, data[:room], cell)
        if len(data) > room:
            self._over(cell, Outcome.OUTPUT)

    def _begin_value(self, cell: int, payload: bytes) -> None:
        self._value = None
        if len(payload) < 2:
            return
        start = 2 + struct.unpack_from(">H", payload)[0]
        head = frames.json_object(payload[2:start])
        role, media, size = head.get("role"), head.get("type"), head.get("size")
        if role not in ROLES or media not in MEDIA or not isinstance(size, int) or isinstance(size, bool):
            return
        count, total = self._shown.get(cell, (0, 0))
        if not 0 <= size <= self._limits.value_bytes - total or count >= MOST_VALUES:
            self._leave_out(cell, size)
            return
        self._shown[cell] = (count + 1, total + size)
        self._value, self._data = (cell, head, size), io.BytesIO()
        self._data.write(payload[start : start + size])

    def _leave_out(self, cell: int, size: int) -> None:
        note = f"A value of {size} bytes is not shown: a cell may show {self._limits.value_bytes} bytes, in {MOST_VALUES} pieces."
        self._outbox.add(CellValue(0, cell, "display", "text/plain", note.encode()))

    def _more(self, cell: int, payload: bytes) -> None:
        if self._value is not None and self._value[0] == cell:
            self._data.write(payload[: self._value[2] - self._data.tell()])

    async def _finish_value(self) -> None:
        assert self._value is not None
        (cell, head, _), self._value = self._value, None
        data, self._data = self._data.getvalue(), io.BytesIO()
        value = CellValue(0, cell, head["role"], head["type"], data, head.get("instead") is True)
        await self._outbox.room()
        self._outbox.add(value)

    async def _end(self, said: dict[str, Any]) -> None:
        cell, self._running = self._running, 0
        self._ended = cell
        self.close()
        self._forget()
        try:
            outcome = Outcome(str(said.get("outcome")))
        except ValueError:
            outcome = Outcome.ERROR
        error = error_of(said.get("error"))
        if self._cause is not None and outcome is not Outcome.DONE:
            outcome = self._cause
        seconds = time.monotonic() - self._began  # a loop's own clock may stand still while it is busy
        await self._outbox.room()
        self._outbox.add(CellEnded(0, cell, outcome, round(seconds, 6), error))

    def _forget(self) -> None:
        """What cells of long ago have printed counts as their whole allowance."""
        for counts in (self._printed, self._shown):
            for old in [cell for cell in counts if cell < self._ended - 1000]:
                del counts[old]


def error_of(said: object) -> CellError | None:
    """Read what an interpreter says of an error, which may be anything."""
    if not isinstance(said, dict):
        return None
    name, message, text = (str(said.get(key, ""))[:TEXT] for key in ("name", "message", "text"))
    name, message, text = (
        part.encode(errors="replace").decode() for part in (name[:200], message[:2000], text)
    )
    match said.get("place"):
        case [int(cell), int(line)] if 0 < cell < 1 << 31 and 0 < line < 1 << 31:
            return CellError(name, message, text, (cell, line))
    return CellError(name, message, text, None)
