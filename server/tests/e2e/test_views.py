"""Every view at desktop and phone size, dark and light: axe finds nothing, nothing overflows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from .conftest import Person, Server
from .story import join, land, ready, run, share, text, type_at_start

pytestmark = pytest.mark.e2e
AXE = Path(__file__).parents[3] / "editor-web" / "node_modules" / "axe-core" / "axe.min.js"
SIZES = {"desktop": {"width": 1280, "height": 800}, "phone": {"width": 360, "height": 640}}
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


def violations(page: Page) -> list[str]:
    """Run axe on the page; returns one line per violation."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(AXE.read_text())
    found: dict[str, Any] = page.evaluate("rules => axe.run(document, {runOnly: rules})", RULES)
    return [f"{v['id']}: {v['help']} at {[n['target'] for n in v['nodes']][:3]}" for v in found["violations"]]


def fits(page: Page) -> bool:
    """Say whether the page is no wider than the screen."""
    return bool(page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
def test_the_editor_and_its_dialogs_are_accessible(
    server: Server, person: Person, size: str, scheme: str
) -> None:
    ada = person(
        viewport=SIZES[size], color_scheme=scheme, has_touch=size == "phone", is_mobile=size == "phone"
    )
    land(ada, server.url)
    assert violations(ada) == []
    assert fits(ada)
    for key in ("F1", "ControlOrMeta+p", "ControlOrMeta+Shift+f"):
        ada.keyboard.press(key)
        expect(
            ada.get_by_role("combobox")
            .or_(ada.get_by_role("searchbox"))
            .or_(ada.get_by_role("textbox"))
            .first
        ).to_be_visible()
        assert violations(ada) == [], key
        ada.keyboard.press("Escape")
    ada.get_by_role("button", name="Share", exact=True).first.click()
    expect(ada.get_by_role("dialog")).to_be_visible()
    assert violations(ada) == []
    ada.keyboard.press("Escape")
    run(ada)
    expect(ada.locator("[data-output]").first).to_be_visible()
    assert violations(ada) == []
    assert fits(ada)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
@pytest.mark.parametrize(
    "path", ["/login", "/signup", "/reset", "/sessions", "/settings", "/help", "/no-such-page"]
)
def test_the_pages_are_accessible(server: Server, person: Person, path: str, size: str, scheme: str) -> None:
    ada = person(viewport=SIZES[size], color_scheme=scheme)
    if path in ("/sessions", "/settings"):
        land(ada, server.url)
    ada.goto(server.url + path)
    assert violations(ada) == []
    assert fits(ada)


def test_the_phone_shows_one_pane_at_a_time(server: Server, person: Person) -> None:
    ada = person(viewport=SIZES["phone"], has_touch=True, is_mobile=True)
    land(ada, server.url)
    bar = ada.get_by_role("navigation").last
    for name in ("Files", "Output", "People", "Code"):
        bar.get_by_role("button", name=re.compile(name)).or_(
            bar.get_by_role("tab", name=re.compile(name))
        ).first.tap()
        assert fits(ada), name
    expect(text(ada)).to_be_visible()
    type_at_start(ada, "# from a phone\n")
    ada.reload()
    ready(ada)
    expect(text(ada)).to_contain_text("# from a phone")


def test_the_join_page_shows_the_text_and_suggests_a_name(server: Server, person: Person) -> None:
    ada, bob = person(), person(viewport=SIZES["phone"])
    land(ada, server.url)
    link = share(ada)
    bob.goto(link)
    assert link.split("/")[-1] not in bob.url
    expect(bob.locator("pre")).to_contain_text("import")
    assert bob.get_by_label("Your name").input_value()
    assert violations(bob) == []
    assert fits(bob)
    join(bob, link)


def test_a_phone_has_a_ctrl_key_that_stays_down_for_one_key(server: Server, person: Person) -> None:
    ada = person(viewport=SIZES["phone"], has_touch=True, is_mobile=True)
    land(ada, server.url)
    text(ada).tap()
    ada.keyboard.insert_text("typed on a phone")
    expect(text(ada)).to_contain_text("typed on a phone")
    ctrl = ada.get_by_role("toolbar", name="Keys").get_by_role("button", name="Ctrl")
    ctrl.click()
    expect(ctrl).to_have_attribute("aria-pressed", "true")
    ada.keyboard.insert_text("z")
    expect(text(ada)).not_to_contain_text("typed on a phone")
    expect(ctrl).to_have_attribute("aria-pressed", "false")
