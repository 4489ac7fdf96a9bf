"""The queue: fair between people, bounded, honest about positions."""

from __future__ import annotations

import asyncio

import pytest

from atelier.errors import TooMany
from atelier.sandbox import Turn
from atelier.sandbox.turns import FairQueue, LocalTurns


def test_people_take_turns_however_many_somebody_has_queued() -> None:
    queue = FairQueue(20)
    for n in range(4):
        queue.put("ada", f"a{n}")
    queue.put("bob", "b0")
    queue.put("bob", "b1")
    assert [queue.positions()[x] for x in ("a0", "b0", "a1", "b1", "a2")] == [0, 1, 2, 3, 4]
    assert [queue.take() for _ in range(7)] == ["a0", "b0", "a1", "b1", "a2", "a3", None]


def test_a_full_queue_refuses_with_a_time() -> None:
    queue = FairQueue(1)
    queue.put("ada", "a0")
    with pytest.raises(TooMany) as refused:
        queue.put("bob", "b0")
    assert refused.value.code == "queue_full"
    assert refused.value.retry_after > 0


def test_what_is_dropped_no_longer_waits() -> None:
    queue = FairQueue(5)
    queue.put("ada", "a0")
    assert queue.drop("a0")
    assert not queue.drop("a0")
    assert (len(queue), queue.positions(), queue.take()) == (0, {}, None)


def test_lower_priorities_come_after_everybody_else() -> None:
    queue = FairQueue(10)
    queue.put("ada", "low", 1)
    queue.put("bob", "b0")
    queue.put("ada", "a0")
    assert queue.positions() == {"b0": 0, "a0": 1, "low": 2}
    assert [queue.take() for _ in range(4)] == ["b0", "a0", "low", None]


async def test_no_more_run_at_once_than_there_is_room_for() -> None:
    turns = LocalTurns(2, 10)
    for n in range(4):
        await turns.put(Turn(f"r{n}", "ada"))
    first, second = await turns.take(), await turns.take()
    assert (first.run, second.run, turns.waiting) == ("r0", "r1", 2)
    waiting = asyncio.ensure_future(turns.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    await turns.done(first)
    assert (await waiting).run == "r2"
    assert await turns.positions(["r3"]) == {"r3": 0}
    assert await turns.drop("r3")
    assert not await turns.drop("r2")


async def test_what_could_not_begin_stands_in_front_and_is_not_refused() -> None:
    turns = LocalTurns(1, 2)
    for n in range(2):
        await turns.put(Turn(f"r{n}", f"person{n}"))
    mine = await turns.take()
    await turns.put(Turn("r2", "ada"))
    await turns.put(mine, again=True)
    await turns.done(mine)
    assert (await turns.take()).run == "r0"
