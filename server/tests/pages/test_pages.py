"""Pages over HTTP, without any script: landing, joining, accounts, sessions, settings, admin."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio
from fastapi import FastAPI

from atelier.auth import COOKIE

from ..conftest import BASE, MakeGuest, client_of, session_of

HTML = {"Accept": "text/html", "Origin": BASE}


@pytest_asyncio.fixture
async def browser(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """A browser without scripts."""
    async with client_of(app, **HTML) as client:
        client.follow_redirects = True
        yield client


async def test_a_stranger_lands_in_a_session_with_the_text_in_the_page(browser: httpx2.AsyncClient) -> None:
    answer = await browser.get("/")
    assert re.fullmatch(r"/s/ses_\w+", answer.url.path)
    assert "from garden.plants import grow" in answer.text
    again = await browser.get("/")
    assert again.url == answer.url


async def test_looking_around_makes_nothing(client: httpx2.AsyncClient) -> None:
    for method in ("HEAD", "GET"):
        answer = await client.request(method, "/", headers={"Accept": "*/*"})
        assert answer.status_code == 200
        assert COOKIE not in client.cookies


async def test_text_cannot_break_out_of_the_page(browser: httpx2.AsyncClient, app: FastAPI) -> None:
    page = await browser.get("/")
    session_id = page.url.path.rpartition("/")[2]
    evil = "</script><script>alert(1)</script><!--"
    await browser.put(f"/api/v1/sessions/{session_id}/files/main.py", content=evil.encode())
    await browser.patch(f"/api/v1/sessions/{session_id}", json={"name": evil})
    text = (await browser.get(page.url.path)).text
    assert "<script>alert" not in text
    assert text.count("</script>") <= 2


async def test_a_link_leaves_the_address_and_joining_takes_a_press(
    browser: httpx2.AsyncClient, guest: MakeGuest
) -> None:
    owner = await guest("Olga")
    session_id = await session_of(owner, "python")
    link = await owner.ok("POST", f"/sessions/{session_id}/links", json={"role": "edit", "max_uses": 1})
    page = await browser.get(f"/j/{link['token']}")
    assert page.url.path == "/join"
    assert link["token"] not in page.text
    assert "Olga" in page.text
    assert "from greetings import greet" in page.text
    assert (await owner.ok("GET", f"/sessions/{session_id}/links"))["items"][0]["uses"] == 0
    name = re.search(r'name="name" value="([^"]+)"', page.text)
    assert name is not None
    inside = await browser.post("/join", data={"name": name[1]})
    assert inside.url.path == f"/s/{session_id}"
    assert (await browser.get(f"/j/{link['token']}")).url.path == f"/s/{session_id}"


async def test_a_link_that_is_over_says_what_to_do(browser: httpx2.AsyncClient, guest: MakeGuest) -> None:
    owner = await guest("Olga")
    session_id = await session_of(owner)
    link = await owner.ok("POST", f"/sessions/{session_id}/links", json={"role": "view"})
    await owner.ok("DELETE", f"/sessions/{session_id}/links/{link['id']}")
    page = await browser.get(f"/j/{link['token']}")
    assert page.status_code == 410
    assert "revoked" in page.text
    assert "Ask for a new one" in page.text
    assert (await browser.get("/join")).status_code == 410


async def test_sign_up_log_out_log_in_and_settings(browser: httpx2.AsyncClient) -> None:
    session = (await browser.get("/")).url.path
    bad = await browser.post("/signup", data={"name": "Ada", "email": "ada@example.org", "password": "short"})
    assert bad.status_code == 422
    assert "at least 10 characters" in bad.text
    assert 'value="ada@example.org"' in bad.text
    listed = await browser.post(
        "/signup", data={"name": "Ada", "email": "ada@example.org", "password": "long enough it is"}
    )
    assert listed.url.path == "/sessions"
    assert session in listed.text
    await browser.post("/logout")
    assert (await browser.get("/sessions")).status_code == 401
    back = await browser.post(
        "/login", data={"email": "ada@example.org", "password": "long enough it is", "next": "//evil.example"}
    )
    assert back.url.path == "/sessions"
    saved = await browser.post("/settings/profile", data={"name": "Ada L.", "theme": "dark"})
    assert 'data-theme="dark"' in saved.text
    assert "Ada L." in saved.text
    assert (await browser.get("/admin")).status_code == 200


async def test_sessions_can_be_managed_without_a_script(browser: httpx2.AsyncClient) -> None:
    await browser.get("/")
    made = await browser.post("/sessions", data={"name": "Two", "template": "bash"})
    base = made.url.path.replace("/s/", "/sessions/")
    assert "Renamed" in (await browser.post(f"{base}/rename", data={"name": "Renamed"})).text
    assert "Renamed" not in (await browser.post(f"{base}/archive")).text
    assert "Renamed" in (await browser.get("/sessions?show=archived")).text
    deleted = await browser.post(f"{base}/delete")
    assert "Restore" in deleted.text
    await browser.post(f"{base}/restore")
    assert "Copy of Renamed" in (await browser.post(f"{base}/duplicate")).text


@pytest.mark.parametrize("path", ["/login", "/signup", "/logout", "/sessions", "/settings/profile", "/join"])
async def test_forms_of_other_sites_are_refused(browser: httpx2.AsyncClient, path: str) -> None:
    await browser.get("/")
    answer = await browser.post(path, data={"name": "x"}, headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403


async def test_strangers_are_told_nothing_and_shown_the_way(
    browser: httpx2.AsyncClient, guest: MakeGuest
) -> None:
    session_id = await session_of(await guest())
    assert (await browser.get(f"/s/{session_id}")).url.path == "/login"
    await browser.get("/")
    page = await browser.get(f"/s/{session_id}")
    assert page.status_code == 404
    assert "share link" in page.text
    assert (await browser.get("/nowhere")).status_code == 404


async def test_every_answer_carries_the_security_headers(browser: httpx2.AsyncClient) -> None:
    for path in ("/", "/login", "/healthz", "/nowhere", "/static/editor/../../main.py"):
        headers = (await browser.get(path)).headers
        assert "script-src 'self'" in headers["content-security-policy"], path
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]


async def test_only_built_files_are_served(browser: httpx2.AsyncClient) -> None:
    for path in ("../../main.py", "..%2f..%2fmain.py", ".vite/manifest.json", "none.js"):
        assert (await browser.get(f"/static/editor/{path}")).status_code == 404
