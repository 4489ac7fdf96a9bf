"""A damaged document is alone in its trouble; a server that ends lets everybody go in order; one that is late says so."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from atelier.documents import sized
from atelier.hub.pulse import Pulse

from .clients import World, world
from .test_sockets import EMPTY_STEP1, closed_with, heard, update_of, y_socket

pytestmark = [pytest.mark.node]


@pytest_asyncio.fixture
async def place(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def test_a_damaged_document_is_put_in_quarantine_alone(place: World) -> None:
    damaged, well = await place.put("Ada", "damaged.txt", "lost?"), await place.put("Ada", "well.txt", "fine")
    with sqlite3.connect(place.server.data / "log.db") as db:
        db.execute(
            "update documents set state = x'07ff', position = 1 where name = ?",
            (f"{place.session}:{damaged}",),
        )
    db.close()
    address = f"{place.server.url.replace('http', 'ws')}/api/v1/sessions/{place.session}/sync?token={place.tokens['Ada']}"
    async with connect(address) as both:
        for _ in range(2):  # when it is found, and while it lasts
            await both.send(sized(damaged.encode()) + EMPTY_STEP1)
            while not (said := await heard(both)).startswith(sized(damaged.encode()) + b"\x02\x01"):
                pass
            assert b"document_quarantined" in said
        await both.send(sized(well.encode()) + EMPTY_STEP1)
        while b"fine" not in await heard(both):
            pass
    async with y_socket(place, damaged) as alone:
        assert await closed_with(alone) == 4503
    async with y_socket(place, well) as other:
        await other.send(EMPTY_STEP1)
        while b"fine" not in await heard(other):
            pass
    deadline = time.monotonic() + 10
    while "atelier_hub_quarantined 1.0" not in (await place.http.get(f"{place.server.url}/metrics")).text:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


async def test_a_server_that_is_told_to_end_lets_its_sockets_go_in_order_and_keeps_what_was_acknowledged(
    place: World,
) -> None:
    document = await place.put("Ada", "a.txt", "")
    sockets = [await y_socket(place, document) for _ in range(200)]
    for socket in sockets:  # all are really in
        await socket.send(EMPTY_STEP1)
    for socket in sockets[1:]:
        while (await heard(socket))[:2] != b"\x00\x01":
            pass
    while (await heard(sockets[0]))[:2] != b"\x00\x01":
        pass
    update = update_of("kept")
    await sockets[0].send(b"\x00\x02" + sized(update))
    assert await heard(sockets[0]) == b"\x00\x02" + sized(update)
    closed: list[float] = []

    async def wait(number: int) -> None:
        code = await closed_with(sockets[number])
        assert code == 1012, (number, sockets[number].close_reason)
        closed.append(time.monotonic())

    waiting = asyncio.gather(*(wait(number) for number in range(len(sockets))))
    await asyncio.sleep(0.1)
    began = time.monotonic()
    await place.server.end(signal.SIGTERM)
    assert time.monotonic() - began < 10
    await waiting
    # 500 a second: not all of them come back in the same moment.
    assert max(closed) - min(closed) > 0.25
    await place.server.start()
    assert await place.text("Ada", "a.txt") == "kept"


async def test_one_slow_turn_is_no_reason_to_turn_anybody_away_and_several_are() -> None:
    pulse = Pulse()
    beating = asyncio.create_task(pulse.beat())
    await asyncio.sleep(0.05)
    time.sleep(0.2)  # noqa: ASYNC251
    await asyncio.sleep(0.01)
    assert pulse.worst() > 0.1
    assert not pulse.late()
    for _ in range(6):
        time.sleep(0.1)  # noqa: ASYNC251
        await asyncio.sleep(0)
    assert pulse.late()
    beating.cancel()
