"""What everything in this sandbox uses together, for a host that cannot see it from outside.

From the sandbox's own control group where it is shown inside, else added up from /proc. A host that counts for itself
never asks, so this is imported only when one does.
"""

from __future__ import annotations

import os

GROUP = "/sys/fs/cgroup"
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def used() -> dict:
    """Return CPU seconds, bytes of memory, and how often the kernel killed for memory."""
    for find in (_version_2, _version_1):
        try:
            return find()
        except (OSError, ValueError, KeyError):
            continue
    return _processes()


def _read(path: str) -> str:
    with open(f"{GROUP}/{path}") as file:
        return file.read()


def _table(path: str) -> dict:
    return {name: int(value) for name, value in (line.split() for line in _read(path).splitlines())}


def _version_2() -> dict:
    # What of files lies in memory can be dropped at any time; tmpfs is not among that.
    stat = _table("memory.stat")
    return {
        "cpu": _table("cpu.stat")["usage_usec"] / 1e6,
        "memory": int(_read("memory.current")) - stat["inactive_file"] - stat["active_file"],
        "kills": _table("memory.events")["oom_kill"],
    }


def _version_1() -> dict:
    stat = _table("memory/memory.stat")
    return {
        "cpu": int(_read("cpuacct/cpuacct.usage")) / 1e9,
        "memory": int(_read("memory/memory.usage_in_bytes"))
        - stat["total_inactive_file"]
        - stat["total_active_file"],
        "kills": _table("memory/memory.oom_control")["oom_kill"],
    }


def _processes() -> dict:
    """Add up what every process has, and what process 1 has of those that ended; memory that is shared counts each time."""
    ticks = memory = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", errors="replace") as file:
                    found = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            ticks += sum(int(field) for field in found[11:15])
            memory += int(found[21]) * PAGE
    return {"cpu": ticks / TICKS, "memory": memory, "kills": 0}
