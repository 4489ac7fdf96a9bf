"""The migrations make the tables of `db/tables.py`, and go down again, on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from atelier.db import open_database
from atelier.db.engine import async_url, migrate
from atelier.db.tables import metadata


@pytest_asyncio.fixture(params=["sqlite", "postgresql"])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    """An empty database of each kind."""
    url = (
        f"sqlite:///{tmp_path}/x.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    )
    opened = create_async_engine(async_url(url))
    yield opened
    await migrate(opened, "base")
    await opened.dispose()


async def test_up_is_what_the_tables_say_and_down_leaves_nothing(engine: AsyncEngine) -> None:
    def difference(connection: Any) -> list[Any]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    for _ in range(2):
        await migrate(engine, "head")
        async with engine.connect() as connection:
            assert await connection.run_sync(difference) == []
        await migrate(engine, "base")
        async with engine.connect() as connection:
            left = await connection.run_sync(lambda c: inspect(c).get_table_names())
        assert set(left) <= {"alembic_version"}


async def test_a_second_server_on_one_file_refuses_to_start(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    async with open_database(url):
        with pytest.raises(RuntimeError, match=r"already open in another Atelier server .*--data"):
            async with open_database(url):
                pass
    async with open_database(url) as database:
        await database.ping()
