"""Whether a session's programs reach the internet: who decides, who is told, and what their programs find."""

from __future__ import annotations

from dataclasses import replace

import pytest

from atelier.events import queries as stored_events
from atelier.services import Services
from atelier.settings import Settings, from_environment

from ..conftest import MakeGuest, Somebody, client_of, invite, running, session_of
from ..runs.test_runs import begin, events, printed

PROXY = "import os; print(os.environ.get('HTTPS_PROXY'))"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A server whose operator allows it."""
    return replace(settings, egress=True)


async def account(person: Somebody, email: str = "ada@example.org") -> Somebody:
    """Make an account of a guest, who keeps their sessions."""
    body = {"email": email, "password": "correct horse battery", "display_name": person.name}
    made = await person.ok("POST", "/users", json=body)
    person.http.headers["Authorization"] = f"Bearer {made['access_token']}"
    return person


async def output(person: Somebody, session_id: str) -> str:
    run = await begin(person, session_id, PROXY)
    return printed(await events(person, session_id, run)).strip()


async def test_an_owner_switches_it_on_for_what_starts_from_then_on(guest: MakeGuest) -> None:
    ada = await account(await guest("Ada"))
    session = await session_of(ada)
    assert (await ada.ok("GET", f"/sessions/{session}"))["egress"] == {
        "on": False,
        "allowed": True,
        "by": None,
        "at": None,
    }
    assert await output(ada, session) == "None"
    changed = await ada.ok("PUT", f"/sessions/{session}/egress", json={"on": True})
    assert changed["egress"]["on"]
    assert changed["egress"]["by"] == "Ada"
    assert changed["egress"]["at"] >= changed["created_at"]
    assert await output(ada, session) == "http://127.0.0.1:3128"
    listed = await ada.ok("GET", "/sessions")
    assert listed["items"][0]["egress"] == changed["egress"]
    copy = await ada.ok("POST", f"/sessions/{session}/duplicate")
    assert not copy["egress"]["on"]
    await ada.ok("PUT", f"/sessions/{session}/egress", json={"on": False})
    assert await output(ada, session) == "None"


async def test_what_cannot_be_reached_is_said_in_the_output(guest: MakeGuest) -> None:
    ada = await account(await guest("Ada"))
    session = await session_of(ada)
    await ada.ok("PUT", f"/sessions/{session}/egress", json={"on": True})
    program = "import urllib.request\nurllib.request.urlopen('https://169.254.169.254/latest/meta-data/')"
    said = printed(await events(ada, session, await begin(ada, session, program)), "stderr")
    assert "403 Atelier: 169.254.169.254 is not on the public internet" in said


@pytest.mark.parametrize("role", ["view", "comment", "run", "edit"])
async def test_nobody_but_an_owner_decides_it(guest: MakeGuest, role: str) -> None:
    ada, bob = await account(await guest("Ada")), await account(await guest("Bob"), "bob@example.org")
    session = await session_of(ada)
    await invite(ada, session, bob, role)
    for on in (True, False):
        await bob.refused(403, "role_forbids", "PUT", f"/sessions/{session}/egress", json={"on": on})
    stranger = await account(await guest("Eve"), "eve@example.org")
    await stranger.refused(404, "session_not_found", "PUT", f"/sessions/{session}/egress", json={"on": True})


async def test_a_guest_may_switch_it_off_and_not_on(guest: MakeGuest) -> None:
    ada = await guest("Ada")
    session = await session_of(ada)
    await ada.refused(403, "account_needed", "PUT", f"/sessions/{session}/egress", json={"on": True})
    await ada.ok("PUT", f"/sessions/{session}/egress", json={"on": False})


async def test_everybody_in_the_session_is_told(guest: MakeGuest, services: Services) -> None:
    ada = await account(await guest("Ada"))
    session = await session_of(ada)
    await ada.ok("PUT", f"/sessions/{session}/egress", json={"on": True})
    async with services.db.begin() as db:
        told = (await stored_events.after(db, session, 0, 100))[-1]
    assert told["type"] == "session.changed"
    assert (told["data"]["egress"]["on"], told["data"]["egress"]["by"]) == (True, "Ada")


async def test_where_the_operator_takes_it_back_nobody_has_it(settings: Settings) -> None:
    async with running(settings) as app:
        async with client_of(app) as http:
            made = (await http.post("/api/v1/guests", json={"display_name": "Ada"})).json()
            http.headers["Authorization"] = f"Bearer {made['access_token']}"
            ada = await account(Somebody(made["user"]["id"], "Ada", made["access_token"], http))
            session = await session_of(ada)
            await ada.ok("PUT", f"/sessions/{session}/egress", json={"on": True})
            bearer = http.headers["Authorization"]
    async with running(replace(settings, egress=False)) as app:
        async with client_of(app, Authorization=bearer) as http:
            ada = replace(ada, http=http)
            shown = (await ada.ok("GET", f"/sessions/{session}"))["egress"]
            assert shown == {"on": False, "allowed": False, "by": None, "at": None}
            assert await output(ada, session) == "None"
            on = {"json": {"on": True}}
            await ada.refused(403, "egress_not_allowed", "PUT", f"/sessions/{session}/egress", **on)


@pytest.mark.parametrize(("text", "expected"), [("on", True), ("off", False), ("true", True), ("0", False)])
def test_it_is_off_until_the_operator_says_on(text: str, expected: bool) -> None:
    assert not from_environment({}).egress
    assert from_environment({"ATELIER_EGRESS": text}).egress is expected
