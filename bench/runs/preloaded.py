"""Measures a program that imports pandas, from the request to its first byte: `python -m bench.runs.preloaded [--samples N]`.

Three ways, taken in turn in one loop, so that noise of the machine hits all alike:
- warm: a sandbox waits that has pandas imported (what a Run click gets)
- plain: strict mode; a sandbox waits, the program starts a new interpreter and imports pandas itself
- bare: `python3 FILE` on this machine without any sandbox
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from atelier_runner import Backend, Limits, Output, Spec, open_local
from bench.gates import missed, percentiles
from bench.run_start import bare

PROGRAM = b"import pandas as pd\nprint(pd.DataFrame({'a': range(9)}).a.sum())\n"
SPEC = Spec("python", "main.py", {"main.py": PROGRAM}, Limits(), stdin=b"")


async def sandboxed(backend: Backend) -> float:
    """Return the milliseconds from `start` to the first output of one run."""
    began = time.perf_counter()
    first = 0.0
    async for event in backend.events(await backend.start(SPEC)):
        if isinstance(event, Output) and not first:
            first = (time.perf_counter() - began) * 1000
            assert event.data.startswith(b"36"), event.data
    return first


async def measure(samples: int) -> dict[str, list[float]]:
    """Take `samples` of each way, in turn."""
    taken: dict[str, list[float]] = {"warm": [], "plain": [], "bare": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "main.py")
        path.write_bytes(PROGRAM)  # noqa: ASYNC240 - nothing else runs yet
        async with open_local() as backend, open_local(strict=True) as strict:
            if "pandas" not in (await backend.languages())["python"].preload:
                raise SystemExit("/usr/bin/python3 has no pandas: apt-get install python3-pandas")
            await sandboxed(backend)  # from now on one waits that has it
            for _ in range(samples):
                found = (await backend.idle()).warm
                while (await backend.idle()).sandboxes < (await backend.idle()).wanted:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                taken["warm"].append(await sandboxed(backend))
                assert (await backend.idle()).warm == found + 1
                await strict.warm()
                taken["plain"].append(await sandboxed(strict))
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
    print(f"a program that imports pandas, request to first byte, {samples} samples of each (ms)")
    percentiles(taken)
    middle = {name: statistics.median(values) for name, values in taken.items()}
    return missed([("warm p50, of the bare interpreter's", middle["warm"] / middle["bare"], 0.1)])


if __name__ == "__main__":
    sys.exit(main())
