"""Looking into a SQLite log beside the server that has it open; nothing is written."""

from __future__ import annotations

import asyncio
from pathlib import Path

from atelier.log.archive import Archive
from atelier.log.base import Entry, Kept, Stored


class SqliteReader:
    """The reading half of the port `Log`. Made by `open_reader`."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise FileNotFoundError(f"there is no log at {path}")
        self._archive = Archive(path)

    async def read(self, document: str) -> Stored:
        """Return the newest snapshot and what came after it."""
        return await asyncio.to_thread(self._archive.read, document)

    async def history(self, document: str, after: int = 0, limit: int = 5_000) -> tuple[Entry, ...]:
        """Return every edit after a position, oldest first."""
        return await asyncio.to_thread(self._archive.history, document, after, limit)

    async def read_at(self, document: str, position: int) -> Stored:
        """Return the document as it was at a position."""
        return await asyncio.to_thread(self._archive.read_at, document, position)

    async def survey(self, prefix: str = "") -> list[Kept]:
        """List the documents whose name begins with `prefix`."""
        return await asyncio.to_thread(self._archive.survey, prefix)

    def close(self) -> None:
        """Let go of the file."""
        self._archive.close()
