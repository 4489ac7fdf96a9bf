"""Measures how long a tree of processes lives once it is told to end: `python -m bench.runs.cancel [--count N]`.

Each program has made twenty processes, in sessions of their own, that ignore every signal they may. The time runs from
`cancel` to the run's last event; then the machine is searched for processes that are left.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

from atelier_runner import Limits, Output, Spec, open_local
from bench.gates import missed
from bench.served import percentile

MARK = "cancel-bench-survivor"
PROGRAM = f"""
import os, signal, time
for n in range(20):
    if os.fork() == 0:
        os.setsid()
        for number in range(1, 32):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        os.execv("/bin/sleep", ["{MARK}", "300"]) if n % 2 else time.sleep(300)
print("on", flush=True)
time.sleep(300)
""".encode()
GATE_MS = 20.0


def survivors() -> int:
    """Return how many of the programs' processes are there."""
    count = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            count += MARK.encode() in path.read_bytes()
        except OSError:
            continue
    return count


async def measure(count: int) -> tuple[list[float], int]:
    """Return the milliseconds of each cancel, and how many processes were left after any of them."""
    taken, left = [], 0
    limits = Limits(processes=64)
    async with open_local() as backend:
        for _ in range(count):
            await backend.warm()
            run = await backend.start(Spec("python", "m.py", {"m.py": PROGRAM}, limits))
            began = 0.0
            async for event in backend.events(run):
                if isinstance(event, Output) and not began:
                    began = time.perf_counter()
                    await backend.cancel(run)
            taken.append((time.perf_counter() - began) * 1000)
            left += survivors()
    return taken, left


def main() -> int:
    """Print the figures; returns how many gates were missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=500)
    count = parser.parse_args().count
    taken, left = asyncio.run(measure(count))
    print(
        f"{count} trees of 21 processes: p50 {percentile(taken, 0.5):.1f} ms, p99 {percentile(taken, 0.99):.1f} ms"
    )
    return missed(
        [
            ("p99 from cancel to the end, ms", percentile(taken, 0.99), GATE_MS),
            ("processes left", float(left), 0.0),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
