"""Runs every benchmark in turn; each is a command of its own."""

from __future__ import annotations

import subprocess
import sys

NAMES = (
    "first_load", "start", "run_start", "two_people", "history",
    "runs.echo", "runs.cancel", "runs.flood", "runs.sustained", "runs.preloaded", "runs.cells", "runs.leftovers",
    "runs.dependencies",
)  # fmt: skip


def main() -> int:
    """Return how many benchmarks missed a gate."""
    missed = 0
    for name in NAMES:
        print(f"\n== bench.{name}", flush=True)
        missed += subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False).returncode != 0
    return missed


if __name__ == "__main__":
    sys.exit(main())
