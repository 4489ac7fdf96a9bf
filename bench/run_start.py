"""Measures how long a run of `print(1)` takes from the request to its first byte: `python bench/run_start.py [--samples N]`.

Three ways, taken in turn in one loop, so that noise of the machine hits all alike:
- warm: a sandbox waits in the pool (what a Run click gets)
- cold: the sandbox has to be started first
- bare: `python3 FILE` on this machine without any sandbox
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from atelier_runner import Backend, Limits, Output, Spec, open_local
from bench.gates import missed, percentiles

PROGRAM = b"print(1)\n"


async def sandboxed(backend: Backend, limits: Limits) -> float:
    """Return the milliseconds from `start` to the first output of one run."""
    began = time.perf_counter()
    first = 0.0
    run = await backend.start(Spec("python", "main.py", {"main.py": PROGRAM}, limits, stdin=b""))
    async for event in backend.events(run):
        if isinstance(event, Output) and not first:
            first = (time.perf_counter() - began) * 1000
    return first


def bare(path: Path) -> float:
    """Return the milliseconds from spawning an interpreter to its first byte."""
    began = time.perf_counter()
    with subprocess.Popen(["/usr/bin/python3", "-u", str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        first = (time.perf_counter() - began) * 1000
        process.stdout.read()
    return first


async def measure(samples: int) -> dict[str, list[float]]:
    """Take `samples` of each way, in turn."""
    taken: dict[str, list[float]] = {"warm": [], "cold": [], "bare": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "main.py")
        path.write_bytes(PROGRAM)  # noqa: ASYNC240 - nothing else runs yet
        async with open_local() as backend:
            for _ in range(samples):
                await backend.warm()
                taken["warm"].append(await sandboxed(backend, Limits()))
                await backend.warm()
                # Waiting sandboxes have another disk size, so this one is started on demand.
                taken["cold"].append(await sandboxed(backend, Limits(disk_mb=63)))
                taken["bare"].append(await asyncio.to_thread(bare, path))
    return taken


def main() -> int:
    """Print a table of milliseconds; returns how many gates were missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=200)
    samples = parser.parse_args().samples
    taken = asyncio.run(measure(samples))
    print(f"print(1), request to first byte, {samples} samples of each (ms)")
    percentiles(taken)
    middle = {name: statistics.median(values) for name, values in taken.items()}
    last = {name: statistics.quantiles(values, n=100)[98] for name, values in taken.items()}
    return missed(
        [
            ("warm p50, of the bare interpreter's", middle["warm"] / middle["bare"], 0.5),
            ("warm p99, of the bare interpreter's", last["warm"] / last["bare"], 2.0),
            ("cold p50, of the bare interpreter's", middle["cold"] / middle["bare"], 2.0),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
