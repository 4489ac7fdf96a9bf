"""One suite over every log: order, positions, followers, compaction, kills, full disks, locks."""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from atelier.errors import Unavailable
from atelier.log import Edit, Entry, Log, open_log

KEY = "ses_a:doc_b"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty log of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/log.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest_asyncio.fixture
async def log(url: str) -> AsyncIterator[Log]:
    """An open log of each kind."""
    async with open_log(url) as opened:
        yield opened


def edits(*texts: str) -> list[Edit]:
    return [Edit(text.encode(), "usr_a", n) for n, text in enumerate(texts)]


async def test_what_is_appended_is_read_in_order_with_author_and_time(log: Log) -> None:
    first = await log.append(KEY, edits("a", "b"))
    second = await log.append(KEY, edits("c"))
    await log.append("ses_a:other", edits("x"))
    stored = await log.read(KEY)
    assert [entry.position for entry in stored.tail] == [*first, *second]
    assert [entry.edit for entry in stored.tail] == [*edits("a", "b"), *edits("c")]
    assert (stored.snapshot, stored.snapshot_position) == (None, 0)
    assert first[0] >= 1
    assert sorted({*first, *second}) == [*first, *second]


async def test_reading_after_a_position_gives_the_rest(log: Log) -> None:
    positions = await log.append(KEY, edits("a", "b", "c"))
    assert [e.edit.update for e in (await log.read(KEY, positions[0])).tail] == [b"b", b"c"]
    assert (await log.read(KEY, positions[-1])).tail == ()
    assert (await log.read("ses_a:nobody")).tail == ()


async def test_concurrent_appends_are_all_there_once_and_followers_hear_them_in_order(log: Log) -> None:
    heard: list[Entry] = []
    end = log.follow(KEY, heard.extend)
    positions = await asyncio.gather(*(log.append(KEY, edits(f"{n}a", f"{n}b")) for n in range(50)))
    stored = await log.read(KEY)
    assert list(stored.tail) == heard
    assert sorted(p for own in positions for p in own) == [e.position for e in heard]
    assert all(own[0] < own[1] for own in positions)
    end()
    end()
    await log.append(KEY, edits("later"))
    assert len(heard) == 100


async def test_a_listener_that_fails_keeps_nobody_from_hearing(log: Log) -> None:
    heard: list[Entry] = []

    def fail(_entries: object) -> None:
        raise ZeroDivisionError

    log.follow(KEY, fail)
    log.follow(KEY, heard.extend)
    await log.append(KEY, edits("a"))
    assert len(heard) == 1


async def test_compaction_replaces_what_it_covers_once(log: Log) -> None:
    positions = await log.append(KEY, edits("a", "b", "c"))
    for _ in range(2):
        await log.compact(KEY, positions[1], b"snapshot")
        stored = await log.read(KEY)
        assert (stored.snapshot, stored.snapshot_position) == (b"snapshot", positions[1])
        assert [entry.edit.update for entry in stored.tail] == [b"c"]
    await log.compact(KEY, positions[0], b"older")
    assert (await log.read(KEY)).snapshot == b"snapshot"
    assert (await log.read(KEY, positions[1])).snapshot is None
    later = await log.append(KEY, edits("d"))
    assert later[0] > positions[-1]


async def test_positions_are_never_used_again_also_after_reopening(url: str) -> None:
    async with open_log(url) as log:
        positions = await log.append(KEY, edits("a", "b"))
        await log.compact(KEY, positions[-1], b"all")
    async with open_log(url) as log:
        assert (await log.append(KEY, edits("c")))[0] > positions[-1]
        await asyncio.wait_for(log.sync(KEY, positions[-1]), 5)


async def test_sync_is_shared_and_ends(log: Log) -> None:
    positions = [(await log.append(KEY, edits(str(n))))[-1] for n in range(20)]
    await asyncio.wait_for(asyncio.gather(*(log.sync(KEY, p) for p in positions)), 10)


async def test_followers_are_given_the_very_edit_and_only_once_it_can_be_read(log: Log) -> None:
    edit = edits("a")[0]
    heard: list[Entry] = []
    log.follow(KEY, heard.extend)
    log.follow("ses_a:other", heard.extend)
    appending = asyncio.create_task(log.append(KEY, [edit]))
    while not heard:
        await asyncio.wait([appending], timeout=0.01)
    assert heard[0].edit is edit
    assert [entry.edit for entry in (await log.read(KEY)).tail] == [edit]
    await appending
    assert len(heard) == 1


async def test_an_append_that_nobody_waits_for_any_more_is_kept_and_told(log: Log) -> None:
    heard: list[Entry] = []
    log.follow(KEY, heard.extend)
    appending = asyncio.create_task(log.append(KEY, edits("a")))
    await asyncio.wait([appending], timeout=0)
    appending.cancel()
    await log.append(KEY, edits("b"))
    assert [entry.edit.update for entry in heard] in ([b"a", b"b"], [b"b"])
    assert list((await log.read(KEY)).tail) == heard


async def test_nothing_appended_is_nothing(log: Log) -> None:
    assert await log.append(KEY, []) == []
    assert (await log.read(KEY)).tail == ()


async def test_bytes_of_any_kind_and_size_come_back_as_they_were(log: Log) -> None:
    given = [Edit(update, "usr_😀", 2**41) for update in (b"", bytes(range(256)), bytes(3_000_000))]
    await log.append(KEY, given)
    assert [entry.edit for entry in (await log.read(KEY)).tail] == given


async def test_compaction_beside_appends_loses_nothing(log: Log) -> None:
    heard: list[Entry] = []
    log.follow(KEY, heard.extend)

    async def write() -> None:
        for n in range(100):
            await log.append(KEY, edits(str(n)))

    async def compact() -> int:
        while len(heard) < 100:
            stored = await log.read(KEY)
            if stored.tail:
                before = [] if stored.snapshot is None else stored.snapshot.split()
                parts = [*before, *(entry.edit.update for entry in stored.tail)]
                await log.compact(KEY, stored.tail[-1].position, b" ".join(parts))
        return 0

    await asyncio.wait_for(asyncio.gather(write(), compact()), 30)
    stored = await log.read(KEY)
    kept = [*(stored.snapshot or b"").split(), *(entry.edit.update for entry in stored.tail)]
    assert kept == [str(n).encode() for n in range(100)]


async def test_who_wrote_what_is_kept_when_it_is_compacted(url: str) -> None:
    async with open_log(url) as log:
        positions = await log.append(KEY, edits("a", "b"))
        await log.compact(KEY, positions[-1], b"all")
    query = "select position, data, author, at from log_history order by position"
    if url.startswith("sqlite"):
        database = sqlite3.connect(url.removeprefix("sqlite:///"))
        rows = database.execute(query.replace("log_history", "history")).fetchall()
        database.close()
    else:
        connection = await asyncpg.connect(url)
        rows = [tuple(row) for row in await connection.fetch(query)]
        await connection.close()
    assert rows == [(positions[0], b"a", "usr_a", 0), (positions[1], b"b", "usr_a", 1)]


CHILD = """
import asyncio, sys
from atelier.log import Edit, open_log
async def main():
    async with open_log(sys.argv[1]) as log:
        for n in range(100_000):
            positions = await log.append("ses_a:doc_b", [Edit(str(n).encode(), "usr_a", n)])
            if n % 3 == 0:
                await log.sync("ses_a:doc_b", positions[-1])
            print(n, flush=True)
asyncio.run(main())
"""


async def test_what_an_append_returned_for_survives_a_kill(url: str) -> None:
    async with open_log(url):
        pass
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", CHILD, url], stdout=subprocess.PIPE)
        assert child.stdout is not None
        said = [int(await asyncio.to_thread(child.stdout.readline)) for _ in range(200)]
        child.send_signal(signal.SIGKILL)
        said += [int(line) for line in child.stdout.read().split(b"\n")[:-1]]
        child.stdout.close()
        child.wait()
        async with open_log(url) as log:
            stored = await log.read(KEY)
            kept = [int(entry.edit.update) for entry in stored.tail]
            assert kept[: len(said)] == said
            await log.compact(KEY, stored.tail[-1].position, b"")


FULL = """
import asyncio, resource, signal, sys
from atelier.errors import Unavailable
from atelier.log import Edit, open_log
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
async def main():
    async with open_log(sys.argv[1]) as log:
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
        kept = 0
        try:
            while kept < 1000:
                await log.append("ses_a:doc_b", [Edit(bytes(10_000), "usr_a", kept)])
                kept += 1
        except Unavailable as error:
            print(kept, error.code)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await log.append("ses_a:doc_b", [Edit(b"after", "usr_a", 1)])
        stored = await log.read("ses_a:doc_b")
        print(len(stored.tail), stored.tail[-1].edit.update.decode())
asyncio.run(main())
"""


async def test_a_full_disk_refuses_and_takes_again_when_there_is_room(tmp_path: Path) -> None:
    assert resource.RLIM_INFINITY == -1
    command = [sys.executable, "-c", FULL, f"sqlite:///{tmp_path}/log.db"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    refused, after = done.stdout.splitlines()[-2:]
    kept, code = refused.split()
    assert code == "log_unavailable"
    assert 0 < int(kept) < 1000
    assert after == f"{int(kept) + 1} after"


async def test_a_locked_database_refuses_by_name(tmp_path: Path) -> None:
    async with open_log(f"sqlite:///{tmp_path}/log.db") as log:
        intruder = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
        intruder.execute("begin immediate")
        with pytest.raises(Unavailable) as refused:
            await log.append(KEY, edits("a"))
        assert refused.value.code == "log_unavailable"
        intruder.execute("rollback")
        intruder.close()
        await log.append(KEY, edits("b"))
        assert [e.edit.update for e in (await log.read(KEY)).tail] == [b"b"]


async def test_two_servers_on_one_file_refuse(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    async with open_log(url):
        with pytest.raises(RuntimeError, match="already open"):
            async with open_log(url):
                pass


async def test_another_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="sqlite:// or postgresql://"):
        async with open_log("mysql://x/y"):
            pass
