"""What a container has used: read from its control group where this machine shows it, else asked of the engine.

Both keep the last figures that they got, since a container's group goes away with it, a moment after its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from atelier_runner.cgroups import Group, Usage, hierarchies

Ask = Callable[[], Awaitable[dict[str, Any]]]


def group_of(container: str, pid: int) -> Group | None:
    """Return a container's control group, if its process is one of this machine's and every needed file can be read.

    The engine may be elsewhere, or in another pid namespace: only a group that carries the container's name counts.
    """
    try:
        membership = Path("/proc", str(pid), "cgroup").read_text()
        mounts = Path("/proc/self/mounts").read_text()
    except OSError:
        return None
    places: dict[str, tuple[int, Path]] = {}
    for hierarchy in hierarchies(mounts, membership):
        if container in str(hierarchy.own):
            for name in hierarchy.controllers:
                places[name] = (hierarchy.version, hierarchy.own)
            if hierarchy.version == 2:
                places.setdefault("cpuacct", (2, hierarchy.own))
    if not {"cpuacct", "memory", "pids"} <= places.keys():
        return None
    group = Group(places)
    usage = group.usage()
    return None if usage.cpu_seconds is None or usage.oom_kills is None else group


class GroupMeter:
    """Reads the group's own files; microseconds."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._last = Usage(0.0, 0, 0)
        self._killed = 0

    def begin(self) -> None:
        """Count from here on."""
        self._group.begin()

    def cpu_seconds(self) -> float:
        """Return the CPU time of all processes together."""
        return self.usage().cpu_seconds or 0.0

    def usage(self) -> Usage:
        """Return what has been used so far."""
        now, last = self._group.usage(), self._last
        self._last = Usage(
            last.cpu_seconds if now.cpu_seconds is None else now.cpu_seconds,
            last.peak_memory_bytes if now.peak_memory_bytes is None else now.peak_memory_bytes,
            (last.oom_kills if now.oom_kills is None else now.oom_kills) or self._killed,
        )
        return self._last

    def killed(self) -> None:
        """Take note that the kernel killed process 1 for memory, which the group cannot tell any more."""
        self._killed = 1

    async def measure(self) -> None:
        """Read once more."""
        self.usage()

    def limit(self, memory_bytes: int, processes: int) -> bool:
        """Write the limits, which is quicker than the engine; returns False where this user may not.

        Raises:
            OSError: the memory limit is below what is used already.
        """
        places = [folder for folder in self._group.folders if not os.access(folder / "cgroup.procs", os.W_OK)]
        if places:
            return False
        self._group.limit(memory_bytes=memory_bytes, processes=processes)
        return True


class StatsMeter:
    """Keeps what the engine said last; the sandbox asks it several times a second while a program runs."""

    by = "counted by the engine, asked five times a second"

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._last = Usage(0.0, 0, 0)
        self._base_cpu = 0.0
        self._killed = 0

    def begin(self) -> None:
        """Count from here on."""
        self._base_cpu += self._last.cpu_seconds or 0.0
        self._last = Usage(0.0, 0, self._killed)

    def cpu_seconds(self) -> float:
        """Return the CPU time of all processes together, as it was a moment ago."""
        return self._last.cpu_seconds or 0.0

    def usage(self) -> Usage:
        """Return what had been used a moment ago."""
        return Usage(self._last.cpu_seconds, self._last.peak_memory_bytes, self._killed)

    def killed(self) -> None:
        """Take note that the kernel killed a process for memory."""
        self._killed += 1

    async def measure(self) -> None:
        """Ask the engine; a container that has ended counts nothing any more."""
        found = await self._ask()
        with contextlib.suppress(KeyError, TypeError, ValueError):
            cpu = float(found["cpu_stats"]["cpu_usage"]["total_usage"]) / 1e9 - self._base_cpu
            memory = found["memory_stats"]
            peak = int(
                memory.get("max_usage", memory.get("usage", 0))
            )  # v2 has no highest value: the highest seen
            self._last = Usage(
                max(cpu, self._last.cpu_seconds or 0.0),
                max(peak, self._last.peak_memory_bytes or 0),
                self._killed,
            )

    def limit(self, memory_bytes: int, processes: int) -> bool:
        """Leave it to the engine."""
        return False


class KillWatch:
    """Tells meters when the kernel kills in their container for memory. Its thread starts when it is first needed."""

    def __init__(self, kills: Callable[[], tuple[Iterator[str], Callable[[], None]]]) -> None:
        self._kills = kills
        self._told: dict[str, Callable[[], None]] = {}
        self._thread: threading.Thread | None = None
        self._end: Callable[[], None] | None = None

    def tell(self, container: str, killed: Callable[[], None]) -> None:
        """Call `killed` in this event loop each time."""
        self._told[container] = killed
        if self._thread is None or not self._thread.is_alive():
            loop = asyncio.get_running_loop()
            self._thread = threading.Thread(
                target=self._listen, args=(loop,), name="atelier-docker-kills", daemon=True
            )
            self._thread.start()

    def forget(self, container: str) -> None:
        """Stop telling."""
        self._told.pop(container, None)

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(Exception):  # the engine went away; the next container starts a new thread
            containers, self._end = self._kills()
            for container in containers:
                loop.call_soon_threadsafe(self._killed, container)

    def _killed(self, container: str) -> None:
        if (killed := self._told.get(container)) is not None:
            killed()

    def close(self) -> None:
        """End the thread."""
        if self._end is not None:
            with contextlib.suppress(OSError):
                self._end()
        if self._thread is not None:
            self._thread.join(2)
