"""Differential histories: real Yjs makes them, our folding, splitting and compaction take them, real Yjs judges.

Several people write with all of Unicode; updates arrive in any order, some twice, some only at the end, so that others
have to wait for them. A history is its number: `ATELIER_SEED=n` replays one, `--histories N` runs so many.
"""

from __future__ import annotations

import base64
import os
import random
import time
from typing import Any

import pytest

from atelier.documents import EMPTY_UPDATE, fold, squashed, state_of
from atelier.documents.compact import compacted
from atelier.documents.split import split
from atelier.hub.shelf import Shelf
from atelier.log import NOTHING, Edit, Entry, Stored

from ..hub.clients import Node, node

pytestmark = [pytest.mark.node, pytest.mark.timeout(0)]
BATCH = 50


def entries(updates: list[bytes], first: int = 1) -> tuple[Entry, ...]:
    return tuple(Entry(first + n, Edit(update, "usr_a", n)) for n, update in enumerate(updates))


def encoded(updates: list[bytes]) -> list[str]:
    return [base64.b64encode(update).decode() for update in updates]


def ways(updates: list[bytes], seed: int) -> dict[str, list[bytes]]:
    """Return what a client is sent, by the way that it has taken through the server."""
    draw = random.Random(seed)
    cut = draw.randint(0, len(updates))
    folded = fold(updates)
    once = compacted(Stored(NOTHING, entries(updates)))
    first = compacted(Stored(NOTHING, entries(updates[:cut])))
    twice = compacted(Stored(first, entries(updates[cut:], cut + 1)))
    shelf = Shelf(Stored(first, entries(updates[cut:], cut + 1)))
    known = fold(updates[: draw.randint(0, len(updates))])
    state = state_of(known) if known != EMPTY_UPDATE else b"\x00"
    return {
        "folded": [folded],
        "squashed": [squashed(folded)],
        "parts": [segment.update for segment in split(folded, most=draw.choice((60, 200, 1000)))],
        "compacted": [segment.update for segment in once.segments],
        "compacted twice": [segment.update for segment in twice.segments],
        "sent to a newcomer": list(shelf.updates_for(b"\x00")),
        "sent to one who returns": [known, *shelf.updates_for(state)],
    }


async def compare(judge: Node, seed: int, made: dict[str, Any]) -> None:
    """Take one history every way and hold what Yjs makes of it against what Yjs made of the updates themselves."""
    updates = [base64.b64decode(update) for update in made["arrived"]]
    merged = base64.b64decode(made["merged"])
    assert compacted(Stored(NOTHING, entries(updates))).state == merged, f"history {seed}: of the snapshot"
    assert Shelf(Stored(NOTHING, entries(updates))).state() == merged, f"history {seed}: of what is kept"
    compared: tuple[str, ...] = ("whole", "final")
    if not made["pending"]:
        # Where something is missing, Yjs and yrs differ in what they show until it comes.
        compared += ("vector", "text")
        assert state_of(fold(updates)) == merged == base64.b64decode(made["vector"]), (
            f"history {seed}: of the folded"
        )
    taken = ways(updates, seed)
    cases = [{"updates": encoded(parts), "missing": made["missing"]} for parts in taken.values()]
    for way, found in zip(taken, await judge.ask("judge", cases=cases), strict=True):
        for what in compared:
            assert found[what] == made[what], f"history {seed}, {way}: {what}"


async def test_what_we_make_of_a_history_is_what_yjs_makes_of_it(request: pytest.FixtureRequest) -> None:
    asked = os.environ.get("ATELIER_SEED")
    first = int(asked) if asked else 1
    count = 1 if asked else int(request.config.getoption("--histories"))
    began, waiting, updates = time.monotonic(), 0, 0
    async with node("histories.mjs") as judge:
        for start in range(first, first + count, BATCH):
            size = min(BATCH, first + count - start)
            for n, made in enumerate(await judge.ask("histories", **{"from": start}, count=size)):
                await compare(judge, start + n, made)
                waiting += made["pending"]
                updates += len(made["arrived"])
    print(
        f"{count:,} histories of {updates:,} updates, {waiting:,} with holes:"
        f" state vectors and texts equal in {time.monotonic() - began:.0f} s"
    )
    assert asked or waiting > count // 10
