"""Packages in a real browser: installed before the first run, there for the next, refused in words, listed by an admin."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy.package_index import Index, package_index
from playwright.sync_api import expect

from .conftest import Person, Server
from .story import land, output, run
from .test_run_files import put
from .test_terminals import enter, screen

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def index() -> Iterator[Index]:
    with package_index() as served:
        served.wheel("moo", "1.0", {"moo.py": "def say(): return 'moo'\n"})
        served.wheel("cowbell", "1.0", {"cowbell.py": ""}, ["moo"])
        yield served


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, index: Index) -> Iterator[Server]:
    folder = tempfile.mkdtemp(prefix="atelier-test-")
    Path(folder).chmod(0o711)
    served = Server(
        tmp_path_factory.mktemp("data"),
        ATELIER_PYTHON_INDEX=f"{index.url}/simple",
        ATELIER_ENVIRONMENTS=folder,
    )
    served.start()
    yield served
    served.stop()
    shutil.rmtree(folder)


def test_packages_are_installed_once_and_what_is_not_allowed_is_refused(
    server: Server, person: Person, index: Index, tmp_path: Path
) -> None:
    admin = person()
    admin.goto(f"{server.url}/signup")
    admin.get_by_label("Name").fill("Root")
    admin.get_by_label("E-mail").fill("root@example.org")
    admin.get_by_label("Password").fill("long enough it is")
    admin.get_by_role("button", name="Make account").click()

    ada = person()
    land(ada, server.url)
    put(ada, "requirements.txt", "cowbell\nmoo>=1\n")
    put(ada, "main.py", "import moo, sys\nprint(moo.say(), sys.prefix != sys.base_prefix)\n")
    run(ada)
    expect(output(ada)).to_contain_text("Installing 2 packages…")
    expect(output(ada)).to_contain_text("moo==1.0")
    expect(output(ada)).to_contain_text("the next run finds it there")
    expect(output(ada)).to_contain_text("moo True")
    expect(output(ada)).to_contain_text("Finished")
    ada.screenshot(path=tmp_path / "installed.png")
    run(ada)
    expect(output(ada)).to_contain_text("Finished")
    expect(output(ada)).to_contain_text("moo True")
    expect(output(ada)).not_to_contain_text("Installing")

    # An installation that takes its time can be stopped.
    index.silent.add("sleepy")
    put(ada, "requirements.txt", "sleepy\n")
    run(ada)
    expect(output(ada)).to_contain_text("Installing packages… Stop ends it.")
    ada.screenshot(path=tmp_path / "installing.png")
    ada.get_by_role("button", name=re.compile("Stop")).first.click()
    expect(output(ada)).to_contain_text("Stopped")

    # What does not exist is said in uv's words.
    put(ada, "requirements.txt", "no-such-package\n")
    run(ada)
    expect(output(ada)).to_contain_text("no-such-package was not found in the package registry")
    expect(output(ada)).to_contain_text("The program did not start: uv could not install the packages")
    ada.screenshot(path=tmp_path / "failed.png")

    # A list of the admin's holds from the next run on.
    admin.goto(f"{server.url}/admin")
    admin.get_by_label("Only the packages listed here").check()
    admin.get_by_label("Python, one on each line").fill("cowbell\nnot a package\n")
    admin.locator("#packages").get_by_role("button", name="Save").click()
    expect(admin.get_by_text("line 2: `not a package` is not a package with versions")).to_be_visible()
    expect(admin.get_by_label("Python, one on each line")).to_have_value("cowbell\nnot a package")
    admin.get_by_label("Python, one on each line").fill("cowbell\n")
    admin.locator("#packages").get_by_role("button", name="Save").click()
    expect(admin.get_by_label("Python, one on each line")).to_have_value("cowbell")
    expect(admin.get_by_label("Only the packages listed here")).to_be_checked()
    admin.screenshot(path=tmp_path / "admin.png", full_page=True)

    put(ada, "requirements.txt", "cowbell\nmoo>=1\n")
    run(ada)
    refusal = ada.get_by_text(
        "requirements.txt, line 2: moo is not on the list of packages that may be installed here."
    )
    expect(refusal).to_be_visible()
    expect(ada.get_by_text("Ask an admin of this server to allow it")).to_be_visible()
    ada.screenshot(path=tmp_path / "refused.png")

    # A terminal has what is allowed, and its commands.
    put(ada, "requirements.txt", "cowbell\n")
    ada.keyboard.press("Escape")
    ada.keyboard.press("Control+`")
    expect(screen(ada)).to_contain_text("/work $", timeout=20_000)
    ada.locator(".xterm-helper-textarea").focus()
    enter(ada, "clear; python -c 'import moo; print(moo.say() * 2)'")
    expect(screen(ada)).to_contain_text("moomoo")
    ada.screenshot(path=tmp_path / "terminal.png")
