"""One run's events as they happen: told live, stored in small groups, numbered from 1.

The first output is told and stored at once; what follows within 50 ms goes out together. So a program that prints
byte by byte, or alternates between its streams, makes a few events instead of thousands. What is no output waits as
long for some, to be stored with it.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
from typing import Any

import structlog

from atelier import times
from atelier.errors import Unavailable
from atelier.events import publish_transient
from atelier.runs import queries
from atelier.services import Services

logger = structlog.get_logger(__name__)
_GROUP_SECONDS = 0.05
_MOST_CHARACTERS = 5_000  # of one event: at 12 bytes each in JSON it stays below what the bus carries
_MOST_PIECES = (
    16  # of one group; beyond it a stream's output joins its last piece, and order between streams is rough
)


def topic(run_id: str) -> str:
    """The bus topic that says "there are new events of this run"."""
    return f"run:{run_id}"


class Recorder:
    """Takes bytes of each stream; characters that are cut between two reads are put together."""

    def __init__(self, services: Services, session_id: str, run_id: str, seq: int = 0) -> None:
        self._services, self._session_id, self._run_id = services, session_id, run_id
        self._seq = seq
        self._printed: list[tuple[str, list[str]]] = []
        self._unstored: list[dict[str, Any]] = []
        self._came = asyncio.Event()
        self._ending = asyncio.Event()
        self._passing_on: asyncio.Task[None] | None = None
        self._decoders = {
            name: codecs.getincrementaldecoder("utf-8")("replace") for name in ("install", "stdout", "stderr")
        }

    def output(self, stream: str, data: bytes, *, final: bool = False) -> None:
        """Add what a stream printed."""
        text = self._decoders[stream].decode(data, final)
        if not text:
            return
        last = next((piece for piece in reversed(self._printed) if piece[0] == stream), None)
        if last is not None and (self._printed[-1] is last or len(self._printed) >= _MOST_PIECES):
            last[1].append(text)
        else:
            self._printed.append((stream, [text]))
        self._came.set()
        self._wake()

    async def add(self, type_: str, data: dict[str, Any]) -> None:
        """Add an event that is not output, after the output before it."""
        await self._tell()
        self._number(type_, data)
        self._wake()

    async def end(self, result: dict[str, Any]) -> None:
        """Add what is left of each stream and the last event, and store everything.

        Raises:
            Unavailable: the database does not take them; those not stored are lost.
        """
        for stream in self._decoders:
            self.output(stream, b"", final=True)
        await self._pass_on_now()
        await self._tell()
        self._number("exited", result)
        await self._store()

    async def _pass_on_now(self) -> None:
        """Tell and store what there is, without waiting for more."""
        self._ending.set()
        self._came.set()
        try:
            if self._passing_on is not None:
                await self._passing_on
        finally:
            self._ending.clear()

    def _wake(self) -> None:
        if self._passing_on is None or self._passing_on.done():
            self._passing_on = self._services.tasks.start(self._pass_on(), name=f"record {self._run_id}")

    async def _pass_on(self) -> None:
        """Tell and store what there is, again and again until there is nothing."""
        while self._printed or self._unstored:
            if not self._printed:
                await self._pause(self._came)
            self._came.clear()
            told = await self._tell()
            try:
                await self._store()
            except Unavailable:
                logger.warning("run events wait for the database", run=self._run_id)
                if self._ending.is_set():
                    return
            if told:
                await self._pause(self._ending)

    async def _pause(self, until: asyncio.Event) -> None:
        """Let a group's time pass, or less when that happens; no time at the end."""
        if not self._ending.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(until.wait(), _GROUP_SECONDS)

    def _number(self, type_: str, data: dict[str, Any]) -> dict[str, Any]:
        self._seq += 1
        event = {"run_id": self._run_id, "seq": self._seq, "type": type_, "data": data, "at": times.now()}
        self._unstored.append(event)
        return event

    def _number_output(self) -> list[dict[str, Any]]:
        printed, self._printed = self._printed, []
        return [
            self._number(stream, {"data": text[start : start + _MOST_CHARACTERS]})
            for stream, text in ((stream, "".join(parts)) for stream, parts in printed)
            for start in range(0, len(text), _MOST_CHARACTERS)
        ]

    async def _tell(self) -> bool:
        """Tell what was printed; says whether anything was."""
        told = self._number_output()
        for event in told:
            await self._tell_one(event)
        return bool(told)

    async def _tell_one(self, event: dict[str, Any]) -> None:
        shown = {"run_id": self._run_id, "seq": event["seq"], "stream": event["type"], **event["data"]}
        await publish_transient(self._services, self._session_id, "run.output", shown)

    async def _store(self) -> None:
        rows = self._unstored[:]
        if not rows:
            return
        async with self._services.db.begin() as db:
            await queries.add_events(db, rows)
        del self._unstored[: len(rows)]
        await self._services.bus.publish(topic(self._run_id), b"")
