"""Bodies have a bound, whether they say their length or not; uploads stream."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2

from .conftest import MakeGuest, session_of

MOST = 2 * 1024 * 1024


async def chunks() -> AsyncIterator[bytes]:
    for _ in range(40):
        yield b" " * 65_536


async def test_a_long_body_is_refused_by_its_length_and_while_it_comes(client: httpx2.AsyncClient) -> None:
    for content in (b" " * (MOST + 1), chunks()):
        answer = await client.post(
            "/api/v1/guests", content=content, headers={"content-type": "application/json"}
        )
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_an_upload_may_be_longer(guest: MakeGuest) -> None:
    ada = await guest()
    made = await ada.ok(
        "PUT", f"/sessions/{await session_of(ada)}/files/large.bin", content=b"\0" * (MOST + 1)
    )
    assert made["size"] == MOST + 1


async def test_a_file_beyond_the_limit_is_refused_by_name(guest: MakeGuest) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    await ada.refused(
        413,
        "blob_too_large",
        "PUT",
        f"/sessions/{session_id}/files/huge.bin",
        content=b"\0" * (26 * 1024 * 1024),
    )
    assert (await ada.ok("GET", f"/sessions/{session_id}/files"))["items"] == []
