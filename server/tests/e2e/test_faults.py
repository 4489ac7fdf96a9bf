"""Offline, killed, revoked: nothing is lost and the status says the truth."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator

import pytest
from playwright.sync_api import WebSocketRoute, expect

from .conftest import Person, Server
from .story import join, land, ready, share, status, text, type_at_end, type_at_start

pytestmark = pytest.mark.e2e


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that this test may kill."""
    running = Server(tmp_path_factory.mktemp("data"))
    running.start()
    yield running
    running.stop()


def test_offline_edits_are_counted_kept_and_merged(server: Server, person: Person) -> None:
    ada, bob = person(), person()
    land(ada, server.url)
    join(bob, share(ada), "Bob")
    ada.context.set_offline(True)
    type_at_start(ada, "# written on a train\n")
    expect(status(ada)).to_have_text(re.compile(r"Offline: \d+ changes? kept on this device"), timeout=8_000)
    type_at_end(bob, "\n# meanwhile at the desk\n")
    ada.context.set_offline(False)
    expect(status(ada)).to_have_text(re.compile("Saved"), timeout=15_000)
    for page in (ada, bob):
        expect(text(page)).to_contain_text("# written on a train")
        expect(text(page)).to_contain_text("# meanwhile at the desk")


def test_what_is_typed_before_the_document_is_there_is_not_lost(server: Server, person: Person) -> None:
    ada, bob = person(), person()
    land(ada, server.url)
    held: list[tuple[WebSocketRoute, list[str | bytes], list[WebSocketRoute]]] = []

    def hold(line: WebSocketRoute) -> None:
        sent: list[str | bytes] = []
        far: list[WebSocketRoute] = []
        held.append((line, sent, far))
        line.on_message(lambda message: far[0].send(message) if far else sent.append(message))

    bob.route_web_socket(re.compile("/api/"), hold)
    bob.goto(share(ada))
    bob.get_by_role("button", name=re.compile("Join")).click()
    expect(bob.locator(".cm-editor")).to_have_attribute("aria-busy", "true")
    type_at_start(bob, "# before it was there\n")
    bob.keyboard.press("ArrowDown")
    bob.keyboard.type("# below\n")
    expect(status(bob)).not_to_have_text(re.compile("Saved"))
    type_at_end(ada, "\n# meanwhile")
    type_at_start(ada, "# above\n")
    expect(status(ada)).to_have_text(re.compile("Saved"))
    for line, sent, far in held:
        far.append(line.connect_to_server())
        far[0].on_message(line.send)
        for message in sent:
            far[0].send(message)
    for page in (ada, bob):
        for words in ("# before it was there", "# below", "# meanwhile", "# above"):
            expect(text(page)).to_contain_text(words)
    bob.keyboard.type("still here")
    expect(text(ada)).to_contain_text("# below")
    expect(text(ada).locator(".cm-line", has_text="still here")).to_have_text(re.compile("^still here"))
    expect(status(bob)).to_have_text(re.compile("Saved"))
    for _ in range(4):
        bob.keyboard.press("ControlOrMeta+z")
    expect(text(ada)).not_to_contain_text("# below")
    expect(text(ada)).not_to_contain_text("# before it was there")
    expect(text(ada)).to_contain_text("# meanwhile")
    expect(text(ada)).to_contain_text("# above")


def test_what_was_saved_survives_a_kill_and_what_was_not_comes_back(
    own_server: Server, person: Person
) -> None:
    ada = person()
    land(ada, own_server.url)
    type_at_start(ada, "# saved before the kill\n")
    expect(status(ada)).to_have_text(re.compile("Saved"))
    own_server.kill()
    type_at_start(ada, "# typed while it was down\n")
    expect(status(ada)).to_have_text(re.compile("Offline|Reconnecting"))
    own_server.start()
    expect(status(ada)).to_have_text(re.compile("Saved"), timeout=20_000)
    ada.reload()
    ready(ada)
    expect(text(ada)).to_contain_text("# saved before the kill")
    expect(text(ada)).to_contain_text("# typed while it was down")


def test_a_full_disk_is_never_called_saved_and_nothing_is_lost(own_server: Server, person: Person) -> None:
    ada = person()
    land(ada, own_server.url)
    own_server.allow_files_of(0)
    type_at_start(ada, "# the disk is full\n")
    expect(status(ada)).to_have_text(re.compile("Offline|Reconnecting|Saving"))
    for _ in range(30):  # three seconds, over several attempts
        assert "Saved" not in (status(ada).text_content() or "")
        ada.wait_for_timeout(100)
    own_server.allow_files_of(-1)
    expect(status(ada)).to_have_text(re.compile("Saved"), timeout=30_000)
    own_server.kill()
    own_server.start()
    ada.reload()
    ready(ada)
    expect(text(ada)).to_contain_text("# the disk is full")


def test_a_locked_database_is_never_called_saved_and_nothing_is_lost(
    own_server: Server, person: Person
) -> None:
    ada = person()
    land(ada, own_server.url)
    lock = sqlite3.connect(own_server.data / "log.db", isolation_level=None)
    lock.execute("begin immediate")
    type_at_start(ada, "# somebody holds the database\n")
    expect(status(ada)).to_have_text(re.compile("Offline|Reconnecting|Saving"))
    for _ in range(40):
        assert "Saved" not in (status(ada).text_content() or "")
        ada.wait_for_timeout(100)
    lock.execute("rollback")
    lock.close()
    expect(status(ada)).to_have_text(re.compile("Saved"), timeout=30_000)
    ada.reload()
    ready(ada)
    expect(text(ada)).to_contain_text("# somebody holds the database")


def test_edits_made_while_the_server_is_down_survive_closing_the_tab(
    own_server: Server, person: Person
) -> None:
    ada = person()
    land(ada, own_server.url)
    address = ada.url
    own_server.kill()
    type_at_start(ada, "# nobody heard this\n")
    expect(status(ada)).to_have_text(re.compile("Offline: 20 changes kept on this device"))
    context = ada.context
    ada.close()
    own_server.start()
    again = context.new_page()
    again.goto(address)
    ready(again)
    expect(text(again)).to_contain_text("# nobody heard this")


@pytest.mark.parametrize("role", ["view", "comment", "run"])
def test_a_role_without_edit_can_read_and_not_write(server: Server, person: Person, role: str) -> None:
    ada, bob = person(), person()
    land(ada, server.url)
    bob.goto(share(ada, role))
    bob.get_by_role("button", name=re.compile("Join")).click()
    expect(text(bob)).to_contain_text("import")
    expect(status(bob)).to_have_text(re.compile("Read-only"))
    text(bob).click()
    bob.keyboard.type("intruder")
    type_at_start(ada, "# after\n")
    expect(text(bob)).to_contain_text("# after")
    expect(text(bob)).not_to_contain_text("intruder")
    run_buttons = bob.get_by_role("button", name="Run", exact=True)
    if role == "run":
        expect(run_buttons.first).to_be_enabled()
    else:
        assert run_buttons.count() == 0 or run_buttons.first.is_disabled()


def test_a_revoked_link_ends_the_guest_s_connection_within_a_second(server: Server, person: Person) -> None:
    ada, bob = person(), person()
    land(ada, server.url)
    link = share(ada)
    join(bob, link, "Bob")
    session = ada.url.rstrip("/").split("/")[-1]
    origin = {"Origin": server.url}
    links = ada.context.request.get(f"{server.url}/api/v1/sessions/{session}/links", headers=origin).json()[
        "items"
    ]
    answer = ada.context.request.delete(
        f"{server.url}/api/v1/sessions/{session}/links/{links[0]['id']}", headers=origin
    )
    assert answer.ok
    expect(status(bob)).to_have_text(re.compile("Read-only"), timeout=1_500)
    text(bob).click()
    bob.keyboard.type("too late")
    expect(text(ada)).not_to_contain_text("too late")
    stranger = person()
    stranger.goto(link)
    expect(stranger.get_by_text(re.compile("revoked|no longer", re.IGNORECASE)).first).to_be_visible()


def test_an_open_session_comes_up_again_while_the_server_is_down(own_server: Server, person: Person) -> None:
    ada = person()
    land(ada, own_server.url)
    ada.wait_for_function(
        "async () => !!navigator.serviceWorker.controller && (await caches.keys()).length >= 2"
        " && !!(await caches.match(location.href))"
    )
    own_server.kill()
    ada.reload()
    expect(text(ada)).to_contain_text("from garden.plants import grow")
    type_at_start(ada, "# on the train\n")
    expect(status(ada)).to_have_text(re.compile("Offline: 15 changes kept on this device"))
    ada.reload()
    expect(text(ada)).to_contain_text("# on the train")
    own_server.start()
    expect(status(ada)).to_have_text(re.compile("Saved"), timeout=20_000)
