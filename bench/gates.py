"""Figures held against what they may be at most."""

from __future__ import annotations

from collections.abc import Sequence


def missed(gates: Sequence[tuple[str, float, float]]) -> int:
    """Print each figure (its words, its value, the most that it may be) as met or MISSED; returns how many were missed."""
    for words, value, most in gates:
        print(f"{'met   ' if value <= most else 'MISSED'} {words}: {value:.3f} (at most {most:g})")
    return sum(value > most for _, value, most in gates)
