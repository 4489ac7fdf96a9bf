"""An editing trace of 260,000 edits: what taking it in costs, what it takes on disk, how fast all of it is there again.

python -m bench.hub.trace

The trace is made like the well-known recording of a paper being written: single characters typed in runs, the cursor
jumping now and then, some 30 % of the edits deletions; 260,000 edits leave 105,000 characters. One client sends it, as
fast as the server takes it, at most 1,000 ahead of another one that is there and decodes what arrives.
"""

from __future__ import annotations

import argparse
import asyncio
import pickle
import random
import sys
import time
from itertools import accumulate
from pathlib import Path
from statistics import median

from atelier.documents import ranges
from bench.gates import missed
from bench.hub.durability import Person, line
from bench.hub.servers import BUILD, Name, Server, Started
from bench.hub.wire import UPDATE, enter, envelope, masked, message, sized
from bench.writer import Writer

_EDITS, _LEFT = 260_000, 105_000
_NAMES: tuple[Name, ...] = ("atelier", "hocuspocus", "y-websocket", "pycrdt")
_SETTLE_SECONDS = 14
_IN_FLIGHT = 1_000


def trace() -> tuple[list[bytes], str]:
    """Return the updates and the text that they leave; made once, with a seed."""
    kept = BUILD / "trace"
    if not kept.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(pickle.dumps(_made()))
    found: tuple[list[bytes], str] = pickle.loads(kept.read_bytes())
    return found


def _made() -> tuple[list[bytes], str]:
    draw = random.Random(7)
    writer = Writer()
    text, updates = writer.text, writer.updates
    length = at = 0
    deletions = (_EDITS - _LEFT) // 2
    while len(updates) < _EDITS:
        if draw.random() < 0.03:
            at = draw.randint(0, length)
        run = draw.randint(1, 12)
        deleting = (
            at >= run and deletions > 0 and draw.random() < deletions / max(1, _EDITS - len(updates)) * 1.05
        )
        for _ in range(min(run, _EDITS - len(updates))):
            if deleting:
                at -= 1
                del text[at : at + 1]
                length -= 1
                deletions -= 1
            else:
                text.insert(at, draw.choice("etaoin shrdlu\n"))
                at += 1
                length += 1
    return updates, str(text)


async def feed(server: Server, updates: list[bytes]) -> float:
    """Send everything while somebody else is there; returns seconds until that one has all of it."""
    name = envelope(server)
    (own, sender), (reader, other) = await enter(server), await enter(server)
    clocks = list(
        accumulate(max((end - start for _, start, end in ranges(u)[0]), default=0) for u in updates)
    )
    seen, news = 0, asyncio.Event()
    began = time.perf_counter()

    async def listen() -> None:
        """Read how far it is from what arrives, merged or not."""
        nonlocal seen
        while seen < clocks[-1]:
            body = (await message(reader)).removeprefix(name)
            if body[:2] == UPDATE:
                found = ranges(_inside(body))[0]
                seen = max((end for _, _, end in found), default=seen)
                news.set()

    async def drop() -> None:
        while await own.read(1024 * 1024):
            pass

    dropping, listening = asyncio.create_task(drop()), asyncio.create_task(listen())
    for start in range(0, len(updates), 50):
        sender.write(
            b"".join(masked(name + UPDATE + sized(update)) for update in updates[start : start + 50])
        )
        await sender.drain()
        while clocks[start] > seen + _IN_FLIGHT and not listening.done():
            news.clear()
            await asyncio.wait_for(news.wait(), 20)
    await asyncio.wait_for(listening, 600)
    took = time.perf_counter() - began
    dropping.cancel()
    sender.transport.abort()
    other.transport.abort()
    return took


def _inside(body: bytes) -> bytes:
    at = 2
    while body[at] >= 128:
        at += 1
    return body[at + 1 :]


async def all_there(server: Server, text: str) -> tuple[float, int]:
    """Join with nothing; returns seconds until the whole text has been decoded, and bytes."""
    began = time.perf_counter()
    async with line(f"ws://127.0.0.1:{server.port}{server.rooms[0].split()[0]}") as socket:
        person = Person(server, socket)
        async with asyncio.timeout(120):
            await person.enter()
            while len(str(person.text)) != len(text):
                await person.hear()
        took = time.perf_counter() - began
        assert str(person.text) == text
        return took, person.bytes


def on_disk(folder: Path) -> int:
    """Return the bytes of all files but those that are gone once the server has ended: what is written ahead."""
    passing = ("errors", "log.db-wal", "log.db-shm")
    return sum(
        file.stat().st_size for file in folder.rglob("*") if file.is_file() and file.name not in passing
    )


def measure(name: Name, updates: list[bytes], text: str) -> dict[str, float]:
    """Feed one server and come back to it, warm and after a restart."""
    with Started(name) as server:
        before = on_disk(server.folder)
        cpu, written = server.cpu_seconds(), server.written()
        took = asyncio.run(feed(server, updates))
        figures = {"feed_us": (server.cpu_seconds() - cpu) / len(updates) * 1e6, "feed_s": took}
        time.sleep(_SETTLE_SECONDS)
        figures["written"] = (server.written() - written) / sum(map(len, updates))
        warm = [asyncio.run(all_there(server, text)) for _ in range(5)]
        figures |= {"warm_s": median(s for s, _ in warm), "bytes": warm[0][1]}
        cold = []
        for _ in range(3):
            server.stop()
            server.start()
            server.quiet()
            cold.append(asyncio.run(all_there(server, text))[0])
        server.stop()
        return figures | {"cold_s": median(cold), "disk": on_disk(server.folder) - before}


def main() -> int:
    """Measure everybody; returns how many gates were missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.hub.trace")
    parser.add_argument("--only", choices=_NAMES, nargs="*", default=_NAMES)
    options = parser.parse_args()
    updates, text = trace()
    found: dict[str, dict[str, float]] = {}
    for name in options.only:
        try:
            f = found[name] = measure(name, updates, text)
        except (TimeoutError, OSError, EOFError) as error:
            print(f"{name:12} did not get through: {type(error).__name__}", flush=True)
            continue
        print(
            f"{name:12} {f['feed_us']:6.1f} us CPU an edit, {f['feed_s']:5.1f} s; on disk {f['disk'] / 1e6:5.2f} MB"
            f" = {f['disk'] / len(text):4.0f} x the text, {f['written']:.1f} x what came was written; all there warm {f['warm_s'] * 1e3:5.0f} ms, after a restart"
            f" {f['cold_s'] * 1e3:5.0f} ms; {f['bytes'] / 1e3:,.0f} kB",
            flush=True,
        )
    if not {"atelier", "hocuspocus", "y-websocket"} <= set(found):
        return 0
    own, peers = found.pop("atelier"), found
    return missed(
        (
            (
                "CPU an edit, of the best peer's",
                own["feed_us"] / min(p["feed_us"] for p in peers.values()),
                1.0,
            ),
            ("warm, of the best peer's", own["warm_s"] / min(p["warm_s"] for p in peers.values()), 0.6),
            ("after a restart, of Hocuspocus'", own["cold_s"] / peers["hocuspocus"]["cold_s"], 0.2),
            ("bytes, of the best peer's", own["bytes"] / min(p["bytes"] for p in peers.values()), 1.0),
        )
    )


if __name__ == "__main__":
    sys.exit(main())
