"""One driver over control groups in any arrangement: v2, v1, both at once (hybrid), or none.

Each controller (cpu, memory, pids) lives in exactly one hierarchy; which one is read from /proc. A `Groups` makes its
own folder beneath the group that this process is in, in every hierarchy that it needs, and beneath it one folder per
sandbox. What cannot be made is left out and its limit reported as missing: `Groups.controllers` says what is there.

In v2 a group that holds processes cannot hand controllers to groups beneath it, so if this process is alone in its
group it moves into a group `server` first; otherwise v2 counts as not delegated. Attaching a process costs some
10 ms of waiting, once for all hierarchies, so a sandbox is attached when it is made, and a run only writes limits. All sandboxes share one
group's weight of the CPU, so that many busy ones together do not push the server aside.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

CONTROLLERS = ("cpu", "cpuacct", "memory", "pids")
PREFIX = "atelier-"


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted hierarchy: `own` is the folder of this process's group in it."""

    version: int
    own: Path
    controllers: frozenset[str]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a group has used; None where nothing counts it."""

    cpu_seconds: float | None
    peak_memory_bytes: int | None
    oom_kills: int | None


def hierarchies(mounts: str, membership: str, *, root: Path = Path("/")) -> list[Hierarchy]:
    """Parse /proc/self/mounts and /proc/self/cgroup; leaves out what this process cannot see a folder of."""
    groups: dict[str, str] = {}
    for line in membership.splitlines():
        _number, names, path = line.split(":", 2)
        for name in names.split(","):
            groups[name] = path
    found = []
    for line in mounts.splitlines():
        _device, where, kind, options, *_rest = line.split(" ")
        mount = root / where.replace("\\040", " ").lstrip("/")
        if kind == "cgroup2":
            own = _beneath(mount, groups.get("", "/"))
            offered = _read(own / "cgroup.controllers") or ""
            # v2 counts CPU time in every group, whatever is delegated.
            found.append(Hierarchy(2, own, frozenset(offered.split()) & {"cpu", "memory", "pids"}))
        elif kind == "cgroup":
            named = [name for name in options.split(",") if name in CONTROLLERS]
            if named:
                found.append(Hierarchy(1, _beneath(mount, groups.get(named[0], "/")), frozenset(named)))
    return [h for h in found if h.controllers]


def _beneath(mount: Path, path: str) -> Path:
    """Return a group's folder, or the mount itself where only a part of the hierarchy is mounted."""
    own = mount / path.lstrip("/")
    return own if own.is_dir() else mount


class Groups:
    """This process's folder in every usable hierarchy. Close it when all its groups are gone."""

    def __init__(self, found: Iterable[Hierarchy], name: str | None = None) -> None:
        self.name = name or f"{PREFIX}{os.getpid()}-{secrets.token_hex(3)}"
        self._folders: dict[str, tuple[int, Path]] = {}
        self.missing: dict[str, str] = {}
        """Controller to the reason why it is not there."""
        self._here: Path | None = None
        """This process's own group in one of the hierarchies."""
        for hierarchy in found:
            self._take(hierarchy)
        for controller in CONTROLLERS:
            if controller not in self._folders:
                self.missing.setdefault(controller, "no such cgroup hierarchy is mounted")

    @classmethod
    def of_this_process(cls) -> Groups:
        """Use whatever this machine has."""
        mounts = _read(Path("/proc/self/mounts")) or ""
        membership = _read(Path("/proc/self/cgroup")) or ""
        return cls(hierarchies(mounts, membership))

    @property
    def controllers(self) -> dict[str, int]:
        """Controller to the cgroup version that enforces it."""
        return {name: version for name, (version, _) in self._folders.items()}

    def _take(self, hierarchy: Hierarchy) -> None:
        folder = hierarchy.own / self.name
        try:
            _sweep(hierarchy.own)
            here = hierarchy.own
            if hierarchy.version == 2:
                here = self._delegate(hierarchy.own, hierarchy.controllers)
            folder.mkdir()
            if hierarchy.version == 2:
                _write(
                    folder / "cgroup.subtree_control",
                    " ".join(f"+{name}" for name in sorted(hierarchy.controllers)),
                )
        except OSError as error:
            with contextlib.suppress(OSError):
                folder.rmdir()
            for name in hierarchy.controllers:
                self.missing[name] = f"{hierarchy.own}: {error.strerror}"
            return
        self._here = here
        for name in hierarchy.controllers:
            self._folders[name] = (hierarchy.version, folder)
        if hierarchy.version == 2:
            self._folders.setdefault("cpuacct", (2, folder))

    def _delegate(self, own: Path, controllers: frozenset[str]) -> Path:
        """Let groups beneath `own` have the controllers; moves this process one down if it is alone there.

        Returns the group in which it is then.
        """
        wanted = controllers - set((_read(own / "cgroup.subtree_control") or "").split())
        if not wanted:
            return own
        line = " ".join(f"+{name}" for name in sorted(wanted))
        try:
            _write(own / "cgroup.subtree_control", line)
        except OSError as error:
            alone = (_read(own / "cgroup.procs") or "").split() == [str(os.getpid())]
            if error.errno != errno.EBUSY or not alone:
                raise
            server = own / f"{PREFIX}server"
            server.mkdir(exist_ok=True)
            _write(server / "cgroup.procs", str(os.getpid()))
            _write(own / "cgroup.subtree_control", line)
            return server
        return own

    def prime(self) -> None:
        """Move this process to where it is: the first move for a while waits some 10 ms in the kernel, the next do not.

        So an `attach` that comes after this, begun beside other work, need not wait.
        """
        if self._here is not None:
            with contextlib.suppress(OSError):
                _write(self._here / "cgroup.procs", str(os.getpid()))

    def make(self, name: str) -> Group:
        """Make the group of one sandbox, empty and without limits."""
        folders: dict[Path, int] = {}
        for version, parent in self._folders.values():
            folders[parent / name] = version
        for folder in folders:
            folder.mkdir()
        places = {
            controller: (version, parent / name) for controller, (version, parent) in self._folders.items()
        }
        return Group(places)

    def close(self) -> None:
        """Remove the folders; a group beneath that is not empty stays until the next start sweeps it."""
        for folder in {folder for _, folder in self._folders.values()}:
            _remove_tree(folder)
        self._folders.clear()


class Group:
    """The control group of one sandbox: a folder per hierarchy."""

    def __init__(self, places: dict[str, tuple[int, Path]]) -> None:
        self._places = places
        self._base_cpu = 0.0

    @property
    def folders(self) -> set[Path]:
        """Every folder that this group has."""
        return {folder for _, folder in self._places.values()}

    def attach(self, pid: int) -> None:
        """Put a process, and so its future children, under this group. Slow: see the module's docstring."""
        for folder in self.folders:
            _write(folder / "cgroup.procs", str(pid))

    def limit(self, *, memory_bytes: int, processes: int) -> None:
        """Set or change the limits; quick."""
        if (place := self._places.get("memory")) is not None:
            version, folder = place
            if version == 2:
                _write(f"{folder}/memory.max", str(memory_bytes))
                _write_if_there(f"{folder}/memory.swap.max", "0")
                _write_if_there(f"{folder}/memory.oom.group", "0")
            else:
                # memory+swap may never be below memory: which is written first depends on the direction of change.
                names = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]
                try:
                    _write(f"{folder}/{names[0]}", str(memory_bytes))
                    _write_if_there(f"{folder}/{names[1]}", str(memory_bytes))
                except OSError:
                    _write_if_there(f"{folder}/{names[1]}", str(memory_bytes))
                    _write(f"{folder}/{names[0]}", str(memory_bytes))
        if (place := self._places.get("pids")) is not None:
            _write(f"{place[1]}/pids.max", str(processes))

    def begin(self) -> None:
        """Count from here on: a warm sandbox has used something while it was made."""
        self._base_cpu += self.cpu_seconds() or 0.0
        if (place := self._places.get("memory")) is not None:
            name = "memory.peak" if place[0] == 2 else "memory.max_usage_in_bytes"
            with contextlib.suppress(OSError):  # memory.peak can be reset since Linux 6.12 only
                _write_if_there(f"{place[1]}/{name}", "0")

    def cpu_seconds(self) -> float | None:
        """Return the CPU time of everything that ever was in the group, since `begin`."""
        if (place := self._places.get("cpuacct")) is None:
            return None
        version, folder = place
        if version == 2:
            used = _field(f"{folder}/cpu.stat", "usage_usec")
            return None if used is None else used / 1e6 - self._base_cpu
        text = _read(f"{folder}/cpuacct.usage")
        return None if text is None else int(text) / 1e9 - self._base_cpu

    def usage(self) -> Usage:
        """Return what has been used so far."""
        peak: int | None = None
        kills: int | None = None
        if (place := self._places.get("memory")) is not None:
            version, folder = place
            names = ("memory.peak", "memory.current") if version == 2 else ("memory.max_usage_in_bytes",)
            text = next((text for name in names if (text := _read(f"{folder}/{name}")) is not None), None)
            peak = None if text is None else int(text)
            kills = _field(
                f"{folder}/{'memory.events' if version == 2 else 'memory.oom_control'}", "oom_kill"
            )
        return Usage(self.cpu_seconds(), peak, kills)

    def kill(self) -> None:
        """Kill everything in the group where the kernel can (v2); elsewhere the pid namespace does it."""
        for version, folder in self._places.values():
            if version == 2:
                with contextlib.suppress(OSError):
                    _write_if_there(folder / "cgroup.kill", "1")

    def remove(self) -> bool:
        """Remove the folders; returns False while something in them still dies."""
        for folder in self.folders:
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                return False
        return True


def _sweep(own: Path) -> None:
    """Remove what a server that was killed has left: its sandboxes died with it, their empty groups did not."""
    for folder in own.glob(f"{PREFIX}*-*"):
        pid = folder.name.removeprefix(PREFIX).split("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            _remove_tree(folder)


def _remove_tree(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for child in folder.iterdir():
            if child.is_dir():
                with contextlib.suppress(OSError):
                    child.rmdir()
        folder.rmdir()


def _read(path: Path | str) -> str | None:
    # Plain calls: a run reads a dozen of these.
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    parts = []
    try:
        while part := os.read(handle, 65536):
            parts.append(part)
    except OSError:
        return None
    finally:
        os.close(handle)
    return b"".join(parts).decode()


def _field(path: Path | str, name: str) -> int | None:
    for line in (_read(path) or "").splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return None


def _write(path: Path | str, text: str) -> None:
    # One write: the kernel takes each as a command. Never creates: a missing file is a missing feature.
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)


def _write_if_there(path: Path | str, text: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        _write(path, text)
