"""The main job: one opens the workshop, one follows a link; both write, run, and see the same."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from .conftest import Person, Server
from .story import (
    join,
    land,
    open_file,
    output,
    ready,
    run,
    share,
    status,
    text,
    type_at_end,
    type_at_start,
)

pytestmark = pytest.mark.e2e


def test_a_stranger_lands_in_a_program_and_runs_it(server: Server, person: Person) -> None:
    ada = person()
    land(ada, server.url)
    expect(text(ada)).to_contain_text("import")
    run(ada)
    expect(output(ada)).to_contain_text(re.compile("exited|Finished|Done", re.IGNORECASE))


def test_the_text_is_in_the_page_before_any_script(server: Server, person: Person) -> None:
    ada = person(java_script_enabled=False)
    ada.goto(server.url + "/")
    expect(ada.locator("pre.first-text")).to_contain_text("import")


def test_two_people_write_in_one_file_and_see_what_run_prints(server: Server, person: Person) -> None:
    ada, bob = person(), person()
    land(ada, server.url)
    join(bob, share(ada), "Bob")
    expect(ada.get_by_role("button", name=re.compile("Bob")).first).to_be_visible()

    type_at_start(ada, "# by Ada\n")
    expect(text(bob)).to_contain_text("# by Ada")
    type_at_end(bob, "\nprint('six times seven', 6 * 7)\n")
    expect(text(ada)).to_contain_text("six times seven")
    expect(ada.locator(".cm-person, .cm-caret").first).to_be_attached()

    run(bob)
    for page in (ada, bob):
        expect(output(page)).to_contain_text("six times seven 42")


def test_a_person_who_leaves_is_gone_within_two_seconds(server: Server, person: Person) -> None:
    ada, bob = person(), person()
    land(ada, server.url)
    join(bob, share(ada), "Brief Bob")
    seen = ada.get_by_role("button", name=re.compile("Brief Bob"))
    expect(seen.first).to_be_visible()
    bob.close()
    expect(seen).to_have_count(0, timeout=2_000)


def test_an_error_marks_its_line_and_a_click_goes_there(server: Server, person: Person) -> None:
    ada = person()
    land(ada, server.url)
    type_at_start(ada, "raise ValueError('on purpose')\n")
    expect(status(ada)).to_have_text(re.compile("Saved"))
    run(ada)
    expect(output(ada)).to_contain_text("on purpose")
    expect(ada.locator(".cm-run-line").first).to_be_visible()
    ada.keyboard.press("ControlOrMeta+End")
    output(ada).get_by_role("button", name=re.compile("main.py")).first.click()
    expect(ada.locator("[data-cursor]").first).to_contain_text(re.compile(r"\b1:"))


def test_what_was_undone_stays_one_s_own_also_after_a_reload(server: Server, person: Person) -> None:
    ada, bob = person(), person()
    land(ada, server.url)
    join(bob, share(ada), "Bob")
    type_at_start(ada, "# ada was here\n")
    expect(text(bob)).to_contain_text("# ada was here")
    type_at_end(bob, "\n# bob was here\n")
    expect(text(ada)).to_contain_text("# bob was here")
    expect(status(ada)).to_have_text(re.compile("Saved"))
    ada.reload()
    ready(ada)
    text(ada).click()
    ada.keyboard.press("ControlOrMeta+z")
    expect(text(ada)).not_to_contain_text("# ada was here")
    expect(text(ada)).to_contain_text("# bob was here")
    expect(text(bob)).not_to_contain_text("# ada was here")


def test_a_c_program_is_compiled_and_its_errors_are_marked(server: Server, person: Person) -> None:
    ada = person()
    land(ada, server.url)
    session = ada.url.rsplit("/", 1)[-1].split("?")[0]
    source = '#include <stdio.h>\\nint main() {\\n  puts("from C");\\n  return x;\\n}\\n'
    put = f"fetch('/api/v1/sessions/{session}/files/hello.c', {{method: 'PUT', body: '{source}'}}).then(a => a.status)"
    assert ada.evaluate(put) in (200, 201)
    open_file(ada, "hello.c")
    run(ada)
    expect(output(ada)).to_contain_text("It could not be compiled.", timeout=30_000)
    expect(ada.locator(".cm-run-line").first).to_contain_text("return x;")
    output(ada).get_by_role("button", name=re.compile("hello.c:4")).first.click()
    expect(ada.locator("[data-cursor]").first).to_contain_text(re.compile(r"\b4:10"))
    type_at_start(ada, "static int x;\n")
    expect(status(ada)).to_have_text(re.compile("Saved"))
    run(ada)
    expect(output(ada)).to_contain_text("from C", timeout=30_000)
    expect(ada.locator(".cm-run-line")).to_have_count(0)
    assert ada.locator(".cm-content .tok-keyword, .cm-content span[class]").count() > 3
