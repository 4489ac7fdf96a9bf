"""A session's requirements.txt and package.json: installed before its programs run, as far as admins allow it."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from deploy.package_index import Index, package_index
from fastapi import FastAPI

from atelier.settings import Settings

from ..admin.test_admin import account
from ..conftest import MakeGuest, Somebody, client_of, running, session_of
from ..runner_service import SECRET, runner_service
from .test_runs import begin, events, printed


@pytest.fixture
def index() -> Iterator[Index]:
    with package_index() as served:
        served.wheel("moo", "1.0", {"moo.py": "def say(): return 'moo 1'\n"})
        served.wheel("moo", "2.0", {"moo.py": "def say(): return 'moo 2'\n"})
        served.package("cow", "1.2.0", {"index.js": "module.exports = () => 'moo'\n"})
        yield served


@pytest.fixture
def settings(settings: Settings, index: Index) -> Iterator[Settings]:
    folder = Path(
        tempfile.mkdtemp(prefix="atelier-test-")
    )  # pytest's own are closed to the users that programs run as
    folder.chmod(0o711)
    yield replace(settings, environments=folder, python_index=f"{index.url}/simple", npm_registry=index.url)
    shutil.rmtree(folder)


async def put(person: Somebody, session_id: str, path: str, text: str) -> None:
    await person.ok("PUT", f"/sessions/{session_id}/files/{path}", content=text.encode())


MOO = "import moo; print(moo.say())"


async def test_the_first_run_installs_and_the_next_begins_at_once(guest: MakeGuest, index: Index) -> None:
    ada, bob = await guest(), await guest("Bob")
    first, second = await session_of(ada), await session_of(bob)
    for person, session_id in ((ada, first), (bob, second)):
        await put(person, session_id, "requirements.txt", "# what it needs\nMoo<2\n")
    found = await events(ada, first, await begin(ada, first, MOO))
    assert printed(found) == "moo 1\n"
    said = printed(found, "install")
    assert said.startswith("Installing 1 package…\n")
    assert "moo==1.0" in said
    types = [event["type"] for event in found]
    assert types.index("install") < types.index("started") < types.index("stdout")
    asked = len(index.asked)
    found = await events(bob, second, await begin(bob, second, MOO))  # another session, another person
    assert (printed(found), printed(found, "install")) == ("moo 1\n", "")
    assert len(index.asked) == asked


async def cell(person: Somebody, session_id: str, code: str) -> tuple[str, dict[str, str]]:
    """Send a cell; returns its outcome and what each stream of it said."""
    sent = await person.ok("POST", f"/sessions/{session_id}/cells", json={"cells": [{"code": code}]})
    while True:
        listed = (await person.ok("GET", f"/sessions/{session_id}/cells"))["items"]
        found = next(one for one in listed if one["id"] == sent["items"][0]["id"])
        if found["status"] == "ended":
            said: dict[str, str] = {}
            for event in found["events"]:
                said[event["type"]] = said.get(event["type"], "") + event["data"].get("data", "")
            return f"{found['outcome']} {found['detail']}".strip(), said
        await asyncio.sleep(0.05)


async def test_an_interpreter_has_its_session_s_packages(guest: MakeGuest) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    await put(ada, session_id, "requirements.txt", "moo==1.0\n")
    outcome, said = await cell(ada, session_id, "import moo; moo.say()")
    assert (outcome, said["value"]) == ("done", "'moo 1'")
    assert said["install"].startswith("Installing 1 package…\n")
    assert await cell(ada, session_id, "moo.say()") == ("done", {"value": "'moo 1'"})
    other = await session_of(ada)
    await put(ada, other, "requirements.txt", "moo\n-r more.txt\n")
    outcome, _ = await cell(ada, other, "1")
    assert outcome.startswith("skipped requirements.txt, line 2: ")
    await put(ada, other, "requirements.txt", "no-such-package\n")
    outcome, said = await cell(ada, other, "1")
    assert outcome.startswith("died"), outcome
    assert "no-such-package" in said["install"]


async def test_package_json_is_installed_for_javascript_and_not_for_python(
    guest: MakeGuest, index: Index
) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    await put(ada, session_id, "package.json", json.dumps({"dependencies": {"cow": "^1.0.0"}}))
    found = await events(ada, session_id, await begin(ada, session_id, "print('only python')"))
    assert (printed(found), index.asked) == ("only python\n", [])
    program = "import cow from 'cow'; console.log(cow())"
    found = await events(ada, session_id, await begin(ada, session_id, program, name="main.mjs"))
    assert printed(found) == "moo\n", found
    run = (await ada.ok("GET", f"/sessions/{session_id}/runs"))["items"][0]
    assert run["files"] is None or run["files"]["items"] == []
    assert not any(
        file["path"].startswith("node_modules")
        for file in (await ada.ok("GET", f"/sessions/{session_id}/files"))["items"]
    )


async def test_what_cannot_be_read_is_refused_at_once_with_its_line(guest: MakeGuest, index: Index) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    await put(ada, session_id, "main.py", "print(1)")
    await put(ada, session_id, "requirements.txt", "moo\n-r more.txt\n")
    problem = await ada.refused(
        422, "manifest_invalid", "POST", f"/sessions/{session_id}/runs", json={"entry": "main.py"}
    )
    assert problem["detail"].startswith("requirements.txt, line 2: ")
    assert (problem["file"], problem["line"]) == ("requirements.txt", 2)
    assert problem["next_step"]
    assert (await ada.ok("GET", f"/sessions/{session_id}/runs"))["items"] == []
    assert index.asked == []


async def test_only_what_an_admin_allows_is_installed(app: FastAPI, guest: MakeGuest, index: Index) -> None:
    async with account(app, "root") as admin:
        ada = await guest()
        session_id = await session_of(ada)
        await put(ada, session_id, "main.py", MOO)
        await put(ada, session_id, "requirements.txt", "moo\n")
        kept = await admin.put(
            "/api/v1/admin/packages",
            json={"listed": True, "python": ["Other_Package>=2", "# no"], "node": ["@types/*"]},
        )
        assert kept.json() == {"listed": True, "python": ["other-package>=2"], "node": ["@types/*"]}
        assert (await admin.get("/api/v1/admin/packages")).json() == kept.json()
        problem = await ada.refused(
            422, "package_not_allowed", "POST", f"/sessions/{session_id}/runs", json={"entry": "main.py"}
        )
        assert (
            problem["detail"]
            == "requirements.txt, line 1: moo is not on the list of packages that may be installed here."
        )
        assert "admin" in problem["next_step"]
        assert problem["package"] == "moo"
        await admin.put("/api/v1/admin/packages", json={"listed": True, "python": ["moo<2"]})
        found = await events(ada, session_id, await begin(ada, session_id, MOO))
        assert printed(found) == "moo 1\n", found
        wrong = await admin.put(
            "/api/v1/admin/packages", json={"listed": True, "python": ["fine", "not a package"]}
        )
        assert (wrong.status_code, wrong.json()["code"]) == (422, "allow_list_invalid")
        await admin.put("/api/v1/admin/packages", json={"listed": False})
        found = await events(ada, session_id, await begin(ada, session_id, MOO))
        assert printed(found) == "moo 2\n", found
        for method, body in (("GET", None), ("PUT", {"listed": False})):
            await ada.refused(403, "admin_only", method, "/admin/packages", json=body)


async def test_what_cannot_be_installed_ends_the_run_as_environment(guest: MakeGuest) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    await put(ada, session_id, "requirements.txt", "no-such-package\n")
    run_id = await begin(ada, session_id, "print('never')")
    found = await events(ada, session_id, run_id)
    assert "no-such-package was not found" in printed(found, "install")
    assert (found[-1]["reason"], printed(found)) == ("environment", "")
    run = await ada.ok("GET", f"/sessions/{session_id}/runs/{run_id}")
    assert run["result"]["reason"] == "environment"
    assert "uv could not install the packages" in run["result"]["detail"]
    assert run["started_at"] is None


async def test_stop_ends_an_installation(guest: MakeGuest, index: Index) -> None:
    index.silent.add("sleepy")
    ada = await guest()
    session_id = await session_of(ada)
    await put(ada, session_id, "requirements.txt", "sleepy\n")
    run_id = await begin(ada, session_id, "print('never')")
    while "/simple/sleepy/" not in index.waited:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    await ada.ok("DELETE", f"/sessions/{session_id}/runs/{run_id}")
    found = await asyncio.wait_for(events(ada, session_id, run_id), 10)
    assert found[-1]["reason"] == "cancelled"


@pytest.mark.parametrize("refused", [True, False])
async def test_a_terminal_opens_and_says_what_is_wrong(guest: MakeGuest, app: FastAPI, refused: bool) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    await put(ada, session_id, "requirements.txt", "-e .\n" if refused else "moo==1\n")
    terminal = await ada.ok(
        "POST", f"/sessions/{session_id}/terminals", json={"language": "python", "columns": 80, "rows": 24}
    )
    held = app.state.terminals._held[terminal["id"]]
    shown = b""
    async with asyncio.timeout(30):
        while b">>> " not in shown:
            await asyncio.sleep(0.05)
            shown = held.screen.tape.since(0, 1 << 20)
    if refused:
        assert b"requirements.txt, line 1" in shown
    else:
        assert b"moo==1.0" in shown
    await ada.ok("DELETE", f"/sessions/{session_id}/terminals/{terminal['id']}")


async def test_a_runner_elsewhere_installs_too(
    settings: Settings, index: Index, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ATELIER_PYTHON_INDEX", f"{index.url}/simple")
    with runner_service("--install-seconds", "30") as runner:
        remote = replace(settings, sandbox_url=runner.url, runner_secret=SECRET)
        async with running(remote) as app, person_of(app) as ada:
            session_id = await session_of(ada)
            await put(ada, session_id, "requirements.txt", "moo==1\n")
            found = await events(ada, session_id, await begin(ada, session_id, MOO))
            assert (printed(found), "moo==1.0" in printed(found, "install")) == ("moo 1\n", True)
            found = await events(ada, session_id, await begin(ada, session_id, MOO))
            assert (printed(found), printed(found, "install")) == ("moo 1\n", "")


@asynccontextmanager
async def person_of(app: FastAPI) -> AsyncIterator[Somebody]:
    """Make a guest of an application that was opened here."""
    async with client_of(app) as stranger:
        body = (await stranger.post("/api/v1/guests", json={"display_name": "Ada"})).json()
    async with client_of(app, Authorization=f"Bearer {body['access_token']}") as http:
        yield Somebody(body["user"]["id"], "Ada", body["access_token"], http)
