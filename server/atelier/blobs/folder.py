"""Blobs in a folder: written beside, synced, renamed, so a name always stands for whole content."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import AsyncIterator
from io import BufferedWriter
from pathlib import Path

from atelier.errors import NotFound, TooLarge, Unavailable

_CHUNK = 256 * 1024
_DIGEST = re.compile(r"[0-9a-f]{64}")


class FolderBlobs:
    """Keeps blob `abcd…` as `ab/abcd…`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def put(self, chunks: AsyncIterator[bytes], *, limit: int) -> tuple[str, int]:
        """Store a stream; see `Blobs.put`."""
        try:
            handle, name = await asyncio.to_thread(tempfile.mkstemp, ".part", "", self._folder)
        except OSError as error:
            raise _unavailable(error) from error
        digest, size = hashlib.sha256(), 0
        try:
            with os.fdopen(handle, "wb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > limit:
                        raise TooLarge(
                            "blob_too_large",
                            f"A file has at most {limit:,} bytes; this has more.",
                            next_step="Choose a smaller file.",
                        )
                    digest.update(chunk)
                    await asyncio.to_thread(file.write, chunk)
                await asyncio.to_thread(_sync, file)
            await asyncio.to_thread(self._move, Path(name), digest.hexdigest())
        except OSError as error:
            raise _unavailable(error) from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
        return digest.hexdigest(), size

    def _move(self, part: Path, digest: str) -> None:
        target = self._path(digest)
        target.parent.mkdir(exist_ok=True, mode=0o700)
        part.rename(target)
        for folder in (target.parent, self._folder):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    async def read(self, digest: str) -> AsyncIterator[bytes]:
        """Yield a blob's bytes; see `Blobs.read`."""
        try:
            file = await asyncio.to_thread(self._path(digest).open, "rb")
        except FileNotFoundError:
            raise _missing(digest) from None
        except OSError as error:
            raise _unavailable(error) from error
        with file:
            while chunk := await asyncio.to_thread(file.read, _CHUNK):
                yield chunk

    async def delete(self, digest: str) -> None:
        """Remove a blob if it is there."""
        try:
            await asyncio.to_thread(self._path(digest).unlink, True)
        except OSError as error:
            raise _unavailable(error) from error

    def _path(self, digest: str) -> Path:
        # The name comes from a document that clients write, so its shape is checked before it becomes a path.
        if not _DIGEST.fullmatch(digest):
            raise _missing(digest)
        return self._folder / digest[:2] / digest


def _sync(file: BufferedWriter) -> None:
    file.flush()
    os.fsync(file.fileno())


def _missing(digest: str) -> NotFound:
    return NotFound(
        "blob_not_found", f"There is no stored content {digest[:12]}.", next_step="Upload the file again."
    )


def _unavailable(error: OSError) -> Unavailable:
    return Unavailable(
        "blobs_unavailable",
        f"The file could not be stored or read just now ({error.strerror}).",
        next_step="Try again; if it stays, free disk space on the server.",
    )
