"""The journal: whatever a reader does, it gets everything once and in order, or is told what is gone."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing

import pytest

from atelier_runner.errors import EventsGone, ReaderReplaced
from atelier_runner.journal import KEPT, WINDOW, Journal
from atelier_runner.model import Exited, Output, Reason, Started
from atelier_runner.wire import Cut, Told

PIECE = 10_000


def output(seq: int, size: int = PIECE) -> Output:
    return Output(seq, "stdout", seq.to_bytes(4, "big") * (size // 4))


def exited(seq: int) -> Exited:
    return Exited(seq, Reason.EXITED, 0, None, 1.0, 0.5, 1000)


async def fill(journal: Journal, count: int) -> None:
    """Write a whole run."""
    await journal.append(Started(1, "Python"))
    for seq in range(2, count):
        await journal.append(output(seq))
    await journal.append(exited(count))


async def read(journal: Journal, after: int = 0, *, confirm: bool = True) -> list[Told]:
    found = []
    async with aclosing(journal.read(after)) as events:
        async for event in events:
            found.append(event)
            if confirm:
                journal.confirm(event.seq)
    return found


@pytest.mark.parametrize("seed", range(20))
async def test_a_reader_who_leaves_and_comes_back_at_random_misses_and_repeats_nothing(seed: int) -> None:
    chance = random.Random(seed)
    journal = Journal(waits=True)
    writing = asyncio.create_task(fill(journal, 200))
    seen: list[Told] = []
    while not seen or not isinstance(seen[-1], Exited):
        async with aclosing(journal.read(seen[-1].seq if seen else 0)) as events:
            async for event in events:
                seen.append(event)
                journal.confirm(event.seq - chance.randint(0, 10))
                if chance.random() < 0.1:
                    break
                if chance.random() < 0.2:
                    await asyncio.sleep(0)
    await writing
    assert [event.seq for event in seen] == list(range(1, 201))


async def until_it_waits(journal: Journal, first: int) -> int:
    """Append from `first` on until the journal makes its writer wait; returns the next number."""
    seq = first
    while True:
        try:
            await asyncio.wait_for(journal.append(output(seq)), 0.05)
        except TimeoutError:
            return seq
        seq += 1


async def test_the_writer_waits_for_confirmations_and_no_longer() -> None:
    journal = Journal(waits=True)
    stopped = await until_it_waits(journal, 1)
    assert WINDOW < (stopped - 1) * (PIECE + 64) < WINDOW + 2 * PIECE
    reading = asyncio.create_task(anext(journal.read(0)))
    await reading
    assert await until_it_waits(journal, stopped) == stopped, "being there is not enough"
    journal.confirm(10)
    assert await until_it_waits(journal, stopped) == stopped + 10


async def test_what_is_confirmed_can_be_read_again_as_long_as_there_is_room() -> None:
    journal = Journal(waits=True)
    for seq in range(1, 200):
        await journal.append(output(seq))
        journal.confirm(seq)
    await journal.append(exited(200))
    with pytest.raises(EventsGone):
        await read(journal, 100)
    with pytest.raises(EventsGone):
        await read(journal, 201)
    assert [event.seq for event in await read(journal, 160)] == list(range(161, 201))
    assert sum(event.seq > 0 for event in await read(journal, 199)) == 1


async def test_without_a_reader_head_and_tail_are_kept_and_the_cut_is_said() -> None:
    journal = Journal(waits=False)
    await fill(journal, 1000)
    seen = await read(journal)
    at = next(n for n, event in enumerate(seen) if isinstance(event, Cut))
    cut, head, tail = seen[at], seen[:at], seen[at + 1 :]
    assert isinstance(cut, Cut)
    assert isinstance(seen[-1], Exited)
    assert [event.seq for event in head] == list(range(1, len(head) + 1))
    assert [event.seq for event in tail] == list(range(cut.seq + 1, 1001))
    assert len(head) * PIECE >= WINDOW - PIECE
    assert WINDOW - 2 * PIECE <= (len(tail) - 1) * PIECE <= WINDOW
    assert cut.size == (cut.seq - head[-1].seq) * PIECE
    assert [event.seq for event in await read(journal, cut.seq)] == [event.seq for event in tail]


async def test_what_is_still_on_its_way_when_a_run_is_ended_is_taken_whole() -> None:
    journal = Journal(waits=True)
    writing = asyncio.create_task(fill(journal, 50))
    await asyncio.sleep(0.02)
    assert not writing.done()
    journal.finish()
    await writing
    assert [event.seq for event in await read(journal)] == list(range(1, 51))


async def test_after_a_cut_a_reader_who_is_there_misses_nothing_and_a_second_absence_makes_a_second_cut() -> (
    None
):
    journal = Journal(waits=False)
    for seq in range(1, 200):
        await journal.append(output(seq))
    seen: list[Told] = []
    async with aclosing(journal.read(0)) as events:
        async for event in events:
            seen.append(event)
            journal.confirm(event.seq)
            if event.seq < 500 and event.seq >= 199:
                await journal.append(output(event.seq + 1))
            if event.seq == 500:
                break
    for seq in range(501, 800):
        await journal.append(output(seq))
    await journal.append(exited(800))
    seen += await read(journal, 500)
    cuts = [event for event in seen if isinstance(event, Cut)]
    assert len(cuts) == 2
    told = sum(len(event.data) for event in seen if isinstance(event, Output))
    assert told + sum(cut.size for cut in cuts) == 799 * PIECE
    assert [event.seq for event in seen] == sorted({event.seq for event in seen})


async def test_what_it_holds_is_bounded_whatever_the_reader_does() -> None:
    for waits in (True, False):
        journal = Journal(waits=waits)
        for seq in range(1, 2_000):
            if waits:
                journal.confirm(seq - 5)
            await journal.append(output(seq))
            held = sum(len(e.data) for e in (*journal._head, *journal._tail) if isinstance(e, Output))
            assert held <= KEPT + 2 * PIECE


async def test_a_new_reader_takes_the_place_of_the_old() -> None:
    journal = Journal(waits=True)
    await journal.append(Started(1, "Python"))
    old, new = journal.read(0), journal.read(0)
    await anext(old)
    waiting = asyncio.ensure_future(anext(old))
    await asyncio.sleep(0)
    assert (await anext(new)).seq == 1
    with pytest.raises(ReaderReplaced):
        await waiting
    await journal.append(exited(2))
    assert (await anext(new)).seq == 2
