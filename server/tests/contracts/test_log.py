"""One suite over every log: order, positions, followers, compaction, kills, full disks, locks."""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from urllib.parse import quote

import pytest
import pytest_asyncio

from atelier.errors import Unavailable
from atelier.log import NOTHING, Edit, Entry, Kept, Log, Segment, Snapshot, Stored, open_log
from atelier.log.packs import PACKED

KEY = "ses_a:doc_b"


@pytest.fixture(params=["sqlite", "postgresql", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty log of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/log.db"
    postgres = str(request.getfixturevalue("postgres_url"))
    if request.param == "postgresql":
        return postgres
    return f"{request.getfixturevalue('redis_url')}?archive={quote(postgres)}"


@pytest_asyncio.fixture
async def log(url: str) -> AsyncIterator[Log]:
    """An open log of each kind."""
    async with open_log(url) as opened:
        yield opened


def snapshot(position: int, *parts: bytes) -> Snapshot:
    """A snapshot whose parts are any bytes: a log does not decode them."""
    return Snapshot(position, b"\x00", tuple(Segment(part, b"ends") for part in parts))


def edits(*texts: str) -> list[Edit]:
    return [Edit(text.encode(), "usr_a", n) for n, text in enumerate(texts)]


async def test_what_is_appended_is_read_in_order_with_author_and_time(log: Log) -> None:
    first = await log.append(KEY, edits("a", "b"))
    second = await log.append(KEY, edits("c"))
    await log.append("ses_a:other", edits("x"))
    stored = await log.read(KEY)
    assert [entry.position for entry in stored.tail] == [*first, *second]
    assert [entry.edit for entry in stored.tail] == [*edits("a", "b"), *edits("c")]
    assert stored.snapshot == NOTHING
    assert stored.position == second[-1]
    assert first[0] >= 1
    assert sorted({*first, *second}) == [*first, *second]


async def test_history_after_a_position_is_the_rest_and_no_more_than_asked_for(log: Log) -> None:
    positions = await log.append(KEY, edits("a", "b", "c"))
    assert [e.edit.update for e in await log.history(KEY, positions[0])] == [b"b", b"c"]
    assert [e.edit.update for e in await log.history(KEY, limit=2)] == [b"a", b"b"]
    assert await log.history(KEY, positions[-1]) == ()
    assert await log.history("ses_a:nobody") == ()
    assert (await log.read("ses_a:nobody")).tail == ()


async def test_an_edit_handed_over_is_settled_once_after_everybody_has_heard(log: Log) -> None:
    said: list[object] = []
    log.follow(KEY, said.extend)
    given = edits("a", "b")
    done = asyncio.Event()

    def settled(edits: Sequence[Edit], error: Unavailable | None) -> None:
        said.extend((edit, error) for edit in edits)
        if edits[-1] is given[1]:
            done.set()

    for edit in given:
        log.submit(KEY, edit, settled)
    await asyncio.wait_for(done.wait(), 5)
    kept = (await log.read(KEY)).tail
    assert said == [*kept, *((edit, None) for edit in given)]
    await log.sync(KEY, kept[-1].position)
    assert len(said) == 4


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
    made = snapshot(positions[1], b"one", b"two")
    for new in (True, False):
        assert await log.compact(KEY, made) == new
        stored = await log.read(KEY)
        assert stored.snapshot == made
        assert [entry.edit.update for entry in stored.tail] == [b"c"]
    assert not await log.compact(KEY, snapshot(positions[0], b"older"))
    assert (await log.read(KEY)).snapshot == made
    later = await log.append(KEY, edits("d"))
    assert later[0] > positions[-1]
    assert await log.compact(KEY, snapshot(later[0], b"all"))
    assert (await log.read(KEY)).snapshot == snapshot(later[0], b"all")


async def test_every_edit_stays_when_it_is_covered_also_thousands(log: Log) -> None:
    given = [
        Edit(f"{n}é".encode(), f"usr_{n % 3}", 1_700_000_000_000 + n * n) for n in range(2 * PACKED + 100)
    ]
    positions = await log.append(KEY, given)
    await log.append("ses_a:other", edits("x"))
    await log.compact(KEY, snapshot(positions[-50], b"all"))
    assert [e.edit for e in await log.history(KEY, limit=10_000)] == given
    assert [e.position for e in await log.history(KEY, limit=10_000)] == positions
    for after in (0, 1, PACKED - 1, PACKED, PACKED + 1, 2 * PACKED, 2 * PACKED + 60):
        found = await log.history(KEY, positions[after], limit=200)
        assert [e.edit for e in found] == given[after + 1 : after + 201]
    assert [e.edit for e in (await log.read(KEY)).tail] == given[-49:]


async def test_a_document_is_read_as_it_was_from_the_nearest_snapshot_that_was_kept(log: Log) -> None:
    positions = await log.append(KEY, edits(*(str(n) for n in range(10))))
    kept = snapshot(positions[3], b"0123", b"more")
    await log.compact(KEY, snapshot(positions[3], b"less"), keep=kept)
    assert (await log.read(KEY)).snapshot == snapshot(positions[3], b"less")
    await log.compact(KEY, snapshot(positions[6], b"0123456"))
    then = await log.read_at(KEY, positions[5])
    assert then.snapshot == kept
    assert [entry.edit.update for entry in then.tail] == [b"4", b"5"]
    before = await log.read_at(KEY, positions[1])
    assert before.snapshot == NOTHING
    assert [entry.position for entry in before.tail] == positions[:2]


async def test_what_is_forgotten_is_gone_and_its_name_may_be_used_again(log: Log) -> None:
    positions = await log.append(KEY, edits("a", "b"))
    await log.append("ses_a:other", edits("x"))
    await log.compact(KEY, snapshot(positions[-1], b"ab"), keep=snapshot(positions[-1], b"ab"))
    await log.forget(KEY)
    assert (await log.read(KEY)).snapshot == NOTHING
    assert await log.history(KEY) == ()
    assert (await log.read_at(KEY, positions[-1])).tail == ()
    again = await log.append(KEY, edits("c"))
    assert again[0] > positions[-1]
    assert [e.edit.update for e in (await log.read(KEY)).tail] == [b"c"]
    assert len(await log.history("ses_a:other")) == 1


async def test_a_snapshot_of_what_was_forgotten_meanwhile_is_not_taken(log: Log) -> None:
    positions = await log.append(KEY, edits("a", "b"))
    await log.forget(KEY)
    made = snapshot(positions[-1], b"ab")
    assert not await log.compact(KEY, made, keep=made)
    assert (await log.read(KEY)) == Stored(NOTHING, ())
    await log.append(KEY, edits("c"))
    assert not await log.compact(KEY, snapshot(positions[-1], b"ab"))
    assert [e.edit.update for e in await log.history(KEY)] == [b"c"]


async def test_the_survey_says_what_is_kept(log: Log) -> None:
    positions = await log.append(KEY, edits("a", "b", "c"))
    await log.compact(KEY, snapshot(positions[1], b"ab"))
    await log.append("ses_b:doc", edits("x"))
    (found,) = await log.survey("ses_a:")
    assert (found.document, found.edits, found.snapshot_position) == (KEY, 3, positions[1])
    assert found.position == positions[2]
    assert found.bytes >= 3
    assert [kept.document for kept in await log.survey()] == [KEY, "ses_b:doc"]
    assert isinstance(found, Kept)


async def test_positions_are_never_used_again_also_after_reopening(url: str) -> None:
    async with open_log(url) as log:
        positions = await log.append(KEY, edits("a", "b"))
        await log.compact(KEY, snapshot(positions[-1], b"all"))
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


async def test_an_append_ends_whoever_comes_and_goes_meanwhile(log: Log) -> None:
    for n in range(100):
        end = log.follow(KEY, lambda _: None)
        appending = asyncio.create_task(log.append(KEY, edits(str(n))))
        await asyncio.sleep(0.0002 * (n % 20))
        end()
        end = log.follow(KEY, lambda _: None)
        async with asyncio.timeout(10):
            await appending
        end()


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
                parts = [entry.edit.update for entry in stored.tail]
                before = [segment.update for segment in stored.snapshot.segments]
                await log.compact(KEY, snapshot(stored.position, *before, *parts))
        return 0

    await asyncio.wait_for(asyncio.gather(write(), compact()), 30)
    stored = await log.read(KEY)
    kept = [segment.update for segment in stored.snapshot.segments]
    kept += [entry.edit.update for entry in stored.tail]
    assert kept == [str(n).encode() for n in range(100)]


async def test_a_file_gives_back_what_packing_has_freed(tmp_path: Path) -> None:
    async with open_log(f"sqlite:///{tmp_path}/log.db") as log:
        for _ in range(20):
            positions = await log.append(KEY, [Edit(bytes(1_000), "usr_a", 1)] * 1_000)
        await log.compact(KEY, snapshot(positions[-1], b"all"))
        assert len(await log.history(KEY, limit=100_000)) == 20_000
    assert (tmp_path / "log.db").stat().st_size < 8_000_000


FIRST_SCHEMA = """
create table entries (position integer primary key autoincrement, document text not null, data blob not null,
  author text not null, at integer not null);
create index entries_document on entries (document, position);
create table history (position integer primary key, document text not null, data blob not null, author text not null,
  at integer not null);
create index history_document on history (document, position);
create table snapshots (document text primary key, position integer not null, data blob not null) without rowid;
insert into entries (position, document, data, author, at) values (3, 'ses_a:doc_b', x'63', 'usr_a', 3);
insert into history values (1, 'ses_a:doc_b', x'61', 'usr_a', 1), (2, 'ses_a:doc_b', x'62', 'usr_b', 2);
insert into snapshots values ('ses_a:doc_b', 2, x'6162');
pragma user_version = 1;
"""


async def test_a_file_of_the_first_schema_is_taken_over_whole(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "log.db")
    database.executescript(FIRST_SCHEMA)
    database.close()
    for _ in range(2):
        async with open_log(f"sqlite:///{tmp_path}/log.db") as log:
            stored = await log.read(KEY)
            assert stored.snapshot == Snapshot(2, b"", (Segment(b"ab", b""),))
            assert [entry.position for entry in stored.tail] == [3]
            assert [(e.position, e.edit.author) for e in await log.history(KEY)] == [
                (1, "usr_a"),
                (2, "usr_b"),
                (3, "usr_a"),
            ]
    async with open_log(f"sqlite:///{tmp_path}/log.db") as log:
        assert (await log.append(KEY, edits("d")))[0] > 3


async def test_a_file_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "log.db")
    database.execute("pragma user_version = 99")
    database.close()
    with pytest.raises(RuntimeError, match="newer Atelier"):
        async with open_log(f"sqlite:///{tmp_path}/log.db"):
            pass


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
            await log.compact(KEY, snapshot(stored.position))


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
    with pytest.raises(ValueError, match="sqlite://, postgresql:// or redis://"):
        async with open_log("mysql://x/y"):
            pass


@pytest.mark.parametrize("upto", [1, 3, PACKED + 5, 2 * PACKED, 2 * PACKED + 9, 2 * PACKED + 20])
async def test_one_entry_takes_the_place_of_all_up_to_it(log: Log, upto: int) -> None:
    texts = [f"{n}" for n in range(2 * PACKED + 20)]
    positions = await log.append(KEY, edits(*texts))
    await log.append("ses_a:other", edits("other"))
    whole = snapshot(positions[-1], b"whole")
    await log.compact(KEY, whole, keep=whole)
    live = await log.append(KEY, edits("later"))
    at = positions[upto - 1]
    first = Entry(at, Edit(b"all before", "", 7))
    again = snapshot(positions[-1], b"new", b"parts")
    assert await log.condense(KEY, first, again)
    past = await log.history(KEY, limit=10_000)
    assert past[0] == first
    assert [entry.edit.update.decode() for entry in past[1:]] == [*texts[upto:], "later"]
    assert [entry.position for entry in past] == [*positions[upto - 1 :], *live]
    assert await log.history(KEY, at, limit=2) == past[1:3]
    assert (await log.read(KEY)).snapshot == again
    assert (await log.read_at(KEY, live[-1])).snapshot == NOTHING
    assert (await log.read_at(KEY, at)).tail == (first,)
    # Once more over it, up to the newest that has been compacted.
    last = Entry(positions[-1], Edit(b"all", "", 8))
    assert await log.condense(KEY, last, again)
    assert [entry.edit.update for entry in await log.history(KEY)] == [b"all", b"later"]
    assert not await log.condense("ses_a:nobody", first, again)
    assert [entry.edit.update for entry in await log.history("ses_a:other")] == [b"other"]
    await log.append(KEY, edits("and on"))
    assert (await log.read(KEY)).tail[-1].edit.update == b"and on"


async def test_a_snapshot_from_before_a_condensation_is_not_taken(log: Log) -> None:
    positions = await log.append(KEY, edits("a", "b", "c"))
    await log.compact(KEY, snapshot(positions[2], b"abc"))
    await log.condense(KEY, Entry(positions[2], Edit(b"abc", "", 7)), snapshot(positions[2], b"abc"))
    assert not await log.compact(KEY, snapshot(positions[1], b"ab"))
    assert (await log.read(KEY)).snapshot == snapshot(positions[2], b"abc")


async def test_a_person_s_name_is_taken_off_every_edit(log: Log) -> None:
    both = [Edit(str(n).encode(), f"usr_{'ab'[n % 2]}", n) for n in range(PACKED + 10)]
    positions = await log.append(KEY, both)
    await log.compact(KEY, snapshot(positions[-1], b"all"))
    assert await log.disown("usr_a") == len(both) // 2
    past = await log.history(KEY, limit=10_000)
    assert [entry.edit.author for entry in past] == ["" if n % 2 == 0 else "usr_b" for n in range(len(both))]
    assert [entry.edit.update for entry in past] == [e.update for e in both]
    assert await log.disown("usr_a") == 0
