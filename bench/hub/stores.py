"""PostgreSQL and Redis for benches: real ones, in a scratch folder, on the load's core."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from deploy.stores import Postgres, Redis, Store

from bench.hub.servers import LOAD_CORE

LogKind = Literal["sqlite", "postgresql", "redis"]


def _start(stack: ExitStack, store: Store) -> None:
    store.start(["taskset", "-c", LOAD_CORE])
    stack.callback(store.end, signal.SIGINT)


@contextmanager
def settings(log: LogKind, folder: Path) -> Iterator[dict[str, str]]:
    """Give the settings of a server with this log. Redis' process id is in the file `redis.pid`."""
    with ExitStack() as stack:
        if log == "sqlite":
            yield {}
            return
        postgres = Postgres(folder / "postgres")
        _start(stack, postgres)
        database = postgres.database("bench")
        if log == "postgresql":
            yield {"ATELIER_DB_URL": database, "ATELIER_LOG_URL": database}
            return
        redis = Redis(folder / "redis")
        _start(stack, redis)
        assert redis.process is not None
        (folder / "redis.pid").write_text(str(redis.process.pid))
        yield {
            "ATELIER_DB_URL": database,
            "ATELIER_LOG_URL": f"{redis.url}?archive={quote(database, safe='')}",
            "ATELIER_BUS_URL": redis.url,
            "ATELIER_SECRET_KEY": "s" * 40,
            "ATELIER_BLOBS_URL": f"file://{folder / 'blobs'}",
        }
