"""FastAPI dependencies that hand the open services to routes."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends
from starlette.requests import HTTPConnection

from atelier.services import Services


def get_services(connection: HTTPConnection) -> Services:
    """Return the services of the app that serves this request or socket."""
    return cast("Services", connection.app.state.services)


ServicesDep = Annotated[Services, Depends(get_services)]
