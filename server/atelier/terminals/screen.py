"""What people look at: a terminal's tape, its size and who is there, in the process that holds it or a copy in another.

A viewer reads the tape at its own speed: it is sent at most `AHEAD` bytes beyond what it said it has shown, and one
that falls behind what is kept begins again with what there is. The program is read as fast as the fastest viewer
shows it, so that a flood can be stopped with a key.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from atelier.sandbox import Window
from atelier.terminals.tape import Tape

AHEAD = 256 * 1024
PIECE = 32 * 1024


@dataclass(frozen=True, slots=True)
class Typist:
    """Who types, and whether what comes of it may become edits."""

    user_id: str
    name: str
    may_edit: bool


@dataclass(slots=True, eq=False)
class Viewer:
    """One connection that looks at a screen. `place`: what it has been sent; `shown`: what it says it has shown."""

    user_id: str
    name: str
    place: int = 0
    shown: int = 0
    ready: asyncio.Event = field(default_factory=asyncio.Event)


class Screen:
    """Tape, size, people and the end of one terminal."""

    def __init__(self, window: Window) -> None:
        self.tape = Tape()
        self.window = window
        self.ended: dict[str, Any] | None = None
        self.viewers: set[Viewer] = set()
        self.elsewhere: dict[str, tuple[float, dict[str, str]]] = {}
        """Who looks at it through other processes: process -> (when it last said so, id -> name)."""
        self._caught_up = asyncio.Event()

    # --- what the program does

    def show(self, data: bytes) -> None:
        """Add what the program printed."""
        self.tape.add(data)
        self.wake()

    def wake(self) -> None:
        """Let every viewer look."""
        for viewer in self.viewers:
            viewer.ready.set()

    def end(self, result: dict[str, Any]) -> None:
        """Say how it ended; nothing comes after."""
        self.ended = result
        self.wake()
        self._caught_up.set()

    async def paced(self, seconds: float) -> None:
        """Wait until the fastest viewer is near the end of the tape, or for some time."""
        if self.viewers and self._lag() > AHEAD:
            self._caught_up.clear()
            try:
                async with asyncio.timeout(seconds):
                    while self.viewers and self.ended is None and self._lag() > AHEAD:
                        self._caught_up.clear()
                        await self._caught_up.wait()
            except TimeoutError:
                pass

    def _lag(self) -> int:
        return self.tape.end - max(viewer.shown for viewer in self.viewers)

    # --- who looks

    def enter(self, viewer: Viewer, after: int | None) -> None:
        """Let somebody look from a place on, or from the oldest that is kept."""
        viewer.place = (
            after if after is not None and self.tape.start <= after <= self.tape.end else self.tape.start
        )
        viewer.shown = viewer.place
        self.viewers.add(viewer)
        viewer.ready.set()

    def leave(self, viewer: Viewer) -> None:
        """Let somebody go."""
        self.viewers.discard(viewer)
        self._caught_up.set()

    def acknowledge(self, viewer: Viewer, place: int) -> None:
        """Take note of what a viewer has shown."""
        viewer.shown = max(viewer.shown, min(place, viewer.place))
        viewer.ready.set()
        self._caught_up.set()

    def next(self, viewer: Viewer) -> tuple[int, bytes]:
        """Return what a viewer is to be sent now, and its place; nothing when it has all, or enough to do."""
        room = AHEAD - (viewer.place - viewer.shown)
        if room > 0 and viewer.place < self.tape.start:  # it was too slow, or away for too long
            viewer.place, viewer.shown = self.tape.start, self.tape.start - (AHEAD - room)
        most = min(PIECE, room)
        data = self.tape.since(viewer.place, most) if most > 0 else b""
        place = viewer.place
        viewer.place += len(data)
        return place, data

    def people(self) -> list[dict[str, str]]:
        """Return who looks, each once, by name."""
        found = {viewer.user_id: viewer.name for viewer in self.viewers}
        for _, others in self.elsewhere.values():
            found |= others
        return [
            {"user_id": key, "name": name} for key, name in sorted(found.items(), key=lambda item: item[1])
        ]

    def state(self) -> dict[str, Any]:
        """Return what is said of it beside its bytes."""
        return {
            "columns": self.window.columns,
            "rows": self.window.rows,
            "people": self.people(),
            "ended": self.ended,
        }
