"""A terminal that another process holds, as its viewers here see it: a copy of the screen, fed over the bus."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict

from atelier.sandbox import Window
from atelier.services import Services
from atelier.terminals import relay
from atelier.terminals.screen import Screen, Typist

_ASK_SECONDS = 5.0
_SILENT_SECONDS = 20.0
_UNUSED_SECONDS = 10.0
_SOON_SECONDS = 0.2


class Mirror:
    """`follow` it while there are viewers."""

    def __init__(self, services: Services, process: str, terminal_id: str) -> None:
        self.screen = Screen(Window(80, 24))
        self._bus = services.bus
        self._process = process
        self._id = terminal_id
        self._asked = 0.0

    async def type(self, data: bytes, typist: Typist) -> None:
        """Hand keys to the process that holds it."""
        for start in range(0, len(data), relay.PIECE):
            keys = data[start : start + relay.PIECE]
            await relay.ask(self._bus, self._id, "type", data=keys, typist=asdict(typist))

    async def resize(self, window: Window) -> None:
        """Ask for a size."""
        await relay.ask(self._bus, self._id, "resize", columns=window.columns, rows=window.rows)

    async def follow(self) -> None:
        """Copy what the terminal shows, until it ends or nobody has looked for a while."""
        heard = used = time.monotonic()
        async with self._bus.subscribe(relay.topic(self._id), bound=2048) as signals:
            await self._watch()
            while self.screen.ended is None:
                try:
                    message = await asyncio.wait_for(anext(signals), _ASK_SECONDS)
                except TimeoutError:
                    message = None
                if message is None:
                    await self._watch()
                else:
                    heard = time.monotonic()
                    await self._take(message)
                now = time.monotonic()
                used = now if self.screen.viewers else used
                if now - used > _UNUSED_SECONDS:
                    return
                if now - heard > _SILENT_SECONDS:
                    self.screen.end({"reason": "lost", "code": None, "detail": "Its server does not answer."})
                if now - self._asked > _ASK_SECONDS:
                    await self._watch()

    async def _watch(self) -> None:
        """Say who looks at it here, and ask for what is missing."""
        self._asked = time.monotonic()
        people = {viewer.user_id: viewer.name for viewer in self.screen.viewers}
        end = self.screen.tape.end
        await relay.ask(self._bus, self._id, "watch", process=self._process, people=people, place=end)

    async def _take(self, message: bytes) -> None:
        tape = self.screen.tape
        match relay.read(message):
            case (int(place), bytes(data)):
                known = tape.end - place
                if known >= 0:
                    self.screen.show(data[known:])
                elif time.monotonic() - self._asked > _SOON_SECONDS:
                    await self._watch()
            case {"columns": int(columns), "rows": int(rows), "start": int(start)} as state:
                if tape.end < start:
                    tape.skip_to(start)
                self.screen.window = Window(columns, rows)
                people = {person["user_id"]: person["name"] for person in state["people"]}
                self.screen.elsewhere["there"] = (time.monotonic(), people)
                if state["ended"] is not None:
                    self.screen.end(state["ended"])
                self.screen.wake()
