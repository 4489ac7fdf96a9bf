"""Puts files in place of others while a program runs. Standard library only, like the agent, beside which it lies."""

from __future__ import annotations

import os


def write_all(handle: int, data: bytes) -> None:
    """Write until everything is written."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


class Placing:
    """A file that is put in place of another: written beside it, then renamed, so that nobody meets half of it.

    What lies in the way (a link, a FIFO) is replaced, never opened; where the program may write, this may.
    """

    def __init__(self, work: str, path: str) -> None:
        self.path = f"{work}/{path}"
        folder = os.path.dirname(self.path)
        os.makedirs(folder, 0o755, exist_ok=True)
        self.beside = f"{folder}/.atelier-{os.getpid()}-{id(self)}"
        self.handle = os.open(self.beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        write_all(self.handle, data)

    def finish(self, keep: bool) -> None:
        """Put what was written in place, or throw it away."""
        os.close(self.handle)
        if keep:
            os.rename(self.beside, self.path)
        else:
            os.unlink(self.beside)
