"""Binary files, chosen by URL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from atelier.blobs.base import Blobs
from atelier.blobs.folder import FolderBlobs

__all__ = ["Blobs", "open_blobs"]


@asynccontextmanager
async def open_blobs(url: str) -> AsyncIterator[Blobs]:
    """Open `url`: file:///FOLDER.

    Raises:
        ValueError: another scheme.
    """
    parts = urlsplit(url)
    if parts.scheme != "file":
        raise ValueError(f"blobs are file://, not {parts.scheme}://")
    yield FolderBlobs(Path(unquote(parts.path)))
