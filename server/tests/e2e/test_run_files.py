"""What a program leaves: files that merge with what people type, pictures and tables under the run, pages that reach nothing."""

from __future__ import annotations

import base64
import re
import struct
import zlib

import pytest
from playwright.sync_api import Page, expect

from .conftest import Person, Server
from .story import join, land, open_file, output, run, share, status, text, type_at_start
from .test_views import SIZES, fits, violations

pytestmark = pytest.mark.e2e


def png(width: int, height: int) -> bytes:
    """Return a picture of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\x34\x50\xc8" * width) * height
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


PICTURE = base64.b64encode(png(60, 40)).decode()
PROGRAM = f"""
import base64, json, os
os.makedirs('out', exist_ok=True)
open('out/plot.png', 'wb').write(base64.b64decode('{PICTURE}'))
open('out/table.csv', 'w').write('name,value\\n"x, y",1\\n' + ''.join(f'r{{n}},{{n}}\\n' for n in range(150)))
open('notes.txt', 'a').write('from the program\\n')
os.symlink('/etc/passwd', 'out/link')
open('out/broken.gif', 'w').write('no picture')
print('waiting', flush=True)
input()
"""


def put(page: Page, path: str, content: str) -> None:
    """Write a file as the person of a page."""
    session = page.url.rsplit("/", 1)[-1].split("?")[0]
    script = "([url, body]) => fetch(url, {method: 'PUT', body}).then(answer => answer.status)"
    assert page.evaluate(script, [f"/api/v1/sessions/{session}/files/{path}", content]) in (200, 201)


def test_files_merge_with_what_another_types_and_are_shown_under_the_run(
    server: Server, person: Person
) -> None:
    ada, bob = person(), person()
    land(ada, server.url)
    put(ada, "notes.txt", "first line\nlast line\n")
    put(ada, "main.py", PROGRAM)
    join(bob, share(ada), "Bob")
    open_file(bob, "notes.txt")
    expect(text(ada)).to_contain_text("from the program")
    run(ada)
    expect(output(ada)).to_contain_text("waiting")
    type_at_start(bob, "Bob types ")
    expect(status(bob)).to_have_text(re.compile("Saved"))
    ada.get_by_label("Input for the program").fill("go")
    ada.keyboard.press("Enter")

    left = ada.get_by_role("region", name="What main.py left")
    expect(left).to_be_visible()
    expect(text(bob)).to_contain_text("Bob types first line")
    expect(text(bob)).to_contain_text("from the program")
    made = left.get_by_role("list", name="Files of this run")
    expect(made).to_contain_text("notes.txt")
    expect(made).to_contain_text("out/table.csv")
    picture = left.get_by_role("img", name="out/plot.png")
    expect(picture).to_be_visible()
    assert picture.evaluate(
        "image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])"
    ) == [60, 40]
    expect(left.get_by_role("cell", name="x, y")).to_be_visible()
    expect(left).to_contain_text("151 rows, the first 100 are shown")
    expect(left).to_contain_text("It cannot be shown: it is no picture")
    left.get_by_text("1 thing was left out").click()
    expect(left).to_contain_text("Links are not taken over.")

    # Bob sees the same, and what he goes on typing outlives that Ada takes the program's files back.
    seen = bob.get_by_role("region", name="What main.py left")
    expect(seen.get_by_role("img", name="out/plot.png")).to_be_visible()
    expect(seen.get_by_role("button", name="Take back")).to_have_count(0)
    type_at_start(bob, "More. ")
    expect(status(bob)).to_have_text(re.compile("Saved"))
    left.get_by_role("button", name="Take back").click()
    expect(text(bob)).not_to_contain_text("from the program")
    expect(text(bob)).to_contain_text("More. Bob types first line")
    expect(ada.get_by_role("treeitem", name=re.compile("plot.png"))).to_have_count(0)
    expect(picture).to_be_visible()
    left.get_by_role("list", name="Files of this run").get_by_role("button", name="notes.txt").click()
    expect(ada.get_by_role("tab", name=re.compile("notes.txt"), selected=True)).to_be_visible()


HOSTILE = """<!doctype html><title>x</title><p id="said">nothing</p><script>
const tries = {
  cookie: () => document.cookie,
  parent: () => parent.document.title,
  top: () => { if (top === self) throw Error('it is'); top.location = 'about:blank'; },
  storage: () => localStorage.length,
};
const said = Object.entries(tries).map(([name, go]) => { try { go(); return name + ' ALLOWED'; } catch (e) { return name + ' refused'; } });
const image = new Promise((done) => { const i = new Image(); i.onload = () => done('image ALLOWED'); i.onerror = () => done('image refused'); i.src = '/static/icon.svg'; });
const data = fetch('/api/v1/limits').then(() => 'fetch ALLOWED', () => 'fetch refused');
Promise.all([image, data]).then((more) => { document.querySelector('#said').textContent = [origin, ...said, ...more].join(', '); });
</script>"""
PAGES = f"""
open('page.html', 'w').write({HOSTILE!r})
open('drawing.svg', 'w').write('<svg xmlns="http://www.w3.org/2000/svg" width="50" height="30"><rect width="50" height="30" fill="red"/><script>parent.document.title = "OWNED"</script></svg>')
"""


def test_a_page_runs_without_an_origin_and_reaches_nothing(server: Server, person: Person) -> None:
    ada, bob = person(), person()
    land(ada, server.url)
    put(ada, "main.py", PAGES)
    join(bob, share(ada), "Bob")
    expect(text(ada)).to_contain_text("drawing.svg")
    run(ada)
    frame = ada.frame_locator("iframe[title='page.html']")
    expect(frame.locator("#said")).to_have_text(
        "null, cookie refused, parent refused, top refused, storage refused, image refused, fetch refused"
    )
    drawing = ada.get_by_role("img", name="drawing.svg")
    assert drawing.evaluate("image => image.decode().then(() => image.naturalWidth)") == 50
    assert "OWNED" not in ada.title()
    # A page of somebody else's waits for a click.
    seen = bob.get_by_role("region", name="What main.py left")
    expect(seen).to_be_visible()
    expect(bob.locator("iframe")).to_have_count(0)
    seen.locator("summary", has_text="page.html").click()
    expect(bob.frame_locator("iframe[title='page.html']").locator("#said")).to_contain_text("cookie refused")
    # Opened by itself it is no more than in the frame.
    address = ada.locator("iframe[title='page.html']").get_attribute("src")
    alone = ada.context.new_page()
    alone.goto(f"{server.url}{address}")
    expect(alone.locator("#said")).to_contain_text("null, cookie refused")
    expect(alone.locator("#said")).to_contain_text("storage refused, image refused, fetch refused")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
def test_what_a_run_left_is_accessible(server: Server, person: Person, size: str, scheme: str) -> None:
    ada = person(
        viewport=SIZES[size], color_scheme=scheme, has_touch=size == "phone", is_mobile=size == "phone"
    )
    land(ada, server.url)
    put(
        ada,
        "main.py",
        PROGRAM.replace("input()", "open('x.json', 'w').write('{\"a\": [1]}')\nos.remove('names.txt')"),
    )
    expect(text(ada)).to_contain_text("plot.png")
    run(ada)
    left = ada.get_by_role("region", name="What main.py left")
    expect(left.get_by_role("cell", name="x, y")).to_be_visible()
    expect(left).to_contain_text("in the trash")
    expect(left.get_by_role("region", name="x.json")).to_contain_text('"a": [')
    left.get_by_text("1 thing was left out").click()
    assert violations(ada) == []
    assert fits(ada)
