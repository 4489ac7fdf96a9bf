"""What a process tree uses, read from /proc: the fallback where no cgroup counts it, and less exact.

A process that ended between two looks is counted only through its parent's `cutime`; memory that processes share is
counted once per process. Hence "partial", never "enforced".
"""

from __future__ import annotations

import os
from dataclasses import dataclass

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class TreeUsage:
    cpu_seconds: float
    memory_bytes: int
    processes: int


def tree_usage(root: int) -> TreeUsage:
    """Sum what `root` and its descendants use."""
    stats = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := _stat(name)) is not None:
            stats[int(name)] = fields
    children: dict[int, list[int]] = {}
    for pid, fields in stats.items():
        children.setdefault(int(fields[1]), []).append(pid)
    ticks = memory = count = 0
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        waiting += children.get(pid, [])
        if (found := stats.get(pid)) is not None:
            # utime, stime, cutime, cstime; resident pages. Numbers are proc(5)'s, from the state field on.
            ticks += sum(int(field) for field in found[11:15])
            memory += int(found[21]) * _PAGE
            count += 1
    return TreeUsage(ticks / _TICKS, memory, count)


def _stat(pid: str) -> list[str] | None:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return None
