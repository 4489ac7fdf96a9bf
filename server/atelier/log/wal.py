"""SQLite's write-ahead log as a file: made long beforehand, synced by a thread of its own, and measured.

The file is filled with zeros up to where it will be moved into the database. A file that grows has its length written
with each sync; one that is long already takes a third of the CPU and a tenth of the time. SQLite minds nothing that
lies behind the last frame, since each frame carries a salt and a checksum, and begins at the front again after a
checkpoint (https://www.sqlite.org/walformat.html, which also says where the number of frames is found).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path

CHECKPOINT_BYTES = 8 * 1024 * 1024
"""A log that is longer than this is moved into the database."""
_AHEAD = CHECKPOINT_BYTES + 512 * 1024
_FRAMES_AT = 16
_HEADER = 32
_FRAME = 4096 + 24

Done = Callable[[OSError | None], None]


class Wal:
    """The log beside the database `path`, which a connection has open and has written to."""

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._file = os.open(f"{path}-wal", os.O_RDWR | os.O_CLOEXEC)
        # Closed only after every connection: closing a file lets go of the locks that SQLite has on it.
        self._index = os.open(f"{path}-shm", os.O_RDONLY | os.O_CLOEXEC)
        size = os.fstat(self._file).st_size
        with contextlib.suppress(OSError):  # a full disk: it grows as it can
            os.pwrite(self._file, bytes(max(0, _AHEAD - size)), size)
        os.fsync(self._file)
        _sync_folder(path.parent)
        self._asked: queue.SimpleQueue[Done | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="log-sync", daemon=True)
        self._thread.start()

    def used(self) -> int:
        """Return how many bytes of it hold something that is in use, or was until the last checkpoint."""
        return _HEADER + _FRAME * int.from_bytes(os.pread(self._index, 4, _FRAMES_AT), sys.byteorder)

    def sync(self, done: Done) -> None:
        """Sync what has been written so far, in the thread; then call `done` on the loop."""
        self._asked.put(done)

    def _work(self) -> None:
        while (done := self._asked.get()) is not None:
            failure: OSError | None = None
            try:
                os.fdatasync(self._file)
            except OSError as error:
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(done, failure)

    def sync_now(self) -> None:
        """Sync, and wait for it.

        Raises:
            OSError: it failed; what was written may be lost.
        """
        os.fdatasync(self._file)

    def end(self) -> None:
        """End the thread, once it has done what it was asked for."""
        self._asked.put(None)
        self._thread.join()

    def close(self) -> None:
        """Let go of the files; every connection has been closed."""
        os.close(self._file)
        os.close(self._index)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
