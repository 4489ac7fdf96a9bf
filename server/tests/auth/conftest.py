"""A server with tight limits."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator

import httpx2
import pytest_asyncio

from atelier.limits import Limits
from atelier.settings import Settings

from ..conftest import client_of, running


@pytest_asyncio.fixture
async def settings_tight(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a server that lets two log-ins a minute in."""
    tight = dataclasses.replace(settings, limits=Limits(log_ins_per_minute=2))
    async with running(tight) as app, client_of(app) as client:
        yield client
