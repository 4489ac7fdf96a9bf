"""Opens every adapter that the settings name: the only code that does."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeVar

from sqlalchemy.engine import make_url

from atelier.blobs import open_blobs
from atelier.bus import open_bus
from atelier.db import open_database
from atelier.documents import end_workers
from atelier.egress import Egress
from atelier.log import open_log
from atelier.mail import open_mail
from atelier.sandbox import EnvironmentOptions, open_sandbox
from atelier.services import Services
from atelier.settings import Settings
from atelier.tasks import TaskGroup

T = TypeVar("T")


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """Open everything, in the order of dependence; close it in the opposite one.

    Raises:
        RuntimeError: another server uses the same data, a setting leads nowhere, or they are an unsafe mix.
    """
    _refuse_unsafe_mix(settings)
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context

        async def reach(name: str, adapter: AbstractAsyncContextManager[T]) -> T:
            try:
                return await enter(adapter)
            except (RuntimeError, ValueError):
                raise  # already in words
            except Exception as error:
                url = make_url(getattr(settings, name)).render_as_string(hide_password=True).split("?")[0]
                raise RuntimeError(f"ATELIER_{name.upper()} {url} does not open: {error}") from error

        stack.callback(end_workers)
        yield Services(
            db=await reach("db_url", open_database(settings.db_url)),
            log=await reach("log_url", open_log(settings.log_url)),
            bus=await reach("bus_url", open_bus(settings.bus_url)),
            sandbox=await enter(
                open_sandbox(
                    settings.sandbox_url,
                    settings.runner_secret,
                    concurrent=settings.limits.concurrent_runs,
                    queued=settings.limits.queued_runs,
                    environments=EnvironmentOptions(
                        folder=settings.environments,
                        python_index=settings.python_index,
                        npm_registry=settings.npm_registry,
                        each_mb=settings.limits.environment_mb,
                        all_mb=settings.limits.environments_mb,
                        seconds=settings.limits.install_seconds,
                    ),
                )
            ),
            blobs=await enter(open_blobs(settings.blobs_url)),
            mail=await enter(open_mail(settings.mail_url, settings.mail_from)),
            egress=Egress(settings.import_hosts),
            program_egress=settings.egress,
            limits=settings.limits,
            public_url=settings.public_url,
            secret_key=settings.secret_key or kept_secret(settings.data / "secret.key"),
            sign_up=settings.sign_up,
            tasks=await enter(TaskGroup("atelier")),
        )


def _refuse_unsafe_mix(settings: Settings) -> None:
    if not settings.log_url.startswith("redis"):
        return
    wrong = {
        "ATELIER_BUS_URL is memory://, so processes would not hear each other": settings.bus_url
        == "memory://",
        "ATELIER_DB_URL is a SQLite file, which one process alone can use": settings.db_url.startswith(
            "sqlite"
        ),
        "ATELIER_SECRET_KEY is empty, so each process would refuse the others' tokens": not settings.secret_key,
    }
    for words, is_so in wrong.items():
        if is_so:
            raise RuntimeError(f"the log is in Redis, for several server processes; but {words}")


def kept_secret(path: Path) -> str:
    """Return the secret kept in `path`, made on first use and readable by the owner alone."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().strip()
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_urlsafe(48))
        file.flush()
        os.fsync(file.fileno())
    return path.read_text().strip()
