"""Measures what packages cost a run: `python -m bench.runs.dependencies [--first N] [--samples N]`.

The packages are 20 wheels of 20 modules from an index on this machine, so that no network is measured:
- first: they are installed before the program begins, each time others
- next: the same run once more
- none: a run that needs no packages, in turn with the one before

Each is the time from the request to the program's first byte. The gate holds the runs beside each other, not the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time

from deploy.package_index import Index, package_index

from atelier_runner import Backend, EnvironmentOptions, Exited, Output, Packages, Reason, Spec, open_local
from bench.gates import missed
from bench.served import percentile

WHEELS, MODULES = 20, 20
GATE_FIRST = 0.2
GATE_NEXT = 2.0
"""Times a run without packages; finding and importing two modules of another folder is in it."""


def fill(index: Index, sets: int) -> list[Packages]:
    """Put sets of packages into the index; each is what one run needs."""
    wanted = []
    for number in range(sets):
        names = [f"set{number}-{wheel}" for wheel in range(WHEELS)]
        for name in names:
            module = name.replace("-", "_")
            body = "".join(f"def f{n}(x):\n    return x + {n}\n" for n in range(50))
            files: dict[str, str | bytes] = {f"{module}/m{n}.py": body for n in range(MODULES)}
            index.wheel(name, "1.0", {f"{module}/__init__.py": "", **files})
        wanted.append(Packages("python", tuple(names)))
    return wanted


async def first_byte(backend: Backend, packages: Packages | None) -> float:
    """Return the milliseconds from the request to the program's first byte."""
    imports = "" if packages is None else f"import {packages.wanted[0].replace('-', '_')}.m0\n"
    spec = Spec(
        "python", "main.py", {"main.py": f"{imports}print(1)".encode()}, stdin=b"",
        packages=() if packages is None else (packages,),
    )  # fmt: skip
    began, first = time.perf_counter(), 0.0
    async for event in backend.events(await backend.start(spec)):
        if isinstance(event, Output) and event.stream == "stdout" and not first:
            first = (time.perf_counter() - began) * 1000
        elif isinstance(event, Exited) and (event.reason, event.code) != (Reason.EXITED, 0):
            raise RuntimeError(f"a run failed: {event}")
    return first


async def measure(index: Index, sets: int, samples: int) -> dict[str, list[float]]:
    """Take all three."""
    taken: dict[str, list[float]] = {"first": [], "next": [], "none": []}
    wanted = fill(index, sets + 1)
    async with open_local(environments=EnvironmentOptions(python_index=f"{index.url}/simple")) as backend:
        await first_byte(backend, wanted[-1])  # lays out uv
        for packages in wanted[:-1]:
            await backend.warm()
            taken["first"].append(await first_byte(backend, packages))
        for number in range(samples):
            await backend.warm()
            taken["next"].append(await first_byte(backend, wanted[number % sets]))
            await backend.warm()
            taken["none"].append(await first_byte(backend, None))
    return taken


def main() -> int:
    """Print the figures; returns how many gates were missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=10)
    parser.add_argument("--samples", type=int, default=200)
    options = parser.parse_args()
    with package_index() as index:
        taken = asyncio.run(measure(index, options.first, options.samples))
    middle = {name: statistics.median(times) for name, times in taken.items()}
    for name, times in taken.items():
        print(f"{name:5} n={len(times)} p50 {middle[name]:.1f} ms, p99 {percentile(times, 0.99):.1f} ms")
    print(f"the next run begins {middle['first'] / middle['next']:.0f} times as fast as the first")
    return missed(
        [
            ("next, times a run without packages (p50)", middle["next"] / middle["none"], GATE_NEXT),
            ("next, times the first (p50)", middle["next"] / middle["first"], GATE_FIRST),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
