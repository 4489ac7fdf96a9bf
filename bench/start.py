"""How long a second start takes to its first answer (gate 3 s), and what the idle process holds (aim 150 MB)."""

from __future__ import annotations

import sys
import tempfile
import urllib.request
from pathlib import Path

import psutil

from bench.served import percentile, served

ROUNDS = 5
GATE_SECONDS = 3.0
AIM_MB = 150


def main() -> int:
    """Print start times and memory; 1 when the gate is missed."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        with served(data):
            pass
        times: list[float] = []
        memory = 0.0
        for _ in range(ROUNDS):
            with served(data) as server:
                times.append(server.start_seconds)
                with urllib.request.urlopen(f"{server.url}/readyz", timeout=5) as answer:
                    answer.read()
                memory = psutil.Process(server.pid).memory_info().rss / 2**20
                family = (
                    memory
                    + sum(
                        child.memory_info().rss
                        for child in psutil.Process(server.pid).children(recursive=True)
                    )
                    / 2**20
                )
    print(
        f"start to first answer: median {percentile(times, 0.5):.2f} s, worst {max(times):.2f} s (gate {GATE_SECONDS} s)"
    )
    print(
        f"idle memory of the process: {memory:.0f} MB (aim {AIM_MB} MB); with its warm sandboxes {family:.0f} MB"
    )
    return int(max(times) > GATE_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
