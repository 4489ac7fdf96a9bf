"""The switch that lets programs reach the internet: found from a failed run, used by an owner, seen by everybody."""

from __future__ import annotations

import re
from collections.abc import Iterator
from uuid import uuid4

import pytest
from playwright.sync_api import Page, expect

from .conftest import Person, Server
from .story import land, ready
from .test_views import SIZES, fits, violations

pytestmark = pytest.mark.e2e
PROGRAM = "import urllib.request\nurllib.request.urlopen('http://inside.example/')\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose operator allows it."""
    running = Server(tmp_path_factory.mktemp("data"), ATELIER_EGRESS="on")
    running.start()
    yield running
    running.stop()


def put(page: Page, program: str) -> None:
    """Write main.py as its owner would by the API."""
    session = page.url.rsplit("/", 1)[-1]
    url = page.url.split("/s/")[0]
    path = f"{url}/api/v1/sessions/{session}/files/main.py"
    answer = page.request.put(path, data=program, headers={"Origin": url})
    assert answer.ok, answer.text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
def test_an_owner_finds_it_from_a_run_that_failed(
    server: Server, person: Person, size: str, scheme: str
) -> None:
    page = person(viewport=SIZES[size], color_scheme=scheme)
    land(page, server.url)
    ready(page)
    put(page, PROGRAM)
    page.get_by_role("button", name="Run", exact=True).first.click()
    hint = page.get_by_role("button", name="Internet…")
    expect(hint).to_be_visible(timeout=30_000)
    hint.click()
    dialog = page.get_by_role("dialog", name="Internet")
    expect(dialog.get_by_role("switch")).to_be_disabled()
    expect(dialog.get_by_role("link", name="Make an account")).to_be_visible()
    back = page.url
    dialog.get_by_role("link", name="Make an account").click()
    page.get_by_label("Name", exact=True).fill("Ada")
    page.get_by_label("E-mail").fill(f"{uuid4().hex}@example.org")
    page.get_by_label("Password").fill("correct horse battery")
    page.get_by_role("button", name="Make").click()
    expect(page).to_have_url(re.compile("/sessions$"))
    page.goto(back)
    ready(page)
    page.keyboard.press("F1")
    expect(page.get_by_role("dialog", name="All commands")).to_be_visible()
    page.keyboard.type("Internet for programs")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Internet")
    dialog.get_by_role("switch").check()
    expect(dialog.get_by_text("Switched on by")).to_be_visible()
    assert fits(page)
    assert violations(page) == []
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Internet", exact=True)).to_be_visible()
    page.get_by_role("button", name="Run", exact=True).first.click()
    said = page.get_by_text("Atelier: There is no host inside.example").locator("visible=true")
    expect(said.first).to_be_visible(timeout=30_000)
