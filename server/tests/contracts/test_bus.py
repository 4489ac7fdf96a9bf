"""What every bus promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from atelier.bus import Bus, open_bus


@pytest_asyncio.fixture(params=["memory://"])
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    """An open bus of each kind."""
    async with open_bus(request.param) as opened:
        yield opened


async def test_subscribers_of_a_topic_hear_in_order_and_others_do_not(bus: Bus) -> None:
    async with bus.subscribe("a") as one, bus.subscribe("a") as two, bus.subscribe("b") as other:
        for n in range(3):
            await bus.publish("a", str(n).encode())
        await bus.publish("b", b"mine")
        for subscriber in (one, two):
            assert [await anext(subscriber) for _ in range(3)] == [b"0", b"1", b"2"]
        assert await anext(other) == b"mine"


async def test_who_is_too_slow_loses_the_oldest_and_is_told_once(bus: Bus) -> None:
    async with bus.subscribe("a", bound=4) as slow:
        for n in range(20):
            await bus.publish("a", str(n).encode())
        heard = [await asyncio.wait_for(anext(slow), 1) for _ in range(4)]
        assert heard[0] is None
        assert heard.count(None) == 1
        assert heard[-1] in (b"18", b"19")


async def test_nobody_hears_what_was_said_before_or_after(bus: Bus) -> None:
    await bus.publish("a", b"before")
    async with bus.subscribe("a") as one:
        await bus.publish("a", b"now")
        assert await anext(one) == b"now"
    await bus.publish("a", b"after")


async def test_a_message_has_at_most_64_kib(bus: Bus) -> None:
    with pytest.raises(ValueError, match="65536"):
        await bus.publish("a", bytes(65_537))


async def test_another_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="memory://"):
        async with open_bus("amqp://x"):
            pass
