"""What every blob store promises."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from atelier.blobs import Blobs, open_blobs
from atelier.errors import NotFound, TooLarge


@pytest_asyncio.fixture(params=["file"])
async def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Blobs]:
    """An open store of each kind."""
    async with open_blobs(f"file://{tmp_path}/a b/blobs".replace(" ", "%20")) as opened:
        yield opened


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def read(blobs: Blobs, digest: str) -> bytes:
    return b"".join([chunk async for chunk in blobs.read(digest)])


async def test_a_blob_is_named_by_its_content_and_kept_once(blobs: Blobs) -> None:
    content = os.urandom(700_000)
    digest, size = await blobs.put(stream(content[:10], content[10:]), limit=10**6)
    assert (digest, size) == (hashlib.sha256(content).hexdigest(), len(content))
    assert await blobs.put(stream(content), limit=10**6) == (digest, size)
    assert await read(blobs, digest) == content


async def test_what_is_too_large_leaves_nothing(blobs: Blobs, tmp_path: Path) -> None:
    with pytest.raises(TooLarge) as refused:
        await blobs.put(stream(b"x" * 60, b"y" * 60), limit=100)
    assert refused.value.code == "blob_too_large"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def test_a_stream_that_breaks_leaves_nothing(blobs: Blobs, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise ConnectionError

    with pytest.raises(Exception):  # noqa: B017
        await blobs.put(broken(), limit=100)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("digest", ["0" * 64, "../../etc/passwd", "", "A" * 64, "0" * 63 + "/"])
async def test_what_is_not_there_or_no_digest_is_not_found(blobs: Blobs, digest: str) -> None:
    with pytest.raises(NotFound) as refused:
        await read(blobs, digest)
    assert refused.value.code == "blob_not_found"


async def test_deleting_is_idempotent(blobs: Blobs) -> None:
    digest, _ = await blobs.put(stream(b"x"), limit=100)
    for _ in range(2):
        await blobs.delete(digest)
    with pytest.raises(NotFound):
        await read(blobs, digest)
