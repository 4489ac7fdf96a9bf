"""Finds what a program wrote into the working folder and sends it: new files, changed ones, and which are gone.

At the end it works when nothing of the program runs any more, and all the same as if something did: each entry is first held by
a descriptor that opens nothing (O_PATH, no link followed), looked at through it, and only a regular file or a folder
is then opened, through that very descriptor. What has changed is known by its bytes: times can be set, and a mapped
page of a tmpfs changes without touching them. Everything is bounded; what is left out is counted, the first are named.
A look while the program runs trusts times for what it has seen before, so that it can be had every second.

Standard library only, like the agent, beside which it lies in the sandbox.
"""

from __future__ import annotations

import os
import stat
import time
from _blake2 import blake2b
from _struct import Struct

import plain_json  # type: ignore[import-not-found]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 128 * 1024
DEPTH = 48
SETTLED = 50_000_000  # nanoseconds, some ticks of the clock that stamps files
PATH_BYTES = 1024
NAMED = 50  # of what is left out; the rest is a number
NAME_AND_SIZE = Struct(">HQ")
HOLD = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Laid:
    """What the host knows: size and digest by path. `stamps`: how a file looked when it was last read as such."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[int, bytes]] = {}
        self.stamps: dict[str, tuple[int, int, int]] = {}
        self._path: str | None = None

    def begin(self, path: str, data: bytes) -> None:
        """Note a file's first bytes."""
        self.end()
        self._path, self._size, self._digest = path, len(data), blake2b(data)

    def add(self, data: bytes) -> None:
        """Note more of the file that was begun last."""
        self._size += len(data)
        self._digest.update(data)

    def end(self) -> None:
        """The last file is complete."""
        if self._path is not None:
            self.files[self._path] = (self._size, self._digest.digest())
            self.stamps.pop(self._path, None)
            self._path = None

    def forget(self, path: str) -> None:
        """A file is gone, and the host knows."""
        self.files.pop(path, None)
        self.stamps.pop(path, None)


def collect(
    work: str, wanted: dict, laid: Laid, send: Callable[[bytes, bytes], None], *, live: bool = False
) -> None:
    """Send what has changed beneath `work`, then the summary; `live`: the program goes on."""
    root = os.open(work, HOLD | os.O_DIRECTORY)
    walk = Walk(wanted, laid, send, live)
    walk.folder(root, "", 0)
    for path in [
        path for path in laid.files if path not in walk.sent
    ]:  # one that just went is told the next time
        if not any(walk.ignored(part) for part in path.split("/")) and is_gone(root, path):
            send(b"D", path.encode())
            laid.forget(path)
    os.close(root)
    named = [[path.encode(errors="replace").decode()[:PATH_BYTES], why] for path, why in walk.named]
    send(b"L", plain_json.dumps({"left_out": named, "count": walk.count}))


def can_be_said(path: str) -> bool:
    """Say whether a path is UTF-8 and no longer than paths may be."""
    try:
        return len(path.encode()) <= PATH_BYTES
    except UnicodeEncodeError:
        return False


def is_gone(root: int, path: str) -> bool:
    """Say whether nothing is at a path any more; where that cannot be told, it counts as there."""
    try:
        os.stat(path, dir_fd=root, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


class Walk:
    """One walk over the folder, with what it may still take."""

    def __init__(
        self, wanted: dict, laid: Laid, send: Callable[[bytes, bytes], None], live: bool = False
    ) -> None:
        self.files = wanted["files"]
        self.file_bytes = wanted["file_bytes"]
        self.bytes = wanted["total_bytes"]
        self.entries = wanted["entries"]
        self.names = frozenset(name for name in wanted["ignored"] if not name.startswith("*"))
        self.endings = tuple(name[1:] for name in wanted["ignored"] if name.startswith("*"))
        self.laid = laid
        self.live = live
        self.sent: set[str] = set()
        self.send = send
        self.named: list[tuple[str, str]] = []
        self.count = 0

    def ignored(self, name: str) -> bool:
        """Say whether nobody wants an entry of this name back."""
        return name in self.names or (bool(self.endings) and name.endswith(self.endings))

    def leave_out(self, path: str, why: str) -> None:
        """Count what does not come back."""
        self.count += 1
        if len(self.named) < NAMED:
            self.named.append((path, why))

    def folder(self, held: int, prefix: str, depth: int) -> None:
        """Walk a folder that is held, in the order of its names."""
        opened = reopen(held, os.O_RDONLY | os.O_DIRECTORY, 0o700)
        try:
            names = []
            with os.scandir(opened) as entries:
                for entry in entries:
                    if self.entries == 0:
                        self.leave_out(prefix, "too_many")
                        break
                    self.entries -= 1
                    names.append(entry.name)
            for name in sorted(names):
                if not self.ignored(name):
                    self.entry(opened, name, prefix + name, depth)
        finally:
            os.close(opened)

    def entry(self, folder: int, name: str, path: str, depth: int) -> None:
        """Look at one entry without opening it, and take it if it is a plain file."""
        if not can_be_said(path):
            self.leave_out(path, "name")
            return
        held = -1
        try:
            held = os.open(name, HOLD, dir_fd=folder)
            status = os.fstat(held)
            if stat.S_ISDIR(status.st_mode):
                if depth < DEPTH:
                    self.folder(held, path + "/", depth + 1)
                else:
                    self.leave_out(path, "too_deep")
            elif stat.S_ISLNK(status.st_mode):
                self.leave_out(path, "link")
            elif not stat.S_ISREG(status.st_mode):
                self.leave_out(path, "special")
            elif status.st_nlink != 1:
                self.leave_out(path, "hard_link")
            else:
                self.file(held, path, status)
        except OSError:
            self.leave_out(path, "unreadable")
        finally:
            if held >= 0:
                os.close(held)

    def file(self, held: int, path: str, status: os.stat_result) -> None:
        """Send a file unless it is as the host knows it."""
        size = status.st_size
        known = self.laid.files.get(path)
        stamp = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        if self.live and known is not None and known[0] == size and self.laid.stamps.get(path) == stamp:
            return
        settled = (
            time.time_ns() - status.st_ctime_ns > SETTLED
        )  # else it may change without its times doing so
        opened = reopen(held, os.O_RDONLY | os.O_NONBLOCK, 0o600)
        try:
            if known is not None and known[0] == size and known[1] == digest(opened):
                if settled:
                    self.laid.stamps[path] = stamp
                return
            if size > self.file_bytes:
                self.leave_out(path, "too_large")
            elif self.files == 0:
                self.leave_out(path, "too_many")
            elif size > self.bytes:
                self.leave_out(path, "too_much")
            else:
                self.files -= 1
                self.bytes -= size
                os.lseek(opened, 0, os.SEEK_SET)
                self.sent.add(path)
                found = self.pass_on(opened, path.encode(), size)
                self.laid.files[path] = (size, found)
                self.laid.stamps.pop(path, None)
                if settled:
                    self.laid.stamps[path] = stamp
        finally:
            os.close(opened)

    def pass_on(self, opened: int, name: bytes, size: int) -> bytes:
        """Send a file's bytes; returns the digest of what was sent. What becomes shorter meanwhile is filled with zeros."""
        found = blake2b()
        kind, head = b"N", NAME_AND_SIZE.pack(len(name), size) + name
        while True:
            part = os.read(opened, min(CHUNK, size)) or bytes(min(CHUNK, size))
            self.send(kind, head + part)
            found.update(part)
            kind, head = b"A", b""
            size -= len(part)
            if size <= 0:
                return found.digest()


def reopen(held: int, flags: int, mode: int) -> int:
    """Open what a descriptor holds; where its mode forbids that, the mode is changed first: it is the program's own."""
    place = f"/proc/self/fd/{held}"
    flags |= os.O_CLOEXEC
    try:
        return os.open(place, flags)
    except PermissionError:
        os.chmod(place, mode)
        return os.open(place, flags)


def digest(opened: int) -> bytes:
    """Return the digest of a file's content."""
    found = blake2b()
    while part := os.read(opened, CHUNK):
        found.update(part)
    return found.digest()
