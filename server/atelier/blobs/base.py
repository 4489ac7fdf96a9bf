"""Binary files by content: a blob's name is the SHA-256 of its bytes in hex, so putting twice keeps one.

It does not promise that a blob is used by anybody, nor that listing is possible.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol


class Blobs(Protocol):
    async def put(self, chunks: AsyncIterator[bytes], *, limit: int) -> tuple[str, int]:
        """Store a stream; returns (digest, size in bytes) once it survives a power cut.

        Raises:
            TooLarge: `blob_too_large`, the stream has more than `limit` bytes; nothing is kept.
            Unavailable: `blobs_unavailable`.
        """
        ...

    def read(self, digest: str) -> AsyncIterator[bytes]:
        """Yield the blob in chunks of at most 256 KiB. Raises NotFound `blob_not_found`."""
        ...

    async def delete(self, digest: str) -> None:
        """Remove the blob if it is there."""
        ...
