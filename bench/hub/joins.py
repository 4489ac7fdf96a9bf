"""People who come: connections with their first sync a second, memory of each, and many at once.

python -m bench.hub.joins            2,000 connections to each server, one small document
python -m bench.hub.joins --held 10000   and so many held open by Atelier alone
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import time
from statistics import median

from bench.hub.servers import Name, Server, Started
from bench.hub.wire import Line, enter

_AT_ONCE = 20
_PEERS: tuple[Name, ...] = ("y-websocket", "hocuspocus")  # pycrdt-websocket does not get through


async def crowd(server: Server, count: int) -> tuple[float, float, float]:
    """Return joins a second, KiB of the server's memory each, and CPU µs of the server each."""
    lines: list[Line] = []
    memory, cpu, began = server.memory(), server.cpu_seconds(), time.perf_counter()

    async def come(some: int) -> None:
        for _ in range(some):
            lines.append(await enter(server))  # noqa: PERF401 - one after the other

    await asyncio.gather(*(come(count // _AT_ONCE) for _ in range(_AT_ONCE)))
    seconds, used = time.perf_counter() - began, server.cpu_seconds() - cpu
    await asyncio.sleep(1)
    grown = server.memory() - memory
    for _, writer in lines:
        writer.transport.abort()
    return len(lines) / seconds, grown / len(lines) / 1024, used / len(lines) * 1e6


def main() -> int:
    """Measure and print; returns how many gates were missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.hub.joins")
    parser.add_argument("--count", type=int, default=2_000)
    parser.add_argument("--held", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found: dict[Name, list[tuple[float, float, float]]] = {}
    names: tuple[Name, ...] = ("atelier", *_PEERS)
    for _ in range(options.runs):
        for name in names:
            with Started(name) as server:
                found.setdefault(name, []).append(asyncio.run(crowd(server, options.count)))
    best = {name: tuple(median(run[n] for run in runs) for n in range(3)) for name, runs in found.items()}
    print(f"{'':12} {'joins/s':>9} {'KiB each':>9} {'µs CPU':>9}")
    for name, (rate, size, used) in best.items():
        print(f"{name:12} {rate:9,.0f} {size:9.1f} {used:9.0f}")
    ratio = best["atelier"][0] / max(best[name][0] for name in _PEERS)
    missed = (ratio < 1.4) + (best["atelier"][1] > 15)
    print(
        f"{'met   ' if ratio >= 1.4 else 'MISSED'} joins a second, of the best peer's: {ratio:.2f} (at least 1.40)"
    )
    print(
        f"{'met   ' if best['atelier'][1] <= 15 else 'MISSED'} KiB each: {best['atelier'][1]:.1f} (at most 15)"
    )
    with Started("atelier") as server:
        rate, size, _ = asyncio.run(crowd(server, options.held))
        print(f"met    {options.held:,} held at once: {rate:,.0f} joins/s, {size:.1f} KiB each")
    return missed


if __name__ == "__main__":
    sys.exit(main())
