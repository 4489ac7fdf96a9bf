"""A document of 100,000 edits by three people: how long its past takes to open, through the HTTP API.

    python -m bench.history

The edits are made by a seeded model of typing (words, corrections, jumps) and go through the log as the hub's do,
compacted as often. Target: any point of it in at most 300 ms (p95).
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import structlog

from atelier.documents import compact_if_long
from atelier.ids import document_key
from atelier.log import Edit, open_log
from bench.served import percentile, served
from bench.writer import Writer

EDITS = 100_000
TARGET_MS = 300
_COMPACT_EVERY = 4_000
_POINTS = 200


def typing(edits: int, seed: int = 7) -> list[tuple[bytes, int]]:
    """Return updates and times of three people who write one text."""
    draw, writer = random.Random(seed), Writer()
    text, times = writer.text, list[int]()
    at = 1_750_000_000_000
    place = size = 0
    while len(times) < edits:
        at += draw.choice((80, 120, 160, 240, 900))
        kind = draw.random()
        if kind < 0.02:
            place = draw.randint(0, size)  # goes somewhere else
            at += draw.choice((2_000, 20_000, 400_000))
        if kind > 0.9 and place:
            place -= 1
            del text[place : place + 1]
            size -= 1
        else:
            text.insert(place, draw.choice("etaoin shrdlu\n"))
            place += 1
            size += 1
        times.append(at)
    return list(zip(writer.updates, times, strict=True))


async def fill(data: Path, key: str, people: list[str]) -> None:
    """Put the edits into the log."""
    async with open_log(f"sqlite:///{data / 'log.db'}") as log:
        updates = typing(EDITS)
        for at in range(0, EDITS, _COMPACT_EVERY):
            edits = [
                Edit(update, people[(at + n) // 500 % len(people)], when)
                for n, (update, when) in enumerate(updates[at : at + _COMPACT_EVERY])
            ]
            await log.append(key, edits)
            await compact_if_long(log, key, most_bytes=10**9, always=True)


def main() -> int:
    """Measure and print; returns 1 when the target is missed."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch)
        with served(data) as server:
            token, session, document = made(server.url)
        asyncio.run(fill(data, document_key(session, document), ["usr_a", "usr_b", "usr_c"]))
        size = sum(path.stat().st_size for path in data.glob("log.db*")) / 1e6
        print(f"{EDITS:,} edits: {size:.1f} MB of log")
        with served(data) as server:
            base = f"/api/v1/sessions/{session}/documents/{document}/history"
            seconds, past = timed(server.url, base, token)
            print(f"who wrote when, the first time: {seconds * 1e3:8.0f} ms, {past['edits']:,} edits")
            seconds, past = timed(server.url, base, token)
            print(f"who wrote when, again:          {seconds * 1e3:8.0f} ms")
            draw = random.Random(1)
            points = [draw.randint(1, past["position"]) for _ in range(_POINTS)]
            opened = [timed(server.url, f"{base}/{position}", token)[0] * 1e3 for position in points]
            compared = [
                timed(server.url, f"{base}/diff?from={position - 50}&to={position}", token)[0] * 1e3
                for position in points[:50]
            ]
            played = [
                timed(server.url, f"{base}/playback?after={position}&limit=500", token)[0] * 1e3
                for position in points[:50]
            ]
    for words, samples in (("a point", opened), ("two points compared", compared), ("500 steps", played)):
        print(f"{words:20} p50 {percentile(samples, 0.5):6.0f} ms, p95 {percentile(samples, 0.95):6.0f} ms")
    met = percentile(opened, 0.95) <= TARGET_MS
    print(
        f"{'met   ' if met else 'MISSED'} any point, p95: {percentile(opened, 0.95):.0f} ms (at most {TARGET_MS})"
    )
    return not met


def made(url: str) -> tuple[str, str, str]:
    """Make a guest, a session and a file; returns token, session and document."""
    token = call(url, "POST", "/api/v1/guests", "", {"display_name": "Ada"})["access_token"]
    session = call(url, "POST", "/api/v1/sessions", token, {"name": "long", "template": "blank"})["id"]
    file = call(url, "PUT", f"/api/v1/sessions/{session}/files/long.txt", token, None)
    return token, session, file["document_id"]


def call(url: str, method: str, path: str, token: str, body: object) -> Any:
    """Call the API."""
    content = b"" if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, content if method != "GET" else None, method=method)
    request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.loads(answer.read())


def timed(url: str, path: str, token: str) -> tuple[float, Any]:
    """Return how long a GET took, in seconds, and its answer."""
    began = time.perf_counter()
    answer = call(url, "GET", path, token, None)
    return time.perf_counter() - began, answer


if __name__ == "__main__":
    sys.exit(main())
