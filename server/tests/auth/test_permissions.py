"""One table decides; the routes are held against it."""

from __future__ import annotations

import itertools

import pytest

from atelier.auth import Action, Role, allows

from ..conftest import MakeGuest, invite, session_of

ORDER = [Role.VIEW, Role.COMMENT, Role.RUN, Role.EDIT, Role.OWNER]


def test_each_role_may_do_what_the_weaker_one_may_and_more() -> None:
    granted = [{action for action in Action if allows(role, action)} for role in ORDER]
    assert all(weaker < stronger for weaker, stronger in itertools.pairwise(granted))
    assert granted[-1] == set(Action)


CASES = [
    ("GET", "/files", None, Role.VIEW),
    ("GET", "/members", None, Role.VIEW),
    ("GET", "/runs", None, Role.VIEW),
    ("POST", "/runs", {"entry": "none.py"}, Role.RUN),
    ("POST", "/folders", {"path": "new"}, Role.EDIT),
    ("POST", "/replacements", {"q": "zzz", "replacement": "y"}, Role.EDIT),
    ("GET", "/links", None, Role.OWNER),
    ("POST", "/links", {"role": "view"}, Role.OWNER),
    ("PATCH", "", {"name": "Renamed"}, Role.OWNER),
]


@pytest.mark.parametrize("role", ORDER[:-1])
async def test_routes_obey_the_table(guest: MakeGuest, role: Role) -> None:
    owner, member = await guest("Owner"), await guest("Member")
    session_id = await session_of(owner)
    await invite(owner, session_id, member, role.value)
    for method, path, body, least in CASES:
        answer = await member.http.request(method, f"/api/v1/sessions/{session_id}{path}", json=body)
        refused = answer.status_code == 403 and answer.json()["code"] == "role_forbids"
        assert refused == (ORDER.index(role) < ORDER.index(least)), (method, path, answer.text)


async def test_a_stranger_learns_nothing(guest: MakeGuest) -> None:
    owner, stranger = await guest("Owner"), await guest("Stranger")
    session_id = await session_of(owner)
    for method, path, body, _ in CASES:
        real = await stranger.http.request(method, f"/api/v1/sessions/{session_id}{path}", json=body)
        none = await stranger.http.request(method, f"/api/v1/sessions/ses_none{path}", json=body)
        assert (real.status_code, real.json()["code"]) == (404, "session_not_found"), path
        assert {k: v for k, v in real.json().items() if k != "id"} == {
            k: v for k, v in none.json().items() if k != "id"
        }
