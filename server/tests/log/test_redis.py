"""The log in Redis: several processes at once, lost connections, a Redis that is killed, streams that are trimmed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from deploy.stores import Redis

from atelier.documents import compact_waiting
from atelier.errors import Unavailable
from atelier.log import Edit, Entry, Log, Segment, Snapshot, open_log

KEY = "ses_a:doc_b"


@pytest.fixture
def url(redis_url: str, postgres_url: str) -> str:
    """The address of an empty log in Redis."""
    return f"{redis_url}?archive={quote(postgres_url)}"


@asynccontextmanager
async def several(url: str, count: int) -> AsyncIterator[list[Log]]:
    """Open the log as so many processes would."""
    if count == 0:
        yield []
        return
    async with open_log(url) as log, several(url, count - 1) as others:
        yield [log, *others]


def edit(text: str) -> Edit:
    return Edit(text.encode(), "usr_a", 1)


async def until(met: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(seconds):
        while not met():  # noqa: ASYNC110 - what is waited for says nothing
            await asyncio.sleep(0.01)


async def test_every_process_hears_the_same_in_the_same_order(url: str) -> None:
    async with several(url, 3) as logs:
        heard: list[list[Entry]] = [[] for _ in logs]
        for log, into in zip(logs, heard, strict=True):
            log.follow(KEY, into.extend)
            await log.read(KEY)
        given = [[edit(f"{n}.{m}") for m in range(200)] for n in range(3)]

        async def write(log: Log, own: Sequence[Edit]) -> None:
            for each in own:
                await log.append(KEY, [each])

        await asyncio.gather(*(write(log, own) for log, own in zip(logs, given, strict=True)))
        await until(lambda: all(len(into) == 600 for into in heard))
        assert heard[0] == heard[1] == heard[2] == list(await logs[0].history(KEY))
        for n, own in enumerate(given):
            mine = [entry.edit for entry in heard[n] if entry.edit.update.startswith(f"{n}.".encode())]
            assert all(one is other for one, other in zip(mine, own, strict=True))


async def test_nothing_is_missed_when_the_connection_is_cut_again_and_again(
    url: str, redis_server: Redis
) -> None:
    async with several(url, 2) as (writer, reader):
        heard: list[Entry] = []
        reader.follow(KEY, heard.extend)
        await reader.read(KEY)
        for n in range(120):
            if n % 30 == 10:
                redis_server.say("CLIENT", "KILL", "TYPE", "pubsub")
            await writer.append(KEY, [edit(str(n))])
        await until(lambda: len(heard) == 120)
        assert [int(entry.edit.update) for entry in heard] == list(range(120))


async def test_nothing_is_missed_when_it_was_trimmed_while_the_connection_was_cut(
    url: str, redis_server: Redis
) -> None:
    async with several(url, 2) as (writer, reader):
        heard: list[Entry] = []
        reader.follow(KEY, heard.extend)
        await writer.append(KEY, [edit("0")])
        await until(lambda: len(heard) == 1)
        redis_server.say("CLIENT", "KILL", "TYPE", "pubsub")
        positions = await writer.append(KEY, [edit(str(n)) for n in range(1, 50)])
        await writer.compact(KEY, Snapshot(positions[-10], b"\x00", (Segment(b"all", b""),)))
        await until(lambda: len(heard) == 50)
        assert [int(entry.edit.update) for entry in heard] == list(range(50))


async def test_a_group_too_large_to_be_told_is_looked_up(url: str) -> None:
    async with several(url, 2) as (writer, reader):
        heard: list[Entry] = []
        own: list[Entry] = []
        reader.follow(KEY, heard.extend)
        writer.follow(KEY, own.extend)
        given = [Edit(bytes(600_000), "usr_a", 1), edit("small")]
        await writer.append(KEY, given)
        await writer.append(KEY, [edit("next")])
        await until(lambda: len(heard) == 3)
        assert [entry.edit.update for entry in heard] == [bytes(600_000), b"small", b"next"]
        assert own[0].edit is given[0]


async def test_a_redis_that_is_killed_and_comes_back_has_all_that_was_acknowledged(
    url: str, redis_server: Redis
) -> None:
    async with several(url, 2) as (writer, reader):
        heard: list[Entry] = []
        reader.follow(KEY, heard.extend)
        await reader.read(KEY)
        acknowledged: list[str] = []
        refused = 0

        async def write() -> None:
            nonlocal refused
            for n in range(400):
                try:
                    await writer.append(KEY, [edit(str(n))])
                    acknowledged.append(str(n))
                except Unavailable as error:
                    assert error.code == "log_unavailable"
                    refused += 1
                    await asyncio.sleep(0.01)

        writing = asyncio.create_task(write())
        await until(lambda: len(acknowledged) > 50)
        redis_server.end()
        await asyncio.sleep(0.2)
        await asyncio.to_thread(redis_server.start)
        await asyncio.wait_for(writing, 60)
        assert refused > 0
        kept = [entry.edit.update.decode() for entry in await reader.history(KEY)]
        assert set(acknowledged) <= set(kept)
        await until(lambda: len(heard) == len(kept))
        assert [entry.edit.update.decode() for entry in heard] == kept


async def test_a_compacted_document_leaves_redis_and_its_positions_go_on(
    url: str, redis_server: Redis
) -> None:
    async with several(url, 2) as (log, other):
        positions = await log.append(KEY, [edit(str(n)) for n in range(10)])
        heard: list[Entry] = []
        other.follow(KEY, heard.extend)
        await other.read(KEY)
        assert await log.compact(KEY, Snapshot(positions[-1], b"\x00", (Segment(b"all", b""),)))
        assert redis_server.say("XLEN", f"atelier:log:stream:{KEY}") == b":0\r\n"
        assert redis_server.say("TTL", f"atelier:log:stream:{KEY}") == b":600\r\n"
        assert redis_server.say("PEXPIRE", f"atelier:log:stream:{KEY}", "1") == b":1\r\n"
        while redis_server.say("EXISTS", f"atelier:log:stream:{KEY}") != b":0\r\n":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        later = await log.append(KEY, [edit("later")])
        assert later[0] > positions[-1]
        await until(lambda: len(heard) == 1)
        assert [e.position for e in await other.history(KEY)] == [*positions, *later]
        assert redis_server.say("TTL", f"atelier:log:stream:{KEY}") == b":-1\r\n"


async def test_two_compactions_at_once_leave_one_whole_document(url: str) -> None:
    async with several(url, 3) as (writer, one, two):
        ended = False

        async def compact(log: Log) -> None:
            while not ended:
                stored = await log.read(KEY)
                if stored.tail:
                    before = [segment.update for segment in stored.snapshot.segments]
                    parts = [*before, *(entry.edit.update for entry in stored.tail)]
                    segments = tuple(Segment(part, b"") for part in parts)
                    await asyncio.sleep(random.random() * 0.005)
                    await log.compact(KEY, Snapshot(stored.position, b"\x00", segments))

        working = [asyncio.create_task(compact(log)) for log in (one, two)]
        for n in range(150):
            await writer.append(KEY, [edit(str(n))])
        ended = True
        await asyncio.gather(*working)
        stored = await writer.read(KEY)
        parts = [segment.update for segment in stored.snapshot.segments]
        parts += [entry.edit.update for entry in stored.tail]
        assert [int(part) for part in parts] == list(range(150))
        assert [int(e.edit.update) for e in await one.history(KEY)] == list(range(150))


async def test_many_documents_are_followed_over_one_connection(url: str) -> None:
    async with several(url, 2) as (writer, reader):
        heard: dict[int, list[bytes]] = {n: [] for n in range(700)}

        def listener(into: list[bytes]) -> Callable[[Sequence[Entry]], None]:
            return lambda entries: into.extend(entry.edit.update for entry in entries)

        for n, into in heard.items():
            reader.follow(f"d{n}", listener(into))
        await asyncio.gather(*(reader.read(f"d{n}") for n in range(0, 700, 50)))
        await asyncio.gather(*(writer.append(f"d{n}", [edit("x"), edit("y")]) for n in heard))
        await until(lambda: all(into == [b"x", b"y"] for into in heard.values()))


async def test_a_redis_that_could_lose_edits_is_refused(postgres_url: str, tmp_path: Path) -> None:
    server = Redis(tmp_path)
    server.start()
    try:
        server.say("CONFIG", "SET", "appendfsync", "everysec")
        with pytest.raises(RuntimeError, match="appendfsync always, not everysec"):
            async with open_log(f"{server.url}?archive={quote(postgres_url)}"):
                pass
    finally:
        server.end()


async def test_a_log_in_redis_without_an_archive_is_refused(redis_url: str) -> None:
    with pytest.raises(ValueError, match="archive=postgresql"):
        async with open_log(redis_url):
            pass


async def test_a_second_server_on_one_postgresql_is_refused(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atelier.log.postgres._LOCK_SECONDS", 0.2)
    async with open_log(postgres_url):
        with pytest.raises(RuntimeError, match="several servers"):
            async with open_log(postgres_url):
                pass


async def test_one_process_at_a_time_compacts_a_document_and_what_waits_long_is_due(url: str) -> None:
    async with several(url, 2) as (one, two):
        positions = await one.append(KEY, [edit("a")])
        assert await two.due(60) == []
        assert await two.due(-1) == [KEY]
        async with one.claim(KEY) as mine:
            assert mine
            async with two.claim(KEY) as theirs:
                assert not theirs
            async with two.claim("ses_a:other") as other:
                assert other
        async with two.claim(KEY) as mine:
            assert mine
        await one.compact(KEY, Snapshot(positions[-1], b"\x00", ()))
        assert await two.due(-1) == []
        await two.put_off(KEY)
        assert await two.due(-1) == []


async def test_what_was_killed_between_commit_and_trim_is_let_go_by_the_next(
    url: str, redis_server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def killed(*_: object) -> None:
        raise ConnectionError("killed")

    async with several(url, 2) as (one, two):
        positions = await one.append(KEY, [edit("a"), edit("b")])
        with monkeypatch.context() as patch:
            patch.setattr(one, "_trim", killed)
            with pytest.raises(ConnectionError):
                await one.compact(KEY, Snapshot(positions[-1], b"\x00", ()))
        assert redis_server.say("XLEN", f"atelier:log:stream:{KEY}") == b":2\r\n"
        assert await compact_waiting(two, most_bytes=10**6, age=-1) == 0
        assert redis_server.say("XLEN", f"atelier:log:stream:{KEY}") == b":0\r\n"
        assert await two.due(-1) == []
        assert [entry.position for entry in await two.history(KEY)] == positions
