"""What all tests share: settings on a scratch folder, the real application, people and sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from fastapi import FastAPI

from atelier.app import create_app
from atelier.limits import Limits
from atelier.services import Services
from atelier.settings import Settings

BASE = "http://testserver"
pytest_plugins = ["tests.stores"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """What `make soak` asks for; `make test` runs a fixed share."""
    parser.addoption("--soak-minutes", type=float, default=0, help="run schedules of fresh seeds for so long")
    parser.addoption("--histories", type=int, default=300, help="how many histories to compare with Yjs")
    parser.addoption(
        "--fuzz-seconds", type=float, default=3, help="feed each decoder made-up bytes for so long"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what runs for as long as it is asked to, unless it is asked to."""
    if not config.getoption("--soak-minutes"):
        left_out = [item for item in items if item.get_closest_marker("soak")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a server on a scratch folder, with limits that tests do not run into."""
    limits = Limits(guests_per_hour=10_000, log_ins_per_minute=1_000, runs_per_minute=1_000)
    return Settings(data=tmp_path, public_url=BASE, limits=limits).with_defaults()


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[FastAPI]:
    """Run the application's lifespan around a block."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield app


@pytest_asyncio.fixture
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    """The real application, open."""
    async with running(settings) as opened:
        yield opened


@pytest.fixture
def services(app: FastAPI) -> Services:
    """What the application has open."""
    found: Services = app.state.services
    return found


def client_of(app: FastAPI, **headers: str) -> httpx2.AsyncClient:
    """Return a new HTTP client with cookies of its own."""
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url=BASE, headers=headers)


@pytest_asyncio.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """An HTTP client that nobody is logged in with."""
    async with client_of(app) as opened:
        yield opened


@dataclass(frozen=True, slots=True)
class Somebody:
    """A person with a bearer token; `http` speaks for them."""

    id: str
    name: str
    token: str
    http: httpx2.AsyncClient

    async def ok(self, method: str, path: str, **options: Any) -> Any:
        """Send a request that must succeed; returns its JSON, or the answer where there is none."""
        answer = await self.http.request(method, f"/api/v1{path}", **options)
        assert answer.is_success, answer.text
        return (
            answer.json() if answer.content and "json" in answer.headers.get("content-type", "") else answer
        )

    async def refused(self, status: int, code: str, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Send a request that must be refused with this status and code; returns the problem."""
        answer = await self.http.request(method, f"/api/v1{path}", **options)
        assert answer.headers["content-type"] == "application/problem+json", answer.text
        problem: dict[str, Any] = answer.json()
        assert (answer.status_code, problem["code"]) == (status, code), problem
        assert problem["detail"], problem
        return problem


MakeGuest = Callable[..., Awaitable[Somebody]]


@pytest_asyncio.fixture
async def guest(app: FastAPI) -> AsyncIterator[MakeGuest]:
    """Make guests: `ada = await guest("Ada")`."""
    made: list[httpx2.AsyncClient] = []

    async def make(name: str = "Ada") -> Somebody:
        async with client_of(app) as stranger:
            answer = await stranger.post("/api/v1/guests", json={"display_name": name})
        assert answer.status_code == 201, answer.text
        body = answer.json()
        http = client_of(app, Authorization=f"Bearer {body['access_token']}")
        made.append(http)
        return Somebody(body["user"]["id"], name, body["access_token"], http)

    yield make
    for http in made:
        await http.aclose()


async def session_of(somebody: Somebody, template: str = "blank") -> str:
    """Make a session of somebody's and return its id."""
    made = await somebody.ok("POST", "/sessions", json={"name": "Test", "template": template})
    return str(made["id"])


async def invite(owner: Somebody, session_id: str, other: Somebody, role: str) -> str:
    """Bring somebody into a session by a share link; returns the link's id."""
    link = await owner.ok("POST", f"/sessions/{session_id}/links", json={"role": role})
    await other.ok("POST", f"/links/{link['token']}/join")
    return str(link["id"])
