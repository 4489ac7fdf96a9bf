"""Samples as a table, and figures held against what they may be at most."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence


def missed(gates: Sequence[tuple[str, float, float]]) -> int:
    """Print each figure (its words, its value, the most that it may be) as met or MISSED; returns how many were missed."""
    for words, value, most in gates:
        print(f"{'met   ' if value <= most else 'MISSED'} {words}: {value:.3f} (at most {most:g})")
    return sum(value > most for _, value, most in gates)


def percentiles(taken: Mapping[str, Sequence[float]]) -> None:
    """Print a line for each name with its samples' percentiles; at least two samples each."""
    print(f"{'':6} {'p50':>8} {'p95':>8} {'p99':>8} {'worst':>8}")
    for name, values in taken.items():
        cuts = statistics.quantiles(values, n=100)
        print(f"{name:6} {cuts[49]:8.2f} {cuts[94]:8.2f} {cuts[98]:8.2f} {max(values):8.2f}")
