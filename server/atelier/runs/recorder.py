"""One run's events as they happen: told live at once, stored in small groups, numbered from 1."""

from __future__ import annotations

import asyncio
import codecs
from typing import Any

from atelier import times
from atelier.events import publish_transient
from atelier.runs import queries
from atelier.services import Services

_GROUP_SECONDS = 0.05
_MOST_CHARACTERS = 8 * 1024  # of one event: in JSON it stays below what the bus carries


def topic(run_id: str) -> str:
    """The bus topic that says "there are new events of this run"."""
    return f"run:{run_id}"


class Recorder:
    """Takes bytes of both streams; characters that are cut between two reads are put together."""

    def __init__(self, services: Services, session_id: str, run_id: str, seq: int = 0) -> None:
        self._services, self._session_id, self._run_id = services, session_id, run_id
        self._seq = seq
        self._unstored: list[dict[str, Any]] = []
        self._storing: asyncio.Task[None] | None = None
        self._decoders = {
            name: codecs.getincrementaldecoder("utf-8")("replace") for name in ("stdout", "stderr")
        }

    async def output(self, stream: str, data: bytes, *, final: bool = False) -> None:
        """Add what a stream printed."""
        text = self._decoders[stream].decode(data, final)
        for start in range(0, len(text), _MOST_CHARACTERS):
            await self.add(stream, {"data": text[start : start + _MOST_CHARACTERS]})

    async def add(self, type_: str, data: dict[str, Any]) -> None:
        """Add an event; it is stored within 50 ms."""
        self._seq += 1
        event = {"run_id": self._run_id, "seq": self._seq, "type": type_, "data": data, "at": times.now()}
        self._unstored.append(event)
        if type_ in self._decoders:
            shown = {"run_id": self._run_id, "seq": self._seq, "stream": type_, **data}
            await publish_transient(self._services, self._session_id, "run.output", shown)
        if self._storing is None:
            self._storing = self._services.tasks.start(self._store_soon(), name=f"store {self._run_id}")

    async def end(self, result: dict[str, Any]) -> None:
        """Add what is left of both streams and the last event, and store everything."""
        for stream in self._decoders:
            await self.output(stream, b"", final=True)
        await self.add("exited", result)
        if self._storing is not None:
            self._storing.cancel()
            await asyncio.wait([self._storing])
        await self._store()

    async def _store_soon(self) -> None:
        try:
            await asyncio.sleep(_GROUP_SECONDS)
            await asyncio.shield(self._services.tasks.start(self._store(), name=f"store {self._run_id}"))
        finally:
            self._storing = None

    async def _store(self) -> None:
        rows, self._unstored = self._unstored, []
        if not rows:
            return
        async with self._services.db.begin() as db:
            await queries.add_events(db, rows)
        await self._services.bus.publish(topic(self._run_id), b"")
