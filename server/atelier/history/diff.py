"""Two texts compared line by line: hunks with a few lines around them, bounded. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

_AROUND = 3
_MOST_LINES = 2_000  # sent
_MOST_COMPARED = 5_000  # beyond this, the changed middle is one hunk
Kind = Literal["same", "removed", "added"]
_Piece = tuple[int, int, int, int]


@dataclass(slots=True)
class Hunk:
    """Lines from 1-based line numbers on."""

    old_line: int
    new_line: int
    lines: list[tuple[Kind, str]] = field(default_factory=list)


@dataclass(slots=True)
class Diff:
    """What differs; `truncated` when there are more hunks than are in it."""

    hunks: list[Hunk]
    added: int
    removed: int
    truncated: bool


def compare(old: str, new: str) -> Diff:
    """Compare two texts."""
    first, last = old.split("\n"), new.split("\n")
    hunks: list[Hunk] = []
    pieces = list(_pieces(first, last))
    added = sum(d - c for _, _, c, d in pieces)
    removed = sum(b - a for a, b, _, _ in pieces)
    sent, truncated, at = 0, False, 0
    for number, (a, b, c, d) in enumerate(pieces):
        room = _MOST_LINES - sent
        truncated = (b - a) + (d - c) > room
        gone, come = first[a:b][:room], last[c:d][: max(0, room - (b - a))]
        start = max(at, a - _AROUND)
        if not hunks or start > at:
            hunks.append(Hunk(start + 1, c - (a - start) + 1))
        lines = hunks[-1].lines
        lines += [("same", line) for line in first[start:a]]
        lines += [("removed", line) for line in gone]
        lines += [("added", line) for line in come]
        if truncated:
            break
        following = pieces[number + 1][0] if number + 1 < len(pieces) else len(first)
        at = min(b + _AROUND, following)
        lines += [("same", line) for line in first[b:at]]
        sent += (b - a) + (d - c)
    return Diff(hunks, added, removed, truncated)


def _pieces(old: list[str], new: list[str]) -> Iterator[_Piece]:
    """Yield what differs: lines a to b of the old text are lines c to d of the new one."""
    shortest = min(len(old), len(new))
    head = 0
    while head < shortest and old[head] == new[head]:
        head += 1
    tail = 0
    while tail < shortest - head and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    first, last = old[head : len(old) - tail], new[head : len(new) - tail]
    if not first and not last:
        return
    if max(len(first), len(last)) > _MOST_COMPARED:
        yield head, head + len(first), head, head + len(last)
        return
    # With autojunk, lines that are everywhere (empty ones, braces) cost nothing; without, they cost seconds.
    for tag, a, b, c, d in difflib.SequenceMatcher(None, first, last, autojunk=True).get_opcodes():
        if tag != "equal":
            yield head + a, head + b, head + c, head + d
