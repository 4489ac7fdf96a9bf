"""Any schedule of cells, stops and restarts by several people at once, beside a plain model: the order is one, and nothing is lost."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from ..hub.clients import World, live_server
from .test_interpreters import delete, listed, peopled, send, text, until

pytestmark = pytest.mark.timeout(110)
PEOPLE = ("Ada", "Bob", "Rik")


@pytest.mark.parametrize("seed", range(2))
async def test_cells_of_several_people_are_one_history(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    async with live_server(tmp_path) as server, peopled(server) as world:
        sent: dict[str, tuple[str, int]] = {}
        for _ in range(3):
            await asyncio.gather(*(person(world, random.Random(dice.random()), who, sent) for who in PEOPLE))
            await until(world, lambda found: all_said(found, sent), seconds=40)
            if dice.random() < 0.7:
                await delete(world, "/interpreter", dice.choice(PEOPLE))
                await until(world, lambda found: found["interpreter"] is None)
        check(await listed(world), sent)


def all_said(found: dict[str, Any], sent: dict[str, tuple[str, int]]) -> bool:
    """Say whether every cell has ended, and what threads print after their cell has come: a restart would end them."""
    return all(
        cell["status"] == "ended"
        and (sent[cell["id"]][0] != "thread" or cell["outcome"] != "done" or text(cell) != "")
        for cell in found["items"]
    )


async def person(world: World, dice: random.Random, who: str, sent: dict[str, tuple[str, int]]) -> None:
    """Send a few batches, and stop some of what one has sent."""
    for _ in range(dice.randrange(1, 4)):
        kinds = [dice.choice(("step", "step", "step", "fail", "thread")) for _ in range(dice.randrange(1, 4))]
        numbers = [dice.randrange(100) for _ in kinds]
        ids = await send(world, *map(code_of, kinds, numbers), who=who)
        sent.update({cell: (kind, number) for cell, kind, number in zip(ids, kinds, numbers, strict=True)})
        if dice.random() < 0.3:
            await delete(world, f"/cells/{dice.choice(ids)}", who)


def code_of(kind: str, number: int) -> str:
    begin = "s = globals().get('s', 1)\n"
    match kind:
        case "step":
            return f"{begin}s = (s * 3 + {number}) % 10_007\nprint({number})\ns"
        case "thread":
            return f"import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.05), print('late', {number}))).start()"
        case _:
            return f"{begin}s += 1\nprint({number})\nraise ValueError(s)"


def check(found: dict[str, Any], sent: dict[str, tuple[str, int]]) -> None:
    """Hold what the session has against the model, in the session's own order."""
    assert {cell["id"] for cell in found["items"]} == set(sent)
    state, life, number = 1, 0, 0
    failed: set[str] = set()
    for cell in found["items"]:
        kind, n = sent[cell["id"]]
        assert (cell["batch"] not in failed) or cell["outcome"] == "skipped", cell
        if cell["outcome"] in ("skipped", "interrupted"):
            number += cell["outcome"] == "interrupted"
            failed |= {cell["batch"]} if cell["outcome"] == "interrupted" else set()
            if cell["outcome"] == "interrupted":
                state = -1  # somewhere in between: taken from what comes next
            continue
        if cell["life"] != life:
            assert cell["life"] == life + 1
            state, life, number = 1, cell["life"], 0
        number += 1
        assert cell["number"] == number, cell
        if kind == "thread":
            assert text(cell) == f"late {n}\n"
            continue
        if kind == "step":
            expected = (state * 3 + n) % 10_007
            if state < 0:
                expected = int(text(cell).split("\n")[1])
            assert text(cell) == f"{n}\n{expected}", (cell, state)
            state = expected
        else:
            failed.add(cell["batch"])
            assert (cell["outcome"], text(cell)) == ("error", f"{n}\n")
            state = int(cell["error"]["message"])
