"""Whatever becomes of the signals, a socket is told every numbered event once and in order."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
from starlette.websockets import WebSocket

from atelier.bus import Bus
from atelier.events import publish, publish_transient
from atelier.events.routes import _tell
from atelier.events.service import as_told
from atelier.services import Services

from ..conftest import MakeGuest, session_of


@dataclass
class Shaky:
    """A bus that loses signals, says only that it did, repeats them, and lets later ones overtake."""

    bus: Bus
    draw: random.Random
    alone: bool = True

    async def publish(self, topic: str, message: bytes) -> None:
        await self.bus.publish(topic, message)

    @asynccontextmanager
    async def subscribe(self, topic: str, *, bound: int = 256) -> AsyncIterator[AsyncIterator[bytes | None]]:
        async with self.bus.subscribe(topic, bound=bound) as signals:
            yield self._mixed(signals)

    async def _mixed(self, signals: AsyncIterator[bytes | None]) -> AsyncIterator[bytes | None]:
        waiting: list[bytes | None] = []
        async for signal in signals:
            waiting.append(signal)
            if signal == b"":
                waiting.append(signal)
            while len(waiting) > self.draw.randrange(3) or (signal == b"" and waiting):
                chosen = waiting.pop(self.draw.randrange(len(waiting)))
                what = self.draw.random()
                if what < 0.2 and chosen != b"":
                    yield None
                    continue
                yield chosen
                if what > 0.8:
                    yield chosen


@dataclass
class Socket:
    told: list[dict[str, Any]] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    async def send_text(self, text: str) -> None:
        self.told.append(json.loads(text))
        self.came.set()

    async def until(self, count: int) -> None:
        """Wait for so many messages."""
        async with asyncio.timeout(10):
            while len(self.told) < count:
                self.came.clear()
                await self.came.wait()


@pytest.mark.parametrize("seed", range(6))
async def test_every_event_is_told_once_and_in_order(guest: MakeGuest, services: Services, seed: int) -> None:
    draw = random.Random(seed)
    session = await session_of(await guest())
    shaky = replace(services, bus=cast("Bus", Shaky(services.bus, draw)))
    socket = Socket()
    telling = asyncio.create_task(_tell(cast("WebSocket", socket), shaky, session, None))
    await socket.until(1)
    first = socket.told[0]["seq"]

    async def say(number: int) -> int:
        await asyncio.sleep(draw.random() / 50)
        text = "é" * draw.choice((1, 100, 40_000))  # the last is more than a signal carries
        return await publish(services, session, "test", {"number": number, "text": text})

    numbers = await asyncio.gather(*(say(n) for n in range(40)))
    await services.bus.publish(f"events:{session}", b"")
    await socket.until(41)  # hello comes first
    await asyncio.sleep(0.05)  # whatever would be told twice
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
    told = [one for one in socket.told if one["type"] == "test"]
    assert [one["seq"] for one in told] == list(range(first + 1, first + 41)) == sorted(numbers)
    assert sorted(one["data"]["number"] for one in told) == list(range(40))


async def test_an_event_told_by_its_signal_is_the_one_that_is_stored(
    guest: MakeGuest, services: Services
) -> None:
    session = await session_of(await guest())
    async with services.bus.subscribe(f"events:{session}") as signals:
        number = await publish(services, session, "test", {"b": [1, None, "é"], "a": {"c": 1.5}})
        at_once = await anext(signals)
        await publish_transient(services, session, "passing", {})
        passing = await anext(signals)
    assert at_once is not None and passing is not None
    socket = Socket()
    telling = asyncio.create_task(_tell(cast("WebSocket", socket), services, session, number - 1))
    await socket.until(2)
    telling.cancel()
    assert at_once.decode() == f"{number} {as_told(socket.told[1])}"
    assert json.loads(passing)["type"] == "passing"
