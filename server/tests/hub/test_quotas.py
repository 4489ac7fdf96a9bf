"""What many send together: read slower, never lost, and nobody else waits."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx2
import pytest
from bench.writer import Writer
from hypothesis import given
from hypothesis import strategies as st

from atelier.auth import Caller, Role
from atelier.documents import compact_if_long
from atelier.errors import TooLarge
from atelier.hub.client import Client, Outbox
from atelier.hub.quotas import Quota, Quotas, Share
from atelier.limits import Limits
from atelier.log import Edit, open_log

from .clients import LiveServer, World, node

CALLER = Caller("usr_a", "Ada", "guest", is_admin=False)


class Line:
    """A connection that notes whether it is read from."""

    def __init__(self) -> None:
        self.held = False

    def hold(self, held: bool) -> None:
        self.held = held

    def waiting(self) -> int:
        return 0

    def write(self, frames: list[bytes]) -> None: ...

    def close(self, code: int, reason: str) -> None: ...

    def abort(self) -> None: ...


def client_of(limits: Limits, caller: Caller = CALLER) -> tuple[Client, Line]:
    line = Line()
    return Client(line, caller, Role.OWNER, limits, Outbox()), line


@given(st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 10**6), st.floats(0.5, 4)), max_size=60))
def test_nobody_is_held_for_longer_than_a_window_after_the_last_message(
    sent: list[tuple[int, int, float]],
) -> None:
    client, _ = client_of(Limits())
    share = Share(Quota(100, 10_000))
    for messages, size, seconds in sent:
        share.settle([(client, messages, size)], seconds)
        assert share.messages <= 1_000
        assert share.bytes <= 100_000
        assert bool(share.held) == (share.messages < 0 or share.bytes < 0)
    for _ in range(10):
        share.settle([], 2.0)
    assert share.whole
    assert not share.held


def test_connections_of_one_person_share_and_another_person_s_do_not_wait() -> None:
    limits = Limits(person_messages_per_second=10)
    quotas = Quotas(limits)
    (one, _), (two, _) = client_of(limits), client_of(limits)
    other, _ = client_of(limits, Caller("usr_b", "Bob", "guest", is_admin=False))
    quotas.count(one, "ses_a", 90, 900)
    quotas.count(two, "ses_b", 50, 500)
    quotas.count(other, "ses_a", 90, 900)
    assert quotas.settle(2.0) == {one, two}
    assert quotas.settle(2.0) == {one, two}
    assert quotas.settle(2.0) == set()


def test_who_has_much_that_is_not_acknowledged_is_not_read_on() -> None:
    client, line = client_of(Limits(pending_bytes_per_socket=1_000))
    client.owe(900)
    assert not line.held
    client.owe(200)
    assert line.held
    client.throttle(True)
    client.owe(-200)
    assert line.held  # for the other reason
    client.throttle(False)
    assert not line.held


async def test_a_document_in_which_too_many_have_written_is_full(tmp_path: Path) -> None:
    async with open_log(f"sqlite:///{tmp_path}/log.db") as log:
        writers = [Writer() for _ in range(4)]
        for writer in writers:
            writer.text += "x"
        await log.append("ses_a:doc_a", [Edit(writer.take(), "usr_a", 1) for writer in writers])
        with pytest.raises(TooLarge, match="4 client ids"):
            await compact_if_long(log, "ses_a:doc_a", most_bytes=10**6, most_clients=3, always=True)
        assert len((await log.read("ses_a:doc_a")).snapshot.segments) == 1


@pytest.mark.node
async def test_a_flood_over_many_connections_is_read_slower_and_all_of_it_arrives(tmp_path: Path) -> None:
    server = LiveServer(
        tmp_path, limit_document_messages_per_second="20", limit_person_messages_per_second="100"
    )
    await server.start()
    try:
        async with node() as running, httpx2.AsyncClient(timeout=20) as http:
            place = World(server, running, http)
            await place.guest("Ada")
            await place.guest("Bob", "edit")
            flooded, quiet = await place.put("Ada", "a.txt", ""), await place.put("Ada", "b.txt", "")
            writers = [await place.open("Ada", "y-websocket", flooded, name=f"ada{n}") for n in range(3)]
            other = await place.open("Bob", "hocuspocus", quiet)
            held = 0.0
            typing = [asyncio.create_task(writer.do("type", letters=250, pause=1)) for writer in writers]
            until = time.monotonic() + 20
            while held < 3:
                assert time.monotonic() < until, held
                began = time.monotonic()
                await other.do("insert", at=0, text="b")
                await other.until(lambda s: not s["unsynced"])
                assert time.monotonic() - began < 1
                metrics = (await http.get(f"{server.url}/metrics")).text
                held = max(held, float(metrics.split("\natelier_hub_throttled ")[1].split()[0]))
            await asyncio.gather(*typing)
            for writer in writers:
                await writer.until(lambda s: len(s["text"]) == 750 and not s["unsynced"], seconds=40)
            assert len(await place.text("Bob", "a.txt")) == 750
    finally:
        await server.end()
