"""What a person does, in a person's words; the only place that knows the editor's roles and labels."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page, expect


def land(page: Page, url: str) -> None:
    """Open the first page as a stranger and wait until the editor is live."""
    page.goto(url + "/")
    ready(page)


def ready(page: Page) -> None:
    """Wait until the editor is live and everything is saved."""
    expect(text(page)).to_be_visible()
    expect(status(page)).to_have_text(re.compile("Saved"))


def text(page: Page) -> Locator:
    """The text being edited."""
    return page.locator(".cm-content").first


def status(page: Page) -> Locator:
    """The status line's word."""
    return page.locator("[data-status]").first


def type_at_start(page: Page, words: str) -> None:
    """Put the cursor at the start of the text and type."""
    text(page).click()
    page.keyboard.press("ControlOrMeta+Home")
    page.keyboard.type(words)


def type_at_end(page: Page, words: str) -> None:
    """Put the cursor at the end of the text and type."""
    text(page).click()
    page.keyboard.press("ControlOrMeta+End")
    page.keyboard.type(words)


def share(page: Page, role: str = "edit") -> str:
    """Press Share, choose a role, copy the link; returns it."""
    page.get_by_role("button", name="Share", exact=True).first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Role", exact=False).first.select_option(role)
    dialog.get_by_role("button", name=re.compile("Copy link|Create link")).first.click()
    field = dialog.locator("input[readonly]").first
    expect(field).to_have_value(re.compile("/j/"))
    link = field.input_value()
    page.keyboard.press("Escape")
    return link


def join(page: Page, link: str, name: str = "") -> None:
    """Open a share link, keep or change the suggested name, join."""
    page.goto(link)
    if name:
        page.get_by_label("Your name").fill(name)
    page.get_by_role("button", name=re.compile("Join")).click()
    ready(page)


def run(page: Page) -> None:
    """Press Run."""
    page.get_by_role("button", name="Run", exact=True).first.click()


def output(page: Page) -> Locator:
    """What the last run printed."""
    return page.locator("[data-output]").first


def open_file(page: Page, path: str) -> None:
    """Open a file through quick open."""
    page.keyboard.press("ControlOrMeta+p")
    expect(page.get_by_role("combobox", name="Open a file")).to_be_focused()
    page.keyboard.type(path)
    page.keyboard.press("Enter")
    expect(
        page.get_by_role("tab", name=re.compile(re.escape(path.split("/")[-1])), selected=True)
    ).to_be_visible()
