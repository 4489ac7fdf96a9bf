"""The shared terminal in real browsers: seen by all, typed into by those who may, with the editor's files, on a phone too."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from .conftest import Person, Server
from .story import join, land, run, share, status, text, type_at_start

pytestmark = pytest.mark.e2e


def screen(page: Page) -> Locator:
    """What the terminal shows."""
    return page.locator(".xterm-rows")


def open_terminal(page: Page) -> None:
    """Open the terminal with its key."""
    page.keyboard.press("Control+`")
    expect(screen(page)).to_contain_text("/work $")
    page.locator(".xterm-helper-textarea").focus()


def enter(page: Page, line: str) -> None:
    """Type a line into the terminal that has the focus."""
    page.keyboard.type(line)
    page.keyboard.press("Enter")


def test_two_people_share_a_terminal_that_has_what_the_editor_has(server: Server, person: Person) -> None:
    ada, bob, vic = person(), person(), person()
    land(ada, server.url)
    join(bob, share(ada), "Bob")
    vic.goto(share(ada, "view"))
    vic.get_by_role("button", name=re.compile("Join")).click()
    expect(text(vic)).to_be_visible()
    text(ada).click()
    open_terminal(ada)
    for other in (bob, vic):
        other.get_by_role("button", name=re.compile("Output")).first.click()
        other.get_by_role("tab", name="Terminal").click()
        expect(screen(other)).to_contain_text("/work $")

    enter(ada, "x=$((40 + 2)); echo answer $x")
    for page in (ada, bob, vic):
        expect(screen(page)).to_contain_text("answer 42")
    bob.locator(".xterm-helper-textarea").focus()
    enter(bob, "echo Bob sees $((x + 1))")
    expect(screen(ada)).to_contain_text("Bob sees 43")

    type_at_start(bob, "print('from the editor')\n")
    expect(status(bob)).to_have_text(re.compile("Saved"))
    ada.locator(".xterm-helper-textarea").focus()
    enter(ada, "clear; python3 main.py | head -1")
    expect(screen(bob)).to_contain_text("from the editor")

    vic.locator(".xterm-helper-textarea").focus()
    enter(vic, "echo intruded")
    enter(ada, "echo checked")
    expect(screen(vic)).to_contain_text("checked")
    expect(screen(ada)).not_to_contain_text("intruded")
    expect(vic.get_by_role("button", name="New terminal")).to_have_count(0)

    ada.get_by_role("button", name="End Shell").click()
    for page in (ada, bob, vic):
        expect(page.locator(".xterm")).to_have_count(0)


def test_keys_belong_to_the_shell_and_one_leads_back(server: Server, person: Person) -> None:
    ada = person()
    land(ada, server.url)
    text(ada).click()
    open_terminal(ada)
    enter(ada, "sleep 60")
    ada.keyboard.press("Control+c")
    expect(screen(ada)).to_contain_text("^C")
    enter(ada, "echo once")
    ada.keyboard.press("Control+p")
    ada.keyboard.press("Enter")
    expect(screen(ada)).to_contain_text(re.compile("once.*once.*once.*once", re.DOTALL))
    expect(ada.get_by_role("dialog")).to_have_count(0)
    ada.keyboard.press("Control+`")
    expect(text(ada)).to_be_focused()
    ada.keyboard.press("Control+`")
    expect(screen(ada)).to_contain_text("once")


def test_a_reload_shows_what_was_there(server: Server, person: Person) -> None:
    ada = person()
    land(ada, server.url)
    text(ada).click()
    open_terminal(ada)
    enter(ada, "seq 3; echo re$((100 + 11))membered")
    expect(screen(ada)).to_contain_text("re111membered")
    ada.reload()
    expect(screen(ada)).to_contain_text("re111membered")


def test_a_program_that_asks_runs_in_a_terminal(server: Server, person: Person) -> None:
    ada = person()
    land(ada, server.url)
    type_at_start(ada, "import sys; print('tty', sys.stdin.isatty(), input('Name? ')); sys.exit()\n")
    expect(status(ada)).to_have_text(re.compile("Saved"))
    ada.keyboard.press("F1")
    expect(ada.get_by_role("combobox")).to_be_focused()
    ada.keyboard.type("Run the file in a terminal")
    ada.keyboard.press("Enter")
    expect(screen(ada)).to_contain_text("Name?")
    ada.locator(".xterm-helper-textarea").focus()
    ada.keyboard.type("Ada")
    expect(screen(ada)).to_contain_text("Name? Ada")


def test_a_phone_has_the_keys_that_its_keyboard_lacks(server: Server, person: Person) -> None:
    ada = person(viewport={"width": 390, "height": 780}, has_touch=True, is_mobile=True)
    land(ada, server.url)
    ada.get_by_role("button", name="Output").click()
    ada.get_by_role("tab", name="Terminal").click()
    expect(screen(ada)).to_contain_text("/work $")
    ada.locator(".xterm").tap()
    keys = ada.get_by_role("toolbar", name="Keys")
    expect(keys).to_be_visible()
    ada.keyboard.type("sleep 50\n")
    keys.get_by_role("button", name="Interrupt").tap()
    expect(screen(ada)).to_contain_text("^C")
    ada.keyboard.type("ech")
    ada.keyboard.type("o narrow $COLUMNS\n")
    expect(screen(ada)).to_contain_text(re.compile(r"narrow [34]\d"))
    keys.get_by_role("button", name="Up", exact=True).tap()
    ada.keyboard.press("Enter")
    expect(screen(ada)).to_contain_text(re.compile("narrow.*narrow.*narrow.*narrow", re.DOTALL))


def test_everyone_sees_what_runs_and_those_who_may_stop_it(server: Server, person: Person) -> None:
    ada, bob, vic = person(), person(), person(viewport={"width": 390, "height": 780})
    land(ada, server.url)
    join(bob, share(ada), "Bob")
    vic.goto(share(ada, "view"))
    vic.get_by_role("button", name=re.compile("Join")).click()
    expect(text(vic)).to_be_visible()
    type_at_start(ada, "import time; time.sleep(50)\n")
    expect(status(ada)).to_have_text(re.compile("Saved"))
    run(ada)
    text(ada).click()
    open_terminal(ada)
    for page in (ada, bob, vic):
        page.get_by_role("button", name="2 running").click()
        running = page.get_by_role("dialog", name="What runs")
        expect(running).to_contain_text("main.py")
        expect(running).to_contain_text("Shell")
    what = vic.get_by_role("dialog", name="What runs")
    expect(what.get_by_role("button", name=re.compile("^Stop"))).to_have_count(0)
    bob.get_by_role("button", name="Stop main.py").click()
    for page in (ada, bob, vic):
        expect(page.get_by_role("button", name="1 running")).to_be_visible()
    bob.get_by_role("dialog", name="What runs").get_by_role("button", name="Shell", exact=False).first.click()
    expect(screen(bob)).to_contain_text("/work $")
