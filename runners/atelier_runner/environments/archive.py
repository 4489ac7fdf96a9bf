"""Takes an environment out of its sandbox: a stream of files, folders and links, of which nothing is believed.

    kind     1 byte: D a folder, F a file, X a file that can be run, L a link, E the end
    sizes    2 bytes of the path, 8 bytes of the content (big-endian)
    path, content

The folder it is written to is new and nobody else's, and links are made last, so that nothing is written through one; they
are followed only inside sandboxes. No owner, no time and no mode is taken over.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from atelier_runner.errors import EnvironmentFailed, SpecInvalid
from atelier_runner.model import MIB, PATH_BYTES, check_path

HEAD = struct.Struct(">BHQ")
FOLDER, FILE, PROGRAM, LINK, END = b"DFXLE"
ENTRIES = 100_000
BLOCK = 4096
"""What an entry costs on disk at least."""


class Archive:
    """`feed` it what comes, then `finish`. Raises EnvironmentFailed; both block."""

    def __init__(self, folder: Path, most_mb: int) -> None:
        self.size = 0
        self._folder = folder
        self._most_mb = most_mb
        self._waiting = bytearray()
        self._folders = {""}
        self._paths: set[str] = set()
        self._links: list[tuple[str, bytes]] = []
        self._entries = 0
        self._file = -1
        self._left = 0
        self._ended = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._waiting += data
        while self._waiting and self._step():
            pass

    def _step(self) -> bool:
        """Take one piece; says whether there was enough for it."""
        if self._ended:
            raise EnvironmentFailed("The environment came out of its sandbox with something behind its end.")
        if self._file >= 0:
            part = self._waiting[: self._left]
            view = memoryview(part)
            while view:
                view = view[os.write(self._file, view) :]
            del self._waiting[: len(part)]
            self._left -= len(part)
            if self._left == 0:
                os.close(self._file)
                self._file = -1
            return True
        if len(self._waiting) < HEAD.size:
            return False
        kind, path_size, size = HEAD.unpack_from(self._waiting)
        if kind not in (FOLDER, FILE, PROGRAM, LINK, END) or path_size > PATH_BYTES:
            raise EnvironmentFailed("The environment came out of its sandbox in no shape that is known.")
        small = size if kind == LINK else 0
        if small > PATH_BYTES:
            raise EnvironmentFailed("A link in the environment is longer than a path may be.")
        end = HEAD.size + path_size + small
        if len(self._waiting) < end:
            return False
        path = bytes(self._waiting[HEAD.size : HEAD.size + path_size])
        target = bytes(self._waiting[HEAD.size + path_size : end])
        del self._waiting[:end]
        if kind == END:
            self._ended = True
        else:
            self._enter(kind, path, size, target)
        return True

    def _enter(self, kind: int, raw: bytes, size: int, target: bytes) -> None:
        path = self._checked(raw)
        self._entries += 1
        self.size += BLOCK + (size if kind in (FILE, PROGRAM) else 0)
        if self._entries > ENTRIES:
            raise EnvironmentFailed(f"The environment has more than {ENTRIES} files.")
        if self.size > self._most_mb * MIB:
            raise EnvironmentFailed(f"The environment is larger than {self._most_mb} MiB.")
        place = self._folder / path
        if kind == FOLDER:
            self._folders.add(path)
            place.mkdir(0o755)
        elif kind == LINK:
            self._links.append((path, target))
        else:
            mode = 0o755 if kind == PROGRAM else 0o644
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            handle = os.open(place, flags, mode)
            if size:
                self._file, self._left = handle, size
            else:
                os.close(handle)

    def _checked(self, raw: bytes) -> str:
        """Return a path that is plain, new, and beneath a folder that came before."""
        try:
            path = raw.decode()
            check_path(path)
        except (UnicodeDecodeError, SpecInvalid):
            raise EnvironmentFailed("A path in the environment is none.") from None
        if path in self._paths or path.rpartition("/")[0] not in self._folders:
            raise EnvironmentFailed(f"The environment has {path[:80]!r} twice, or without its folder.")
        self._paths.add(path)
        return path

    def finish(self) -> None:
        """Make the links, once everything has come."""
        if not self._ended:
            raise EnvironmentFailed("The environment did not come out of its sandbox whole.")
        for path, target in self._links:
            os.symlink(target, os.fsencode(self._folder / path))

    def close(self) -> None:
        """Let go of a file that did not come whole."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
