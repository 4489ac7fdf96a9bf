"""FastAPI dependencies that hand the open services to routes.

They are coroutines: FastAPI takes a plain function to a thread, which costs more than most requests' whole work.
"""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends
from starlette.requests import HTTPConnection

from atelier.services import Services


async def get_services(connection: HTTPConnection) -> Services:
    """Return the services of the app that serves this request or socket."""
    return cast("Services", connection.app.state.services)


ServicesDep = Annotated[Services, Depends(get_services)]
