"""Import from Git in a real browser, from a real Git server: what came, what was left out, errors, giving up."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest
from playwright.sync_api import Page, expect

from ..git_server import GitServer, git
from .conftest import Person, Server
from .story import land, ready, text
from .test_views import SIZES, fits, violations

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    """A Git server with one repository that has something to leave out."""
    with GitServer(tmp_path_factory.mktemp("repositories")).running() as server:
        folder = server.repository("garden.git", {"plants.py": b"print('from git')\n", "docs/a.md": b"# A\n"})
        (folder / "shortcut").symlink_to("/etc/passwd")
        git(folder, "add", "-A")
        git(folder, "commit", "-qm", "two")
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, repositories: GitServer) -> Iterator[Server]:
    """A server that imports from there."""
    running = Server(
        tmp_path_factory.mktemp("data"),
        SSL_CERT_FILE=str(repositories.ca),
        ATELIER_IMPORT_HOSTS=repositories.host,
    )
    running.start()
    yield running
    running.stop()


def ask(page: Page, url: str) -> None:
    """Open the dialog by its command and send an address."""
    page.keyboard.press("F1")
    expect(page.get_by_role("dialog", name="All commands")).to_be_visible()
    page.keyboard.type("Import from Git")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Import from Git")
    dialog.get_by_label("Address").fill(url)
    dialog.get_by_role("button", name="Import", exact=True).click()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
def test_a_repository_comes_in_and_what_was_left_out_is_named(
    server: Server, repositories: GitServer, person: Person, size: str, scheme: str
) -> None:
    ada = person(
        viewport=SIZES[size], color_scheme=scheme, has_touch=size == "phone", is_mobile=size == "phone"
    )
    land(ada, server.url)
    dialog = ada.get_by_role("dialog", name="Import from Git")
    ask(ada, repositories.url("nothing.git"))
    expect(dialog.get_by_role("alert")).to_contain_text("There is no public Git repository")
    assert violations(ada) == []
    assert fits(ada)
    dialog.get_by_label("Address").fill(repositories.url("garden.git"))
    expect(dialog.get_by_label("Into the folder")).to_have_value("garden-2")  # a folder of that name is there
    dialog.get_by_role("button", name="Import", exact=True).click()
    expect(dialog.get_by_role("status").first).to_contain_text("2 files are here")
    expect(dialog.get_by_role("listitem")).to_have_text(["garden-2/shortcutIt is a symbolic link."])
    assert violations(ada) == []
    assert fits(ada)
    dialog.get_by_role("button", name="Done").click()
    ada.keyboard.press("ControlOrMeta+p")
    expect(ada.get_by_role("dialog", name="Open a file")).to_be_visible()
    ada.keyboard.type("garden-2/plants.py")
    ada.keyboard.press("Enter")
    expect(text(ada)).to_contain_text("from git")


def test_an_import_can_be_given_up(server: Server, repositories: GitServer, person: Person) -> None:
    asked, gone = threading.Event(), threading.Event()

    def never(handler: BaseHTTPRequestHandler) -> None:
        asked.set()
        handler.send_response(200)
        handler.send_header("Content-Type", "application/x-git-upload-pack-advertisement")
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        try:
            handler.wfile.write(b"fff0")
            while not gone.wait(0.02):
                handler.wfile.write(b"#")
                handler.wfile.flush()
        except OSError:
            gone.set()

    repositories.odd["/slow/info/refs"] = never
    ada = person()
    land(ada, server.url)
    ask(ada, repositories.url("slow"))
    dialog = ada.get_by_role("dialog", name="Import from Git")
    expect(dialog.get_by_role("progressbar")).to_be_visible()
    assert asked.wait(10)
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog.get_by_label("Address")).to_have_value(repositories.url("slow"))
    # The browser's connection ends, and with it the one to the Git server.
    assert gone.wait(10)


@pytest.mark.parametrize("size", list(SIZES))
def test_a_session_begins_with_a_repository(
    server: Server, repositories: GitServer, person: Person, size: str
) -> None:
    ada = person(viewport=SIZES[size])
    land(ada, server.url)
    ada.goto(server.url + "/sessions")
    ada.get_by_text("New session from a Git address").click()
    assert violations(ada) == []
    assert fits(ada)
    ada.get_by_label("Address").fill(repositories.url("nothing"))
    ada.get_by_role("button", name="Import").click()
    expect(ada.get_by_role("alert")).to_contain_text("There is no public Git repository")
    ada.get_by_label("Address").fill(repositories.url("garden.git"))
    ada.get_by_role("button", name="Import").click()
    expect(ada.get_by_role("heading", level=1)).to_have_text("garden is imported")
    expect(ada.get_by_text("shortcut")).to_be_visible()
    assert violations(ada) == []
    assert fits(ada)
    ada.get_by_role("link", name="Open the session").click()
    ready(ada)
    expect(ada).to_have_title(re.compile("garden"))
    expect(text(ada)).to_contain_text("# A")
