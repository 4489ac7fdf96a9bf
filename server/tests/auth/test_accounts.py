"""Guests, accounts, log-ins, passwords: what works, and what is refused by name."""

from __future__ import annotations

import asyncio
from http.cookies import SimpleCookie

import httpx2
import pytest
from fastapi import FastAPI

from atelier import times
from atelier.auth import COOKIE
from atelier.auth.tokens import make_access_token
from atelier.services import Services

from ..conftest import BASE, MakeGuest, client_of, invite, session_of

ADA = {"email": "Ada@Example.org", "password": "correct horse battery", "display_name": "Ada"}


async def sign_up(client: httpx2.AsyncClient, **changes: str) -> httpx2.Response:
    return await client.post("/api/v1/users", json={**ADA, **changes}, headers={"Origin": BASE})


async def test_a_guest_comes_in_with_a_token_and_a_cookie_that_scripts_cannot_read(
    client: httpx2.AsyncClient,
) -> None:
    answer = await client.post("/api/v1/guests", json={"display_name": "  Ada  "})
    assert answer.status_code == 201
    assert answer.json()["user"]["display_name"] == "Ada"
    cookie = SimpleCookie(answer.headers["set-cookie"])[COOKIE]
    assert cookie["httponly"]
    assert cookie["samesite"] == "lax"
    me = await client.get("/api/v1/me")
    assert me.json()["id"] == answer.json()["user"]["id"]


async def test_the_first_account_is_admin_and_only_one_of_two_at_once(app: FastAPI) -> None:
    async with client_of(app) as one, client_of(app) as two:
        answers = await asyncio.gather(sign_up(one), sign_up(two, email="bob@example.org"))
    assert sorted(a.json()["user"]["is_admin"] for a in answers) == [False, True]


async def test_a_guest_who_signs_up_keeps_their_sessions(app: FastAPI, guest: MakeGuest) -> None:
    ada = await guest()
    session_id = await session_of(ada)
    answer = await ada.http.post("/api/v1/users", json=ADA)
    assert answer.status_code == 201
    assert answer.json()["user"]["id"] == ada.id
    async with client_of(app) as elsewhere:
        token = (await elsewhere.post("/api/v1/tokens", json=ADA)).json()["access_token"]
        found = await elsewhere.get(
            f"/api/v1/sessions/{session_id}", headers={"Authorization": f"Bearer {token}"}
        )
    assert found.json()["role"] == "owner"


async def test_a_guest_who_logs_in_takes_sessions_along_and_the_stronger_role_wins(
    client: httpx2.AsyncClient, guest: MakeGuest
) -> None:
    account = (await sign_up(client)).json()
    host = await guest("Host")
    shared, own = await session_of(host), ""
    visitor = await guest("Visitor")
    await invite(host, shared, visitor, "edit")
    own = await session_of(visitor)
    link = await host.ok("POST", f"/sessions/{shared}/links", json={"role": "view"})
    bearer = {"Authorization": f"Bearer {account['access_token']}"}
    await client.post(f"/api/v1/links/{link['token']}/join", headers=bearer)
    merged = await visitor.http.post("/api/v1/tokens", json=ADA)
    assert merged.status_code == 200
    listed = (await client.get("/api/v1/sessions", headers=bearer)).json()["items"]
    assert {item["id"]: item["role"] for item in listed} == {shared: "edit", own: "owner"}


@pytest.mark.parametrize("email", [ADA["email"], "nobody@example.org"])
async def test_a_wrong_password_and_an_unknown_address_are_refused_alike(
    client: httpx2.AsyncClient, email: str
) -> None:
    await sign_up(client)
    answer = await client.post(
        "/api/v1/tokens", json={"email": email, "password": "not this one"}, headers={"Origin": BASE}
    )
    assert (answer.status_code, answer.json()["code"]) == (401, "wrong_credentials")


async def test_an_address_has_one_account_whatever_its_case(client: httpx2.AsyncClient) -> None:
    assert (await sign_up(client)).status_code == 201
    again = await sign_up(client, email="ADA@EXAMPLE.ORG")
    assert (again.status_code, again.json()["code"]) == (409, "email_taken")


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"password": "short"}, "password_too_short"), ({"password": "x" * 300}, "password_too_long"), ({"email": "no address"}, "invalid_request"),
     ({"display_name": "\x07"}, "invalid_request")],
)  # fmt: skip
async def test_bad_sign_ups_are_refused_by_name(
    client: httpx2.AsyncClient, changes: dict[str, str], code: str
) -> None:
    answer = await sign_up(client, **changes)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


async def test_a_refresh_token_works_once_and_a_second_use_ends_its_family(
    client: httpx2.AsyncClient,
) -> None:
    first = (await client.post("/api/v1/guests", json={"display_name": "Ada"})).json()["refresh_token"]

    async def trade(token: str) -> httpx2.Response:
        return await client.post("/api/v1/tokens/refresh", json={"refresh_token": token})

    second = await trade(first)
    assert second.status_code == 200
    assert (await trade(first)).json()["code"] == "refresh_invalid"
    assert (await trade(second.json()["refresh_token"])).json()["code"] == "refresh_invalid"


async def test_a_token_from_before_the_clock_was_set_back_is_good(
    client: httpx2.AsyncClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_id = (await client.post("/api/v1/guests", json={"display_name": "Ada"})).json()["user"]["id"]
    later = times.now() + 600_000
    with monkeypatch.context() as patch:
        patch.setattr(times, "now", lambda: later)
        token = make_access_token(services.secret_key, user_id)
    answer = await client.get("/api/v1/me", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200


async def test_tokens_that_are_old_foreign_or_broken_are_refused(
    client: httpx2.AsyncClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_id = (await client.post("/api/v1/guests", json={"display_name": "Ada"})).json()["user"]["id"]
    foreign = make_access_token("another key that is long enough to sign", user_id)
    yesterday = times.now() - times.DAY
    with monkeypatch.context() as patch:
        patch.setattr(times, "now", lambda: yesterday)
        old = make_access_token(services.secret_key, user_id)
    for token, code in ((foreign, "token_invalid"), (old, "token_expired"), ("x.y.z", "token_invalid")):
        answer = await client.get("/api/v1/me", headers={"Authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.json()["code"]) == (401, code)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": BASE, "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_another_site_cannot_use_this_browser_s_login(
    client: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    await client.post("/api/v1/guests", json={"display_name": "Ada"})
    answer = await client.post("/api/v1/sessions", json={"name": "stolen"}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "cross_site")


async def test_a_changed_password_ends_other_logins_and_keeps_this_one(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    await sign_up(client)
    async with client_of(app) as other:
        await other.post("/api/v1/tokens", json=ADA)
        body = {"current_password": ADA["password"], "new_password": "a new one that is long"}
        assert (
            await client.put("/api/v1/me/password", json=body, headers={"Origin": BASE})
        ).status_code == 204
        assert (await other.get("/api/v1/me")).status_code == 401
    assert (await client.get("/api/v1/me")).status_code == 200


async def test_log_out_ends_the_login(client: httpx2.AsyncClient) -> None:
    await client.post("/api/v1/guests", json={"display_name": "Ada"})
    secret = client.cookies[COOKIE]
    assert (await client.delete("/api/v1/logins/current", headers={"Origin": BASE})).status_code == 204
    answer = await client.get("/api/v1/me", headers={"Cookie": f"{COOKIE}={secret}"})
    assert answer.status_code == 401


async def test_attempts_are_limited_with_a_time_to_come_back(settings_tight: httpx2.AsyncClient) -> None:
    codes = [
        (await settings_tight.post("/api/v1/tokens", json={"email": "a@b.org", "password": "x"}))
        for _ in range(4)
    ]
    assert [answer.status_code for answer in codes] == [401, 401, 429, 429]
    assert int(codes[-1].headers["retry-after"]) > 0


async def test_preferences_are_merged_and_bounded(client: httpx2.AsyncClient) -> None:
    await client.post("/api/v1/guests", json={"display_name": "Ada"})
    for preferences in ({"theme": "dark"}, {"size": 14}, {"theme": None}):
        answer = await client.patch("/api/v1/me", json={"preferences": preferences}, headers={"Origin": BASE})
    assert answer.json()["preferences"] == {"size": 14}
    huge = await client.patch(
        "/api/v1/me", json={"preferences": {"x": "y" * 20_000}}, headers={"Origin": BASE}
    )
    assert huge.json()["code"] == "preferences_too_large"
