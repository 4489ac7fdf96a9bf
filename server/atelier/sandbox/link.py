"""One run on a runner elsewhere: its line, made anew whenever it breaks, and what must not be lost meanwhile.

Theory of operation. `follow` is the link's one task. While it has a line it hears events and, beside that, sends what
is due: input that the program has not taken yet, how far we have come, and a wish to stop. The runner keeps events
until they are confirmed and we keep input until it is confirmed, both numbered; so after a break each side says again
what the other may not have, and neither sees anything twice. What is not confirmed is bounded on both sides, so the
line is always read at once and its pings are always answered, however slow whoever reads the events is. When the
runner does not know the run any more, or has not been heard of for `patience` seconds, the run has ended as lost: said
once, here and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import AsyncIterator

import structlog
import websockets
from websockets.asyncio.client import ClientConnection, connect

from atelier.sandbox.base import Event, Exited, Output, Reason
from atelier.sandbox.words import event_of
from atelier_runner.wire import INPUT_WINDOW, BadMessage, Cut, pack, read_event, unpack

logger = structlog.get_logger(__name__)
_PIECE = 64 * 1024  # of input
_CONFIRM_EVERY = 64 * 1024  # bytes of events that were taken
_EVENT_BYTES = 64  # beside its data, as the runner counts
_OPEN_SECONDS = 5.0
_PING_SECONDS = 5.0
_LONGEST_PAUSE = 1.0
_FINAL = {
    401: "The runner refuses this server's secret.",
    404: "The runner was started anew, or has given the run up.",
    410: "The runner no longer has what this server missed.",
}


class _Lost(Exception):
    """The run cannot be followed any more."""


class Link:
    """See the module. `events` is read once; `follow` runs in a task of the owner's."""

    def __init__(self, run: str, url: str, headers: dict[str, str], patience: float) -> None:
        self.run = run
        self._url = url
        self._headers = headers
        self.read = False
        """Whether somebody has begun to read its events."""
        self._patience = patience
        self._heard = asyncio.get_running_loop().time()
        self._seq = 0
        self._events: deque[Event] = deque()
        self._came = asyncio.Event()
        self._ended = False
        self._finished = asyncio.Event()
        self._taken_seq = 0
        self._taken_size = 0
        self._confirmed = 0
        self._input: deque[tuple[int, bytes, bool]] = deque()
        self._input_size = 0
        self._input_number = 0
        self._input_taken = asyncio.Event()
        self._cancelled = False
        self._due = asyncio.Event()

    # --- for whoever started the run ------------------------------------------------------------------------------

    async def events(self) -> AsyncIterator[Event]:
        """Yield the run's events; leaving early cancels it."""
        try:
            while True:
                while self._events:
                    event = self._events.popleft()
                    yield event
                    if isinstance(event, Exited):
                        return
                    self._took(event)
                self._came.clear()
                await self._came.wait()
        finally:
            self.cancel()

    @property
    def ended(self) -> bool:
        """Whether its last event has come."""
        return self._ended

    async def write(self, data: bytes, *, close: bool) -> None:
        """Queue input; waits while the program has not taken what came before."""
        for start in range(0, max(1, len(data)), _PIECE):
            piece = data[start : start + _PIECE]
            while self._input_size + len(piece) > INPUT_WINDOW and not self._ended:
                self._input_taken.clear()
                await self._input_taken.wait()
            if self._ended:
                return
            self._input_number += 1
            self._input.append((self._input_number, piece, close and start + _PIECE >= len(data)))
            self._input_size += len(piece)
            self._due.set()

    async def wait(self) -> None:
        """Wait until it has ended."""
        await self._finished.wait()

    def cancel(self) -> None:
        """Ask for its end, now or as soon as there is a line."""
        self._cancelled = True
        self._due.set()

    def _took(self, event: Event) -> None:
        self._taken_seq = event.seq
        self._taken_size += _EVENT_BYTES + len(getattr(event, "data", None) or b"")
        if self._taken_size >= _CONFIRM_EVERY:
            self._taken_size = 0
            self._due.set()

    # --- the line ---------------------------------------------------------------------------------------------------

    async def follow(self) -> None:
        """Follow the run to its end, over as many lines as it takes."""
        try:
            await self._follow()
        except _Lost as lost:
            logger.warning("a run is lost", run=self.run, why=str(lost))
            self._add(Exited(self._seq + 1, Reason.LOST, None, None, 0.0, 0.0, 0, str(lost)))

    async def _follow(self) -> None:
        clock, pauses, why = asyncio.get_running_loop().time, 0, ""
        while not self._ended:
            try:
                line = await connect(
                    f"{self._url}?after={self._seq}", additional_headers=self._headers, compression=None,
                    proxy=None, open_timeout=min(_OPEN_SECONDS, self._patience), close_timeout=1.0, max_size=None,
                    max_queue=None, ping_interval=_PING_SECONDS, ping_timeout=_PING_SECONDS,
                )  # fmt: skip
                try:
                    pauses = 0
                    await self._converse(line)
                    await line.close()
                    why = "the line was closed"
                finally:
                    line.transport.abort()
            except websockets.InvalidStatus as error:
                if (final := _FINAL.get(error.response.status_code)) is not None:
                    raise _Lost(final) from None
                why = str(error)
            except websockets.ConnectionClosedError as error:
                if error.rcvd is not None and error.rcvd.code in (4400, 4410):
                    raise _Lost(f"The runner ended the conversation: {error.rcvd.reason}") from None
                why = str(error)
            except BadMessage as error:
                raise _Lost(f"The runner said what cannot be understood: {error}.") from None
            except (OSError, websockets.WebSocketException, TimeoutError) as error:
                why = str(error) or type(error).__name__
            if self._ended:
                return
            if clock() - self._heard > self._patience:
                raise _Lost(f"The runner has not been heard of for {self._patience:g} s: {why}.")
            pauses += 1
            await asyncio.sleep(min(_LONGEST_PAUSE, 0.02 * 2 ** min(pauses, 6)) * random.uniform(0.5, 1.0))

    async def _converse(self, line: ClientConnection) -> None:
        self._heard = asyncio.get_running_loop().time()
        sending = asyncio.create_task(self._send(line), name=f"send to {self.run}")
        try:
            async for message in line:
                self._heard = asyncio.get_running_loop().time()
                if not isinstance(message, bytes):
                    raise BadMessage("a text came")
                self._hear(message)
                if self._ended:
                    await line.send(pack({"type": "confirm", "seq": self._seq}))
                    return
        finally:
            self._heard = max(self._heard, asyncio.get_running_loop().time() - 2 * _PING_SECONDS)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    def _hear(self, message: bytes) -> None:
        head, body = unpack(message)
        if head.get("type") == "taken":
            while self._input and self._input[0][0] <= head["input"]:
                self._input_size -= len(self._input.popleft()[1])
            self._input_taken.set()
            return
        event = read_event(head, body)
        if isinstance(event, Cut):
            note = f"\n[{event.size} bytes of output are missing here: nobody was there to read them]\n"
            self._add(Output(event.seq, "stderr", note.encode()))
            return
        if event.seq != self._seq + 1:
            raise BadMessage(f"event {event.seq} came after {self._seq}")
        self._add(event_of(event))

    def _add(self, event: Event) -> None:
        self._seq = event.seq
        self._ended = isinstance(event, Exited)
        self._events.append(event)
        self._came.set()
        if self._ended:
            self._finished.set()
            self._input_taken.set()

    async def _send(self, line: ClientConnection) -> None:
        """Send what is due, from the beginning of what this line has not carried."""
        sent = confirmed = 0
        cancelled = False
        self._due.set()
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await self._due.wait()
                self._due.clear()
                if self._cancelled and not cancelled:
                    cancelled = True
                    await line.send(pack({"type": "cancel"}))
                if self._taken_seq > confirmed:
                    confirmed = self._taken_seq
                    await line.send(pack({"type": "confirm", "seq": confirmed}))
                for number, data, close in [piece for piece in self._input if piece[0] > sent]:
                    await line.send(pack({"type": "input", "number": number, "close": close}, data))
                    sent = number
