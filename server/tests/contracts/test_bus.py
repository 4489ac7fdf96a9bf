"""What every bus promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from deploy.stores import Redis

from atelier.bus import Bus, open_bus


@pytest_asyncio.fixture(params=["memory", "redis"])
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    """An open bus of each kind."""
    url = "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")
    async with open_bus(url) as opened:
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
    with pytest.raises(ValueError, match="memory:// or redis://"):
        async with open_bus("amqp://x"):
            pass


async def test_processes_hear_each_other_in_order_and_are_told_when_something_may_be_lost(
    redis_url: str, redis_server: Redis
) -> None:
    async with open_bus(redis_url) as one, open_bus(redis_url) as two:
        async with one.subscribe("a") as here, two.subscribe("a") as there:
            for n in range(50):
                await one.publish("a", str(n).encode())
            for subscriber in (here, there):
                assert [await anext(subscriber) for _ in range(50)] == [str(n).encode() for n in range(50)]
            async with two.subscribe("a") as another:  # nobody else looks again because of one who comes
                await one.publish("a", b"x")
                for subscriber in (here, there, another):
                    assert await asyncio.wait_for(anext(subscriber), 5) == b"x"
            redis_server.say("CLIENT", "KILL", "TYPE", "pubsub")
            await one.publish("a", b"y")
            assert await asyncio.wait_for(anext(here), 5) == b"y"
            assert await asyncio.wait_for(anext(here), 5) is None
            assert await asyncio.wait_for(anext(there), 5) in (b"y", None)


async def test_without_redis_a_process_hears_itself_and_looks_again_when_it_is_back(
    redis_url: str, redis_server: Redis
) -> None:
    async with open_bus(redis_url) as bus, bus.subscribe("a") as before:
        redis_server.end()
        try:
            await bus.publish("a", b"x")
            assert await anext(before) == b"x"
            async with bus.subscribe("b") as after:
                await bus.publish("b", b"y")
                assert await anext(after) == b"y"
                await asyncio.to_thread(redis_server.start)
                for subscriber in (before, after):
                    assert await asyncio.wait_for(anext(subscriber), 10) is None
        finally:
            if redis_server.process is None:
                redis_server.start()
