"""A real server for a benchmark: started as a user would, on a scratch folder, ended with it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ATELIER = Path(sys.executable).parent / "atelier"


@dataclass(frozen=True, slots=True)
class Served:
    """A running server: where, which process, and how long it took to its first answer."""

    url: str
    pid: int
    start_seconds: float


@contextmanager
def served(data: Path | None = None, **environ: str) -> Iterator[Served]:
    """Start `atelier serve` on a free port; the time runs from the command to the first 200 of /healthz."""
    with tempfile.TemporaryDirectory() as scratch:
        begun = time.perf_counter()
        process = subprocess.Popen(
            [ATELIER, "serve", "--port", "0", "--data", str(data or scratch)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "ATELIER_LIMIT_GUESTS_PER_HOUR": "100000", **environ},
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if "ready" not in line:
                raise RuntimeError(f"the server did not start: {line!r}")
            url = line.split()[-1]
            with urllib.request.urlopen(f"{url}/healthz", timeout=5) as answer:
                answer.read()
            yield Served(url, process.pid, time.perf_counter() - begun)
        finally:
            process.terminate()
            process.wait(20)


def percentile(samples: list[float], share: float) -> float:
    """Return the sample at `share` (0 to 1) of the sorted list."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]
