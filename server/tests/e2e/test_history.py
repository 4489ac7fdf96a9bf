"""The past in a real browser: who wrote when, scrubbing, playing, going back and undoing that, versions."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from .conftest import Person, Server
from .story import join, land, share, text, type_at_end
from .test_views import SIZES, fits, violations

pytestmark = pytest.mark.e2e


def write(page: Page, words: str) -> None:
    """Type at the end of the open file and wait until it is saved."""
    type_at_end(page, words)
    expect(page.get_by_text("Saved", exact=True)).to_be_visible()


def past(page: Page) -> None:
    page.keyboard.press("ControlOrMeta+Alt+h")
    expect(page.get_by_role("dialog", name="History")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
def test_the_history_can_be_read_on_every_screen(
    server: Server, person: Person, size: str, scheme: str
) -> None:
    ada = person(
        viewport=SIZES[size], color_scheme=scheme, has_touch=size == "phone", is_mobile=size == "phone"
    )
    land(ada, server.url)
    write(ada, "\n# later")
    past(ada)
    old = ada.get_by_label("main.py, as it was")
    expect(old).to_contain_text("# later")
    expect(ada.locator(".burst-row")).to_have_count(1)
    assert violations(ada) == []
    assert fits(ada)
    ada.get_by_role("tab", name="Versions of the session").click()
    expect(ada.get_by_text("No version has a name yet.")).to_be_visible()
    assert violations(ada) == []
    assert fits(ada)


def test_somebody_scrubs_plays_restores_and_undoes_that(server: Server, person: Person) -> None:
    ada = person()
    land(ada, server.url)
    write(ada, "\n# one two three")
    past(ada)
    old, scrubber = ada.get_by_label("main.py, as it was"), ada.get_by_label("Edits")
    expect(old).to_contain_text("# one two three")
    expect(ada.get_by_role("button", name="Restore this")).to_be_disabled()
    scrubber.press("Home")
    expect(old).not_to_contain_text("Welcome")
    scrubber.press("ArrowRight")  # the file as it came
    expect(old).to_contain_text("Welcome")
    expect(old).not_to_contain_text("# one")
    ada.get_by_label("Compare with now").check()
    expect(ada.get_by_role("note", name="Added here since")).to_contain_text("# one two three")
    ada.get_by_label("Compare with now").uncheck()
    ada.get_by_label("Speed").select_option("16")
    ada.get_by_role("button", name="Play").click()
    expect(old).to_contain_text("# one two three")
    expect(ada.get_by_role("button", name="Play")).to_be_visible()
    scrubber.press("Home")
    scrubber.press("ArrowRight")
    expect(old).not_to_contain_text("# one")
    ada.get_by_role("button", name="Restore this").click()
    expect(ada.get_by_text("main.py is as it was then.")).to_be_visible()
    expect(old).not_to_contain_text("# one")  # what came of it is shown
    ada.get_by_role("button", name="Undo").click()
    expect(ada.get_by_text("It is as it was before.")).to_be_visible()
    ada.keyboard.press("Escape")
    expect(text(ada)).to_contain_text("# one two three")


def test_the_edits_of_one_are_taken_back_and_the_other_s_stay(server: Server, person: Person) -> None:
    ada = person()
    land(ada, server.url)
    link = share(ada, "edit")
    bob = person()
    join(bob, link, "Bob")
    expect(text(bob)).to_contain_text("Welcome")
    write(ada, "\n# from ada")
    expect(text(bob)).to_contain_text("# from ada")
    write(bob, "\n# from bob")
    expect(text(ada)).to_contain_text("# from bob")
    past(ada)
    ada.get_by_role("button", name="Take back everything by Bob").click()
    ada.get_by_role("button", name="Take back", exact=True).click()
    expect(ada.get_by_text("Taken back:")).to_be_visible()
    expect(text(bob)).not_to_contain_text("# from bob")
    expect(text(bob)).to_contain_text("# from ada")


def test_a_version_brings_all_files_back(server: Server, person: Person) -> None:
    ada = person()
    land(ada, server.url)
    past(ada)
    ada.get_by_role("tab", name="Versions of the session").click()
    ada.get_by_label("Name for the session as it is now").fill("Before the demo")
    ada.keyboard.press("Enter")
    row = ada.get_by_role("listitem").filter(has_text="Before the demo")
    expect(row).to_be_visible()
    ada.keyboard.press("Escape")
    write(ada, "\n# a mistake")
    past(ada)
    ada.get_by_role("tab", name="Versions of the session").click()
    row.get_by_role("button", name="Before the demo", exact=False).first.click()
    expect(row.get_by_role("link", name="garden/plants.py")).to_be_visible()
    row.get_by_role("button", name="Restore Before the demo").click()
    row.get_by_role("button", name="Restore", exact=True).click()
    expect(ada.get_by_text("Back to “Before the demo”: 1 changed.")).to_be_visible()
    ada.keyboard.press("Escape")
    expect(text(ada)).not_to_contain_text("# a mistake")


def test_who_may_only_look_sees_the_history_and_no_way_to_change_it(server: Server, person: Person) -> None:
    ada = person()
    land(ada, server.url)
    write(ada, "\n# secret no more")
    link = share(ada, "view")
    vera = person()
    vera.goto(link)
    vera.get_by_role("button", name=re.compile("Join")).click()
    expect(text(vera)).to_contain_text("Welcome")
    past(vera)
    expect(vera.get_by_label("main.py, as it was")).to_contain_text("# secret no more")
    expect(vera.get_by_role("button", name="Restore this")).to_have_count(0)
    expect(vera.locator(".ways")).to_have_count(0)


@pytest.mark.parametrize("size", list(SIZES))
def test_an_owner_forgets_what_came_before(server: Server, person: Person, size: str) -> None:
    ada, bob = person(viewport=SIZES[size]), person()
    land(ada, server.url)
    join(bob, share(ada), "Bob")
    write(ada, "\n# one two")
    past(ada)
    ada.get_by_role("button", name="Forget everything until here").click()
    assert violations(ada) == []
    assert fits(ada)
    ada.get_by_role("button", name="Cancel").click()
    ada.get_by_role("button", name="Forget everything until here").click()
    ada.get_by_role("button", name="Forget", exact=True).click()
    expect(ada.get_by_text(re.compile(r"\d+ edits are forgotten\."))).to_be_visible()
    expect(ada.get_by_label("Edits")).to_have_attribute("max", "1")
    ada.keyboard.press("Escape")
    expect(text(ada)).to_contain_text("# one two")
    past(bob)
    expect(bob.get_by_label("Edits")).to_have_attribute("max", "1")
    expect(bob.get_by_role("button", name="Take back these edits")).to_be_visible()
    expect(bob.get_by_role("button", name="Forget everything until here")).to_have_count(0)
