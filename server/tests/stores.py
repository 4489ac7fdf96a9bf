"""A real PostgreSQL and a real Redis for the tests: started once, in scratch folders, ended by their process ids."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from deploy.stores import Postgres, Redis, Store

S = TypeVar("S", bound=Store)


@contextmanager
def _running(make: Callable[[Path], S]) -> Iterator[S]:
    folder = Path(tempfile.mkdtemp(prefix="atelier-store-"))
    try:
        server = make(folder)
    except RuntimeError as missing:
        assert os.environ.get("CI") != "true", missing
        pytest.skip(str(missing))
    server.start()
    try:
        yield server
    finally:
        server.end(signal.SIGINT)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a PostgreSQL."""
    with _running(Postgres) as server:
        yield server


@contextmanager
def redis() -> Iterator[Redis]:
    """Run a Redis."""
    with _running(Redis) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A running PostgreSQL."""
    with postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: Postgres, tmp_path: Path) -> Iterator[str]:
    """An empty database of its own."""
    name = f"t{abs(hash(str(tmp_path))):x}"
    yield postgres_server.database(name)
    postgres_server.say(f"drop database {name} with (force)")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """A running Redis."""
    with redis() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: Redis) -> str:
    """An empty Redis."""
    assert redis_server.say("FLUSHALL") == b"+OK\r\n"
    return redis_server.url
