"""Measures runs a second with more and more at once: `python -m bench.runs.sustained [--seconds N] [--docker]`.

Each run is `print(1)` with full isolation, its output read to the end; beside the rate stands the CPU time of a run, the server's
and the sandbox's, which other work on the machine changes less. The limit beside it is the same program by a bare
interpreter, two at once: a sandbox is used once and has an interpreter of its own, so that no two programs share a
hash seed. With `--docker` as many `docker run` of the same are begun at once, on an engine of the benchmark's own.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import subprocess
import sys
import time

from deploy.engine import engine, prepare

from atelier_runner import Backend, Limits, Spec, open_local
from bench.gates import missed
from bench.served import percentile

AT_ONCE = (1, 2, 4, 8, 16, 32)
LIMITS = Limits()
SPEC = Spec("python", "main.py", {"main.py": b"print(1)\n"}, LIMITS, stdin=b"")


async def one(backend: Backend) -> None:
    """Run the program once."""
    async for _ in backend.events(await backend.start(SPEC)):
        pass


def used() -> float:
    """Return the seconds of CPU time of this process and of the sandboxes that have ended."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


async def sustained(backend: Backend, at_once: int, seconds: float) -> tuple[float, float, float]:
    """Return runs a second, the milliseconds of their 99th percentile, and of CPU time for each."""
    before = used()
    end = time.perf_counter() + seconds
    taken: list[float] = []

    async def go_on() -> None:
        while (began := time.perf_counter()) < end:
            await one(backend)
            taken.append((time.perf_counter() - began) * 1000)

    begun = time.perf_counter()
    await asyncio.gather(*(go_on() for _ in range(at_once)))
    rate = len(taken) / (time.perf_counter() - begun)
    return rate, percentile(taken, 0.99), (used() - before) * 1000 / len(taken)


async def ours(seconds: float) -> float:
    """Print a line for each number at once; returns the most runs a second."""
    best = 0.0
    async with open_local(pool_size=4) as backend:
        await backend.warm()
        for at_once in AT_ONCE:
            rate, p99, cpu = await sustained(backend, at_once, seconds)
            print(
                f"{at_once:3} at once: {rate:6.1f} runs a second, p99 {p99:7.1f} ms, {cpu:5.1f} ms of CPU each",
                flush=True,
            )
            best = max(best, rate)
    return best


def two_at_once(words: list[str], seconds: float) -> float:
    """Return how often a second a command ends when two of it run at once."""
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        both = [subprocess.Popen(words, stdout=subprocess.DEVNULL) for _ in range(2)]
        done += sum(process.wait() == 0 for process in both)
    return done / (time.perf_counter() - begun)


def main() -> int:
    """Print the figures; returns how many gates were missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--docker", action="store_true")
    options = parser.parse_args()
    best = asyncio.run(ours(options.seconds))
    bare = two_at_once(["/usr/bin/python3", "-c", "print(1)"], options.seconds)
    print(f"bare interpreters, two at once: {bare:.1f} a second")
    if not options.docker:
        return 0
    with engine() as path:
        prepare(path)
        words = ["docker", "-H", f"unix://{path}", "run", "--rm", "--network", "none", "atelier/python"]
        theirs = two_at_once([*words, "python3", "-c", "print(1)"], 3 * options.seconds)
    print(
        f"docker run, two at once: {theirs:.2f} a second; {best / theirs:.0f} times as many here, "
        f"{bare / theirs:.0f} by bare interpreters"
    )
    return missed([("docker run's rate of ours", theirs / best, 1 / 40)])


if __name__ == "__main__":
    sys.exit(main())
