"""Processes as /proc shows them: what a tree uses, and what a killed server left behind.

The first is the fallback where no cgroup counts, and less exact. A process that ended between two looks is counted only through its parent's `cutime`; memory that processes share is
counted once per process. Hence "partial", never "enforced".
"""

from __future__ import annotations

import contextlib
import os
import signal
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


def tree_memory(root: int) -> int:
    """Return the bytes that `root` and its descendants hold, each page shared out among those that have it (PSS)."""
    total, waiting = 0, [root]
    while waiting:
        pid = waiting.pop()
        try:
            with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
                waiting += map(int, file.read().split())
            total += _pss(pid)
        except OSError:
            continue  # it has ended, or the kernel does not say
    return total


def _pss(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            for line in file:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
    except PermissionError:  # it is another user's, and this is not root
        pass
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * _PAGE


def kill_orphans(program: str, mark: str) -> int:
    """Kill processes of `program` with a word that begins with `mark` on their command line that have lost their parent; returns how many.

    bubblewrap binds its child to itself a moment after making it. If the server is killed in between, that child waits
    for a word from its parent for ever; it has not begun to set the sandbox up, and nothing of it runs.
    """
    if os.getpid() == 1:
        return 0  # here process 1 is a parent like any other
    killed = 0
    for name in os.listdir("/proc"):
        if not name.isdigit() or (fields := _stat(name)) is None or fields[1] != "1":
            continue
        with contextlib.suppress(OSError):
            with open(f"/proc/{name}/cmdline", "rb") as file:
                line = os.fsdecode(file.read()).split("\0")
            if line[0] == program and any(word.startswith(mark) for word in line):
                os.kill(int(name), signal.SIGKILL)
                killed += 1
    return killed


def _stat(pid: str) -> list[str] | None:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return None
