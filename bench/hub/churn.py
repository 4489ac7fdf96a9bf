"""People come, write, and go in every way that there is, for as long as asked: what is left behind afterwards.

python -m bench.hub.churn --minutes 60

Each second some thirty connections open documents out of a hundred, write a little, and leave: politely, cut off, or by
falling silent half-open; now and then the disk is full for a moment. Memory, open files and tasks are sampled; at the
end, when everybody has gone, there must be no more files and tasks than at the beginning, and memory must not grow.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import resource
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.gates import missed
from bench.hub.servers import Server, Started
from bench.hub.wire import STEP1, UPDATE, masked, message, open_line, sized
from bench.writer import Writer

_ROOMS = 100
_MOST_DRIFT = 0.10  # of the memory after the first quarter
_QUIET_SECONDS = 50  # until what fell silent has been given up


@dataclass(frozen=True, slots=True)
class Sample:
    """What the process holds at one moment."""

    memory: int
    files: int
    tasks: int


def sample(server: Server) -> Sample:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    tasks = next(int(float(line.split()[1])) for line in lines if line.startswith("atelier_hub_tasks "))
    return Sample(server.memory(), len(os.listdir(f"/proc/{server.pid}/fd")), tasks)


async def visit(server: Server, draw: random.Random, silent: list[asyncio.StreamWriter]) -> None:
    """Come, write a few letters, leave in one of several ways."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, RuntimeError, TimeoutError):
        reader, writer = await open_line(server, draw.randrange(_ROOMS))
        writer.write(masked(STEP1))
        writing = Writer()
        for _ in range(draw.randint(0, 8)):
            writing.text += draw.choice("abc ")
            writer.write(masked(UPDATE + sized(writing.take())))
            await asyncio.sleep(draw.random() * 0.05)
        for _ in range(draw.randint(0, 5)):
            await asyncio.wait_for(message(reader), 2)
        match draw.randrange(4):
            case 0:
                writer.write(b"\x88\x82" + bytes(4) + b"\x03\xe8")
                await writer.drain()
                writer.close()
            case 1 if len(silent) < 200:
                silent.append(writer)  # says nothing any more, and does not read
                writer.transport.pause_reading()  # type: ignore[attr-defined]
            case _:
                writer.transport.abort()


async def churn(server: Server, seconds: float) -> int:
    """Let people come and go; returns how many gates were missed."""
    draw, silent = random.Random(3), list[asyncio.StreamWriter]()
    await asyncio.gather(*(visit(server, draw, silent) for _ in range(200)))  # every path has been taken once
    before = sample(server)
    samples, visits, full = [before], 0, 0
    end, began = time.monotonic() + seconds, time.monotonic()
    running: set[asyncio.Task[None]] = set()
    while time.monotonic() < end:
        task = asyncio.create_task(visit(server, draw, silent))
        running.add(task)
        task.add_done_callback(running.discard)
        visits += 1
        await asyncio.sleep(0.03)
        if visits % 1_000 == 0:
            full += 1
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            await asyncio.sleep(0.5)
            resource.prlimit(
                server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            )
            for writer in silent[: len(silent) // 2]:
                writer.transport.abort()
            del silent[: len(silent) // 2]
        if time.monotonic() - began > len(samples) * seconds / 40:
            samples.append(sample(server))
    await asyncio.gather(*running)
    for writer in silent:
        writer.transport.abort()
    await asyncio.sleep(_QUIET_SECONDS)
    after = sample(server)
    quarter = max(1, len(samples) // 4)
    early = median(s.memory for s in samples[quarter : 2 * quarter])
    late = median(s.memory for s in samples[-quarter:])
    print(f"{visits:,} visits in {seconds / 60:.0f} minutes, the disk full {full} times")
    print(f"memory {early / 1e6:.1f} MB in the second quarter, {late / 1e6:.1f} MB in the last")
    print(
        f"files {before.files} before, {after.files} after; tasks {before.tasks} before, {after.tasks} after"
    )
    return missed(
        (
            ("growth of memory", late / early - 1, _MOST_DRIFT),
            ("files left open", max(0, after.files - before.files), 4),
            ("tasks left", max(0, after.tasks - before.tasks), 2),
        )
    )


def main() -> int:
    """Run it against a fresh server."""
    parser = argparse.ArgumentParser(prog="python -m bench.hub.churn")
    parser.add_argument("--minutes", type=float, default=60)
    options = parser.parse_args()
    with Started("atelier", _ROOMS) as server:
        assert Path(f"/proc/{server.pid}").exists()
        return asyncio.run(churn(server, options.minutes * 60))


if __name__ == "__main__":
    sys.exit(main())
