"""Measures `print(1)` in a container, from the request to its first byte: `python -m bench.container_start [--samples N]`.

Five ways, taken in turn in one loop, so that noise of the machine hits all alike; all but the first over one engine:
- local: a sandbox of this machine waits (bubblewrap)
- warm: a container waits with the agent in it (what a Run click gets)
- cold: the container has to be started first
- exec: `docker exec` of an interpreter in a container that runs
- run: `docker run --rm` of an interpreter
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time

from deploy.engine import engine, prepare

from atelier_runner import Limits, open_docker, open_local
from bench.gates import missed
from bench.run_start import sandboxed

PRINT = ["python3", "-c", "print(1)"]


def command(words: list[str]) -> float:
    """Return the milliseconds from spawning a program to its first byte."""
    began = time.perf_counter()
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        first = (time.perf_counter() - began) * 1000
        process.stdout.read()
    return first


async def measure(path: str, samples: int) -> dict[str, list[float]]:
    """Take `samples` of each way, in turn."""
    taken: dict[str, list[float]] = {"local": [], "warm": [], "cold": [], "exec": [], "run": []}
    docker = ["docker", "-H", f"unix://{path}"]
    stays = [*docker, "run", "-d", "--rm", "--network", "none", "atelier/python", "sleep", "infinity"]
    running = (await asyncio.to_thread(subprocess.check_output, stays)).decode().strip()
    try:
        async with open_docker(path) as backend, open_local() as local:
            for _ in range(samples):
                await local.warm()
                taken["local"].append(await sandboxed(local, Limits()))
                await backend.warm()
                taken["warm"].append(await sandboxed(backend, Limits()))
                await backend.warm()
                # Waiting containers have another disk size, so this one is started on demand.
                taken["cold"].append(await sandboxed(backend, Limits(disk_mb=63)))
                await backend.warm()
                taken["exec"].append(await asyncio.to_thread(command, [*docker, "exec", running, *PRINT]))
                run = [*docker, "run", "--rm", "--network", "none", "atelier/python", *PRINT]
                taken["run"].append(await asyncio.to_thread(command, run))
    finally:
        await asyncio.to_thread(subprocess.run, [*docker, "rm", "-f", running], capture_output=True)
    return taken


def main() -> int:
    """Print a table of milliseconds; returns how many gates were missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=40)
    samples = parser.parse_args().samples
    with engine() as path:
        prepare(path)
        taken = asyncio.run(measure(path, samples))
    print(f"print(1) in a container, request to first byte, {samples} samples of each (ms)")
    print(f"{'':6} {'p50':>7} {'p95':>7} {'worst':>7}")
    for name, values in taken.items():
        print(
            f"{name:6} {statistics.median(values):7.1f} {statistics.quantiles(values, n=20)[18]:7.1f} {max(values):7.1f}"
        )
    middle = {name: statistics.median(values) for name, values in taken.items()}
    return missed(
        [
            ("a warm local start, of docker run's", middle["local"] / middle["run"], 1 / 70),
            ("a warm local start, of docker exec's", middle["local"] / middle["exec"], 1 / 35),
            ("a warm start, of docker run's", middle["warm"] / middle["run"], 1 / 20),
            ("a warm start, of docker exec's", middle["warm"] / middle["exec"], 1 / 10),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
