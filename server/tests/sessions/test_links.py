"""Share links: roles, expiry, uses, revocation, also when many come at once."""

from __future__ import annotations

import asyncio

import pytest

from atelier import times

from ..conftest import MakeGuest, invite, session_of


async def test_a_link_brings_a_stranger_in_and_its_token_is_shown_once(guest: MakeGuest) -> None:
    owner, other = await guest("Owner"), await guest("Other")
    session_id = await session_of(owner)
    link = await owner.ok("POST", f"/sessions/{session_id}/links", json={"role": "run"})
    assert link["url"].endswith(f"/j/{link['token']}")
    joined = await other.ok("POST", f"/links/{link['token']}/join")
    assert (joined["role"], joined["session"]["id"]) == ("run", session_id)
    assert "access_token" in joined
    listed = (await owner.ok("GET", f"/sessions/{session_id}/links"))["items"]
    assert listed[0]["uses"] == 1
    assert "token" not in listed[0]


async def test_somebody_without_a_login_becomes_a_guest(guest: MakeGuest, client) -> None:  # type: ignore[no-untyped-def]
    owner = await guest("Owner")
    link = await owner.ok("POST", f"/sessions/{await session_of(owner)}/links", json={"role": "edit"})
    answer = await client.post(f"/api/v1/links/{link['token']}/join", json={"display_name": "New here"})
    assert answer.json()["user"]["display_name"] == "New here"
    assert answer.json()["access_token"]


async def test_exactly_as_many_come_in_as_a_link_has_uses(guest: MakeGuest) -> None:
    owner = await guest("Owner")
    session_id = await session_of(owner)
    link = await owner.ok("POST", f"/sessions/{session_id}/links", json={"role": "view", "max_uses": 3})
    people = [await guest(f"P{n}") for n in range(8)]
    answers = await asyncio.gather(*(p.http.post(f"/api/v1/links/{link['token']}/join") for p in people))
    assert sorted(a.status_code for a in answers) == [200] * 3 + [410] * 5
    assert {a.json()["code"] for a in answers if a.status_code == 410} == {"link_used_up"}
    inside = people[[a.status_code for a in answers].index(200)]
    await inside.ok("POST", f"/links/{link['token']}/join")  # a member uses nothing up
    assert len((await owner.ok("GET", f"/sessions/{session_id}/members"))["items"]) == 4


async def test_an_expired_link_is_gone(guest: MakeGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, other = await guest("Owner"), await guest("Other")
    link = await owner.ok(
        "POST", f"/sessions/{await session_of(owner)}/links", json={"role": "view", "expires_in": 60}
    )
    later = times.now() + 61 * times.SECOND
    monkeypatch.setattr(times, "now", lambda: later)
    await other.refused(410, "link_expired", "POST", f"/links/{link['token']}/join")


async def test_revoking_takes_out_who_came_by_it_and_nobody_else(guest: MakeGuest) -> None:
    owner, one, two = await guest("Owner"), await guest("One"), await guest("Two")
    session_id = await session_of(owner)
    first = await invite(owner, session_id, one, "edit")
    await invite(owner, session_id, two, "edit")
    await owner.ok("DELETE", f"/sessions/{session_id}/links/{first}")
    await one.refused(404, "session_not_found", "GET", f"/sessions/{session_id}")
    await two.ok("GET", f"/sessions/{session_id}")
    await owner.refused(404, "link_not_found", "DELETE", f"/sessions/{session_id}/links/{first}")


async def test_joining_again_never_weakens_a_role(guest: MakeGuest) -> None:
    owner, other = await guest("Owner"), await guest("Other")
    session_id = await session_of(owner)
    for role, expected in (("run", "run"), ("view", "run"), ("edit", "edit")):
        await invite(owner, session_id, other, role)
        assert (await other.ok("GET", f"/sessions/{session_id}"))["role"] == expected
    await invite(owner, session_id, owner, "view")
    assert (await owner.ok("GET", f"/sessions/{session_id}"))["role"] == "owner"


@pytest.mark.parametrize(
    "body",
    [{"role": "owner"}, {"role": "view", "expires_in": 0}, {"role": "view", "max_uses": -1}, {"role": "x"}],
)
async def test_bad_links_are_refused(guest: MakeGuest, body: dict[str, object]) -> None:
    owner = await guest("Owner")
    await owner.refused(
        422, "invalid_request", "POST", f"/sessions/{await session_of(owner)}/links", json=body
    )


async def test_the_last_owner_stays_and_others_may_leave(guest: MakeGuest) -> None:
    owner, other = await guest("Owner"), await guest("Other")
    session_id = await session_of(owner)
    await invite(owner, session_id, other, "edit")
    members = f"/sessions/{session_id}/members"
    await owner.refused(409, "last_owner", "DELETE", f"{members}/{owner.id}")
    await owner.refused(409, "last_owner", "PATCH", f"{members}/{owner.id}", json={"role": "edit"})
    await other.refused(403, "role_forbids", "PATCH", f"{members}/{other.id}", json={"role": "owner"})
    await owner.ok("PATCH", f"{members}/{other.id}", json={"role": "owner"})
    await owner.ok("DELETE", f"{members}/{owner.id}")
    await owner.refused(404, "session_not_found", "GET", f"/sessions/{session_id}")
