"""Admins: people and switches; nobody removes themself or the last admin."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from fastapi import FastAPI

from atelier.services import Services

from ..conftest import BASE, MakeGuest, client_of, session_of


@asynccontextmanager
async def account(app: FastAPI, name: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(app, Origin=BASE) as client:
        body = {"email": f"{name}@example.org", "password": "long enough it is", "display_name": name}
        assert (await client.post("/api/v1/users", json=body)).status_code == 201
        yield client


async def test_admins_promote_demote_and_delete_but_not_themselves(app: FastAPI) -> None:
    async with account(app, "ada") as ada, account(app, "bob") as bob:
        users = {u["display_name"]: u["id"] for u in (await ada.get("/api/v1/admin/users")).json()["items"]}
        assert (await bob.get("/api/v1/admin/users")).json()["code"] == "admin_only"
        own = f"/api/v1/admin/users/{users['ada']}"
        assert (await ada.patch(own, json={"is_admin": False})).json()["code"] == "not_yourself"
        assert (await ada.delete(own)).json()["code"] == "not_yourself"
        other = f"/api/v1/admin/users/{users['bob']}"
        assert (await ada.patch(other, json={"is_admin": True})).json()["is_admin"]
        assert (await bob.patch(own, json={"is_admin": False})).status_code == 200
        assert (await ada.get("/api/v1/admin/users")).status_code == 403
        assert (await bob.delete(own)).status_code == 204
        assert (await ada.get("/api/v1/me")).status_code == 401


async def test_deleting_a_person_takes_what_only_they_owned(
    app: FastAPI, guest: MakeGuest, services: Services
) -> None:
    async with account(app, "ada") as ada:
        lone, other = await guest("Lone"), await guest("Other")
        own, shared = await session_of(lone, "python"), await session_of(lone)
        assert await services.log.survey(f"{own}:")
        link = await lone.ok("POST", f"/sessions/{shared}/links", json={"role": "edit"})
        await other.ok("POST", f"/links/{link['token']}/join")
        await lone.ok("PATCH", f"/sessions/{shared}/members/{other.id}", json={"role": "owner"})
        assert (await ada.delete(f"/api/v1/admin/users/{lone.id}")).status_code == 204
        await other.ok("GET", f"/sessions/{shared}")
        assert (await lone.http.get(f"/api/v1/sessions/{own}")).status_code == 401
        assert await services.log.survey(f"{own}:") == []


async def test_sign_up_can_be_switched_off(app: FastAPI, client: httpx2.AsyncClient) -> None:
    async with account(app, "ada") as ada:
        await ada.put("/api/v1/admin/switches", json={"sign_up": False})
        body = {"email": "x@example.org", "password": "long enough it is", "display_name": "X"}
        answer = await client.post("/api/v1/users", json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "sign_up_closed")
