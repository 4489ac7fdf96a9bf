"""What one cell prints and shows, as it happens: told live, stored in small groups, numbered from 1."""

from __future__ import annotations

from typing import Any

from atelier import times
from atelier.errors import Unavailable
from atelier.events import publish_transient
from atelier.interpreters import queries
from atelier.runs import Recorder
from atelier.services import Services

TEXT = "text/plain"
_MOST_TOLD = 5_000  # characters of one event: at 12 bytes each in JSON it stays below what the bus carries


class CellRecorder(Recorder):
    """A run's recorder, whose events are a cell's; it goes on when the cell has ended."""

    def __init__(self, services: Services, session_id: str, cell_id: str) -> None:
        super().__init__(services, session_id, cell_id)
        self._files = 0
        self._room = services.limits.cell_output_bytes
        """For values that are text: they are kept like what is printed."""

    async def value(self, role: str, media_type: str, data: bytes, *, instead: bool) -> None:
        """Add a value; what is more than text is kept as a file."""
        told: dict[str, Any] = {"role": role, "media_type": media_type}
        if media_type == TEXT:
            if len(data) > self._room:
                if self._room >= 0:
                    self._room = -1
                    note = "Further values are not kept: a cell shows as much text as it may print."
                    await self.say("note", {"data": note})
                return
            self._room -= len(data)
            told["data"] = data.decode(errors="replace")
            if instead:
                told["instead"] = True
        else:
            self._files += 1
            async with self._services.db.begin() as db:
                await queries.add_file(
                    db, cell_id=self._run_id, number=self._files, media_type=media_type, size=len(data), content=data
                )  # fmt: skip
                await queries.forget_files(db, self._session_id, self._services.limits.session_shown_bytes)
            told["number"] = self._files
        await self.say("value", told)

    async def say(self, type_: str, data: dict[str, Any]) -> None:
        """Add an event after what was printed before, and tell it."""
        await self._tell()
        await self._tell_one(self._number(type_, data))
        self._wake()

    async def settle(self) -> None:
        """Store all there is; more may come."""
        for stream in self._decoders:
            self.output(stream, b"", final=True)
            self._decoders[stream].reset()
        await self._pass_on_now()
        if self._unstored:
            raise Unavailable("database_unavailable", "Some of a cell's output is not stored.")

    def _number(self, type_: str, data: dict[str, Any]) -> dict[str, Any]:
        self._seq += 1
        event = {"cell_id": self._run_id, "seq": self._seq, "type": type_, "data": data, "at": times.now()}
        self._unstored.append(event)
        return event

    async def _tell_one(self, event: dict[str, Any]) -> None:
        told = {name: event[name] for name in ("cell_id", "seq", "type", "data")}
        text = event["data"].get("data", "")
        if len(text) > _MOST_TOLD:  # whoever looks reads the rest when the cell has ended
            told["data"] = {**event["data"], "data": text[:_MOST_TOLD], "cut": True}
        await publish_transient(self._services, self._session_id, "cell.event", told)

    async def _store(self) -> None:
        rows = self._unstored[:]
        if rows:
            async with self._services.db.begin() as db:
                await queries.add_events(db, rows)
            del self._unstored[: len(rows)]
