"""Mail goes out over real SMTP, or into the log; the reset link in it works once."""

from __future__ import annotations

import asyncio
import dataclasses
import email
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from atelier.errors import Unavailable
from atelier.mail import open_mail
from atelier.settings import Settings

from ..conftest import client_of, running


@asynccontextmanager
async def smtp_server() -> AsyncIterator[tuple[int, asyncio.Queue[str]]]:
    """A small mail server: says what SMTP says, keeps what it is given."""
    mails: asyncio.Queue[str] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready\r\n")
        while line := (await reader.readline()).decode().strip():
            verb = line.split()[0].upper()
            if verb == "DATA":
                writer.write(b"354 go on\r\n")
                mails.put_nowait((await reader.readuntil(b"\r\n.\r\n")).decode())
            writer.write(b"221 bye\r\n" if verb == "QUIT" else b"250 ok\r\n")
            if verb == "QUIT":
                break
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], mails


async def test_smtp_delivers_what_was_sent() -> None:
    async with (
        smtp_server() as (port, mails),
        open_mail(f"smtp://127.0.0.1:{port}", "Atelier <a@b.org>") as mail,
    ):
        await mail.send("ada@example.org", "Grüße", "Zeile 1\n")
        message = email.message_from_string(await mails.get())
    assert message["To"] == "ada@example.org"
    assert message["From"] == "Atelier <a@b.org>"
    payload = message.get_payload(decode=True)
    assert isinstance(payload, bytes)
    assert payload.decode().strip().startswith("Zeile 1")


async def test_a_server_that_is_away_is_said() -> None:
    async with open_mail("smtp://127.0.0.1:1", "a@b.org") as mail:
        with pytest.raises(Unavailable) as refused:
            await mail.send("ada@example.org", "x", "y")
    assert refused.value.code == "mail_unavailable"


async def test_another_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="smtp://"):
        async with open_mail("pigeon://x", "a@b.org"):
            pass


@pytest.mark.parametrize("known", [True, False])
async def test_a_reset_link_is_mailed_to_who_has_an_account_and_works_once(
    settings: Settings, known: bool
) -> None:
    async with smtp_server() as (port, mails):
        mailing = dataclasses.replace(settings, mail_url=f"smtp://127.0.0.1:{port}")
        async with running(mailing) as app, client_of(app) as client:
            account = {"email": "ada@example.org", "password": "the old password", "display_name": "Ada"}
            await client.post("/api/v1/users", json=account)
            client.cookies.clear()
            asked = "ada@example.org" if known else "nobody@example.org"
            assert (await client.post("/api/v1/password-resets", json={"email": asked})).status_code == 202
            if not known:
                assert mails.empty()
                return
            found = re.search(r"/reset/(\S+)", (await asyncio.wait_for(mails.get(), 5)).replace("=\r\n", ""))
            assert found is not None
            path = f"/api/v1/password-resets/{found[1]}"
            assert (await client.post(path, json={"password": "short"})).json()[
                "code"
            ] == "password_too_short"
            assert (await client.post(path, json={"password": "the new password"})).status_code == 204
            assert (await client.post(path, json={"password": "the new password"})).json()[
                "code"
            ] == "reset_invalid"
            client.cookies.clear()
            assert (
                await client.post("/api/v1/tokens", json={**account, "password": "the new password"})
            ).status_code == 200


async def test_without_a_mail_server_the_link_is_in_the_log() -> None:
    async with open_mail("log://", "a@b.org") as mail:
        with capture_logs() as logs:
            await mail.send("ada@example.org", "Subject", "text with a link")
    assert logs[0]["text"] == "text with a link"
