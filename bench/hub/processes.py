"""The same typing through one process and through two with Redis between them: what it costs, in latency and CPU.

python -m bench.hub.processes       one writer at 100 edits a second, one reader; the reader's decoding counts
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from bench.hub import stores
from bench.hub.durability import Person, line
from bench.hub.servers import Server, Started
from bench.served import percentile

_RATE = 100.0


def url(server: Server, path: str) -> str:
    return f"ws://127.0.0.1:{server.port}{path}"


def redis_cpu(pid: int) -> float:
    return sum(int(p.read_text().split()[0]) for p in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


async def type_and_read(written: Server, read: Server, edits: int) -> list[float]:
    """Type at one process, read at another (or the same); returns each edit's seconds."""
    path = written.rooms[0].split()[0]
    seconds: list[float] = []
    async with line(url(written, path)) as one, line(url(read, path)) as other:
        writer, reader = Person(written, one), Person(written, other)
        await writer.enter()
        await reader.enter()
        for number in range(1, edits + 1):
            began = time.perf_counter()
            await writer.write("x")
            while len(str(reader.text)) < number:
                await reader.hear()
            seconds.append(time.perf_counter() - began)
            await asyncio.sleep(max(0, 1 / _RATE - seconds[-1]))
    return seconds


def report(words: str, servers: list[Server], pids: list[int], edits: int, runs: int) -> tuple[float, float]:
    """Measure and print; returns p50 in ms and CPU per edit in us."""
    p50, p99, cpu = [], [], []
    for run in range(runs):
        servers[0].rooms = servers[0].rooms[1:] if run else servers[0].rooms
        before = sum(s.cpu_seconds() for s in servers) + sum(map(redis_cpu, pids))
        seconds = asyncio.run(type_and_read(servers[0], servers[-1], edits))
        used = sum(s.cpu_seconds() for s in servers) + sum(map(redis_cpu, pids)) - before
        p50.append(percentile(seconds, 0.5) * 1e3)
        p99.append(percentile(seconds, 0.99) * 1e3)
        cpu.append(used / edits * 1e6)
    print(
        f"{words:32} p50 {median(p50):.2f} ms, p99 {median(p99):.2f} ms, CPU {median(cpu):.0f} us an edit",
        flush=True,
    )
    return median(p50), median(cpu)


def main() -> int:
    """Measure one process with SQLite, one with Redis, two with Redis."""
    parser = argparse.ArgumentParser(prog="python -m bench.hub.processes")
    parser.add_argument("--edits", type=int, default=500)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with Started("atelier", options.runs) as server:
        alone = report("one process, SQLite", [server], [], options.edits, options.runs)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        settings = stack.enter_context(stores.settings("redis", Path(folder)))
        one = stack.enter_context(Started("atelier", 2 * options.runs, settings=settings))
        two = stack.enter_context(Started("atelier", 1, settings=settings))
        pid = int(Path(folder, "redis.pid").read_text())
        report("one process, Redis", [one], [pid], options.edits, options.runs)
        one.rooms = one.rooms[1:]
        apart = report("two processes, Redis", [one, two], [pid], options.edits, options.runs)
    print(
        f"through two processes: + {apart[0] - alone[0]:.2f} ms at p50, + {apart[1] - alone[1]:.0f} us of CPU an edit"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
