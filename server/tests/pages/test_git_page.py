"""A new session from a Git address by the form alone, without any script."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio
from fastapi import FastAPI

from atelier.settings import Settings

from ..conftest import BASE, client_of
from ..git_server import GitServer, git, git_server

__all__ = ["git_server"]
HTML = {"Accept": "text/html", "Origin": BASE}


@pytest.fixture
def settings(settings: Settings, git_server: GitServer, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("SSL_CERT_FILE", str(git_server.ca))
    return dataclasses.replace(settings, import_hosts=git_server.host)


@pytest_asyncio.fixture
async def browser(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """A browser without scripts, whose person has a first session."""
    async with client_of(app, **HTML) as client:
        client.follow_redirects = True
        await client.get("/")
        yield client


async def test_the_form_makes_a_session_with_the_repositorys_name(
    browser: httpx2.AsyncClient, git_server: GitServer
) -> None:
    git_server.repository("garden.git", {"main.py": b"print('from git')\n"})
    answer = await browser.post("/sessions/git", data={"url": git_server.url("garden.git")})
    assert re.fullmatch(r"/s/ses_\w+", answer.url.path)
    assert "from git" in answer.text
    assert "<title>garden" in answer.text


async def test_what_was_left_out_is_listed_before_the_session_opens(
    browser: httpx2.AsyncClient, git_server: GitServer
) -> None:
    folder = git_server.repository("r", {"main.py": b"1\n"})
    (folder / "<b>").symlink_to("/etc/passwd")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "two")
    answer = await browser.post("/sessions/git", data={"url": git_server.url("r")})
    assert answer.status_code == 200
    assert "1 file is there" in answer.text
    assert "&lt;b&gt;" in answer.text
    assert "It is a symbolic link." in answer.text
    assert (await browser.get(re.findall(r'href="(/s/ses_\w+)"', answer.text)[-1])).status_code == 200


async def test_an_error_keeps_what_was_typed_and_makes_nothing(
    browser: httpx2.AsyncClient, git_server: GitServer
) -> None:
    answer = await browser.post("/sessions/git", data={"url": git_server.url("none"), "ref": "v1"})
    assert answer.status_code == 404
    assert "There is no public Git repository" in answer.text
    assert f'value="{git_server.url("none")}"' in answer.text
    assert 'value="v1"' in answer.text
    listed = await browser.get("/sessions")
    assert listed.text.count('class="item-name"') == 1  # the first one, made on arrival


async def test_another_site_imports_nothing(browser: httpx2.AsyncClient, git_server: GitServer) -> None:
    answer = await browser.post(
        "/sessions/git", data={"url": git_server.url("r")}, headers={"Origin": "https://evil.example"}
    )
    assert answer.status_code == 403
    assert git_server.requests == []
