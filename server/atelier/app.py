"""Builds the application: services, long-lived registries, routes, problem details, security headers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI

from atelier import (
    __version__,
    admin,
    auth,
    documents,
    events,
    files,
    health,
    history,
    hub,
    interpreters,
    pages,
    runs,
    sessions,
    terminals,
)
from atelier.bodies import BoundedBodies
from atelier.headers import SecurityHeaders
from atelier.hub import Rooms
from atelier.interpreters import Interpreters
from atelier.problems import add_handlers
from atelier.runs import Runs
from atelier.settings import Settings
from atelier.terminals import Terminals
from atelier.wiring import open_services

# One line per feature; the order is that of the API's documentation.
ROUTERS = (
    auth.router,
    sessions.router,
    files.router,
    history.router,
    runs.router,
    terminals.router,
    interpreters.router,
    events.router,
    admin.router,
    health.router,
    pages.router,
)


def create_app(settings: Settings) -> FastAPI:
    """Return the application; what it needs is opened by its lifespan."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            try:
                services = await stack.enter_async_context(open_services(settings))
            except (RuntimeError, ValueError, OSError) as error:
                app.state.failure = error  # for whoever starts the server: its words are what there is to say
                raise
            app.state.services = services
            async with (
                Rooms(services) as rooms,
                Runs(services) as started_runs,
                Terminals(services) as opened_terminals,
                Interpreters(services) as kept_interpreters,
            ):
                app.state.rooms = rooms
                app.state.runs = started_runs
                app.state.terminals = opened_terminals
                app.state.interpreters = kept_interpreters
                services.tasks.start(sessions.purge_regularly(services), name="purge")
                services.tasks.start(
                    documents.compact_regularly(services.log, most_bytes=settings.limits.document_bytes),
                    name="compact",
                )
                if settings.history_days:
                    keeping = history.forget_regularly(services, days=settings.history_days)
                    services.tasks.start(keeping, name="forget")
                yield

    app = FastAPI(
        title="Atelier",
        version=__version__,
        summary="An open, self-hosted workshop in the browser.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.router.routes.extend(hub.routes)  # first: nothing is asked for as often when everybody comes back
    for router in ROUTERS:
        app.include_router(router)
    add_handlers(app, pages.problem_page)
    app.add_middleware(BoundedBodies, most=settings.limits.body_bytes)
    app.add_middleware(SecurityHeaders, public_url=settings.public_url)
    return app
