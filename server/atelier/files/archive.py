"""Zip files in and out. What comes in is checked by name and by what it really unpacks to, all or nothing."""

from __future__ import annotations

import asyncio
import io
import stat
import tempfile
import zipfile
from collections.abc import AsyncIterator, Mapping
from typing import IO

from atelier.errors import Invalid, TooLarge
from atelier.files.paths import checked, twin_key
from atelier.limits import Limits

_CHUNK = 256 * 1024
_MOST_RATIO = 200  # a text file packs to about a tenth; beyond this it is a bomb
_SKIPPED = ("__MACOSX/", ".git/")
ZIP_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
    }
}
"""For OpenAPI: a body that is a zip."""


async def unpack(body: AsyncIterator[bytes], limits: Limits) -> dict[str, bytes]:
    """Unpack a zip that comes as a stream; returns contents by path.

    Raises:
        TooLarge: `zip_too_large`, `zip_bomb`.
        Invalid: `zip_invalid`, `zip_symlink`, `zip_encrypted`, `zip_too_many`, `zip_twins`, or a `path_…` code.
    """
    with tempfile.TemporaryFile() as file:
        size = 0
        async for chunk in body:
            size += len(chunk)
            if size > limits.session_bytes:
                raise TooLarge(
                    "zip_too_large",
                    f"A zip has at most {limits.session_bytes:,} bytes.",
                    next_step="Leave large files out.",
                )
            await asyncio.to_thread(file.write, chunk)
        return await asyncio.to_thread(_unpack, file, limits)


def _unpack(file: IO[bytes], limits: Limits) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(file) as archive:
            return _contents(archive, limits)
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        NotImplementedError,
        EOFError,
        OSError,
        ValueError,
    ) as error:
        raise Invalid(
            "zip_invalid", f"This is not a zip that can be read ({error}).", next_step="Pack it again."
        ) from None


def _contents(archive: zipfile.ZipFile, limits: Limits) -> dict[str, bytes]:
    entries = [
        e
        for e in archive.infolist()
        if not e.is_dir() and not any(skipped in f"/{e.filename}" for skipped in map("/{}".format, _SKIPPED))
    ]
    if len(entries) > limits.zip_entries:
        raise Invalid(
            "zip_too_many",
            f"A zip holds at most {limits.zip_entries} files; this has {len(entries)}.",
            next_step="Leave some out.",
        )
    found: dict[str, bytes] = {}
    keys: dict[str, str] = {}
    left = limits.session_bytes
    for entry in entries:
        # zipfile cuts names at a NUL; the name as packed is what must be judged.
        path = checked(entry.orig_filename)
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise Invalid(
                "zip_symlink",
                f"{path!r} is a symbolic link.",
                next_step="Pack the file that it points to.",
                path=path,
            )
        if entry.flag_bits & 0x1:
            raise Invalid(
                "zip_encrypted", f"{path!r} is encrypted.", next_step="Pack it without a password.", path=path
            )
        twin = keys.setdefault(twin_key(path), path)
        if path in found or twin != path:
            raise Invalid(
                "zip_twins",
                f"{path!r} and {twin!r} are one name on many systems.",
                next_step="Rename one.",
                path=path,
            )
        found[path] = _content(archive, entry, path, min(left, limits.blob_bytes))
        left -= len(found[path])
    return found


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: str, most: int) -> bytes:
    """Read an entry, believing nothing that the zip says about its size."""
    allowed = min(most, max(64 * 1024, entry.compress_size * _MOST_RATIO))
    content = bytearray()
    with archive.open(entry) as packed:
        while chunk := packed.read(min(_CHUNK, allowed + 1 - len(content))):
            content += chunk
            if len(content) > allowed:
                raise TooLarge(
                    "zip_bomb",
                    f"{path!r} unpacks to more than {allowed:,} bytes.",
                    next_step="Leave it out.",
                    path=path,
                )
    return bytes(content)


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return a zip of the files, with the same bytes for the same content."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in sorted(files.items()):
            info = zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)
    return buffer.getvalue()
