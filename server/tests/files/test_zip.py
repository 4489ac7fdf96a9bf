"""Zips that are not what they seem are refused by name, and nothing of them stays."""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Callable

import pytest

from ..conftest import MakeGuest, session_of


def packed(fill: Callable[[zipfile.ZipFile], None]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("innocent.txt", "hello")
        fill(archive)
    return buffer.getvalue()


def link(archive: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo("shortcut")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(info, "/etc/passwd")


def encrypted() -> bytes:
    data = bytearray(packed(lambda archive: archive.writestr("secret.txt", "x")))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.rindex(signature) + offset] |= 1
    return bytes(data)


def two(first: str, second: str) -> Callable[[zipfile.ZipFile], None]:
    def fill(archive: zipfile.ZipFile) -> None:
        archive.writestr(first, "1")
        archive.writestr(second, "2")

    return fill


def many(archive: zipfile.ZipFile) -> None:
    for n in range(2_001):
        archive.writestr(f"f{n}", "")


CASES = {
    "path_traversal": packed(lambda a: a.writestr("../../evil", "x")),
    "path_absolute": packed(lambda a: a.writestr("/evil", "x")),
    "path_backslash": packed(lambda a: a.writestr("a\\b", "x")),
    "zip_symlink": packed(link),
    "zip_twins": packed(two("README.md", "readme.MD")),
    "zip_encrypted": encrypted(),
    "zip_invalid": b"this is no zip",
    "zip_too_many": packed(many),
}


@pytest.mark.parametrize("code", list(CASES))
async def test_tricks_are_refused_by_name_and_leave_nothing(guest: MakeGuest, code: str) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    await ada.refused(422, code, "POST", f"/sessions/{session_id}/import", content=CASES[code])
    assert (await ada.ok("GET", f"/sessions/{session_id}/files"))["items"] == []


async def test_a_bomb_is_found_while_it_unpacks(guest: MakeGuest) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    bomb = packed(lambda a: a.writestr("bomb", b"\0" * 20_000_000))
    assert len(bomb) < 100_000
    await ada.refused(413, "zip_bomb", "POST", f"/sessions/{session_id}/import", content=bomb)


async def test_a_zip_goes_into_a_folder_and_never_over_what_is_there(guest: MakeGuest) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    good = packed(lambda a: a.writestr("deep/er.txt", "x"))
    done = await ada.ok("POST", f"/sessions/{session_id}/import?into=box", content=good)
    assert done["paths"] == ["box/deep/er.txt", "box/innocent.txt"]
    await ada.refused(409, "path_taken", "POST", f"/sessions/{session_id}/import?into=box", content=good)
