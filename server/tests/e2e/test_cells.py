"""Cells in real browsers: run from the text, seen by everyone, asked, interrupted, restarted; on a phone too."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from .conftest import Person, Server
from .story import join, land, share, status, text

pytestmark = pytest.mark.e2e

PROGRAM = """# %% numbers
numbers = [1, 2, 39]
print(f"there are {len(numbers)}")

# %%
sum(numbers)

# %% broken
def share(n):
    return sum(numbers) / n

share(0)
"""


def write(page: Page, program: str) -> None:
    """Make the open file this program, as a paste does: nothing is indented or closed by itself."""
    text(page).click()
    page.keyboard.press("ControlOrMeta+a")
    page.evaluate("words => navigator.clipboard.writeText(words)", program)
    page.keyboard.press("ControlOrMeta+v")
    expect(status(page)).to_have_text(re.compile("Saved"))


def cell(page: Page, number: int) -> Locator:
    """The newest cell with a number."""
    return page.locator(".cell", has=page.locator(".cell-number", has_text=f"[{number}]")).last


def ask(page: Page, line: str) -> None:
    """Type a line into the panel."""
    field = page.get_by_label("Ask the interpreter")
    field.fill(line)
    field.press("Enter")


def show(page: Page) -> None:
    """Open the panel."""
    page.get_by_role("button", name=re.compile("Output")).first.click()
    page.get_by_role("tab", name="Cells").click()


def test_two_people_share_one_python(server: Server, person: Person) -> None:
    ada, bob, vic = person(), person(), person()
    land(ada, server.url)
    join(bob, share(ada), "Bob")
    vic.goto(share(ada, "view"))
    vic.get_by_role("button", name=re.compile("Join")).click()
    expect(text(vic)).to_be_visible()
    write(ada, PROGRAM)
    expect(ada.get_by_role("button", name="Run cell")).to_have_count(3)
    expect(vic.get_by_role("button", name="Run cell")).to_have_count(0)
    for other in (bob, vic):
        show(other)
        expect(other.get_by_text("Cells run in one Python")).to_be_visible()

    text(ada).click()
    ada.keyboard.press("ControlOrMeta+Home")
    ada.keyboard.press("Shift+Enter")
    for page in (ada, bob, vic):
        expect(cell(page, 1)).to_contain_text("there are 3")
    text(ada).focus()
    ada.keyboard.press("Shift+Enter")  # the cursor went on to the next cell
    expect(cell(vic, 2)).to_contain_text("42")
    expect(vic.get_by_label("Ask the interpreter")).to_have_count(0)

    ask(bob, "numbers.append(8)")
    ask(bob, "sum(numbers)")
    expect(cell(ada, 4)).to_contain_text("50")
    expect(ada.get_by_role("listitem", name=re.compile(r"Cell \[4\] by Bob"))).to_be_visible()
    bob.get_by_label("Ask the interpreter").press("ArrowUp")
    expect(bob.get_by_label("Ask the interpreter")).to_have_value("sum(numbers)")
    bob.get_by_label("Ask the interpreter").press("ArrowUp")
    expect(bob.get_by_label("Ask the interpreter")).to_have_value("numbers.append(8)")

    ada.get_by_role("button", name="Run cell").nth(2).click()
    for page in (ada, bob):
        expect(cell(page, 5)).to_contain_text("ZeroDivisionError: division by zero")
    cell(bob, 5).get_by_role("button", name=re.compile(r"Cell \[5\], line 3")).click()
    expect(bob.get_by_text("10:1", exact=True)).to_be_visible()  # the line in the file


def test_what_runs_is_interrupted_and_a_restart_forgets(server: Server, person: Person) -> None:
    ada, bob = person(), person()
    land(ada, server.url)
    join(bob, share(ada), "Bob")
    for page in (ada, bob):
        show(page)
    ask(ada, "x = 5")
    ask(ada, "import time; print('up'); time.sleep(60)")
    expect(cell(bob, 2)).to_contain_text("up")
    ask(bob, "x")
    expect(bob.get_by_role("status").filter(has_text="1 waits")).to_be_visible()
    expect(bob.get_by_role("button", name=re.compile("running"))).to_be_visible()
    bob.get_by_role("button", name="Interrupt").click()
    expect(cell(ada, 2)).to_contain_text("Interrupted; the variables are kept.")
    expect(cell(ada, 3)).to_contain_text("5")

    ask(ada, "name = input('Who? '); name * 2")
    bob.get_by_label("Input for cell 4").fill("ho")
    bob.get_by_label("Input for cell 4").press("Enter")
    expect(cell(ada, 4)).to_contain_text("hoho")

    ada.get_by_role("button", name="Restart").click()
    expect(ada.get_by_role("status").filter(has_text="Not started")).to_be_visible()
    ask(bob, "'x' in globals()")
    expect(ada.get_by_text("A new interpreter")).to_be_visible()
    expect(ada.locator(".cell").last).to_contain_text("False")
    ask(ada, "exit()")
    expect(bob.locator(".cell").last).to_contain_text("its variables are gone")
    ada.reload()
    show_again = ada.get_by_role("tab", name="Cells")
    expect(show_again).to_be_visible()
    expect(ada.locator(".cell").first).to_contain_text("x = 5")
    ada.get_by_role("button", name="Clear").click()
    for page in (ada, bob):
        expect(page.locator(".cell")).to_have_count(0)


def test_pictures_and_tables_are_shown_where_they_cannot_do_harm(server: Server, person: Person) -> None:
    ada = person()
    land(ada, server.url)
    show(ada)
    ask(
        ada,
        "class T:\n    def _repr_html_(self): return '<table><tr><td>tab<td>le</table><script>try{parent.document.title=1}catch(e){}</script>'\nT()",
    )
    frame = ada.frame_locator(".cell-page")
    expect(frame.get_by_text("tab")).to_be_visible()
    expect(ada.locator(".cell-page")).not_to_have_attribute(
        "style", re.compile("120px")
    )  # as high as it says
    ask(
        ada,
        'class P:\n    def _repr_svg_(self): return \'<svg xmlns="http://www.w3.org/2000/svg" width="90" height="60"><rect width="90" height="60" fill="teal"/></svg>\'\nP()',
    )
    picture = ada.get_by_alt_text("What cell 2 shows")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 90


def test_cells_on_a_phone(server: Server, person: Person) -> None:
    phone = person(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    land(phone, server.url)
    phone.get_by_role("button", name="Output").last.click()
    phone.get_by_role("tab", name="Cells").click()
    ask(phone, "6 * 7")
    expect(cell(phone, 1)).to_contain_text("42")
    for name in ("Interrupt", "Restart", "Clear"):
        box = phone.get_by_role("button", name=name).bounding_box()
        assert box is not None
        assert box["height"] >= 36
        assert box["x"] + box["width"] <= 390
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
