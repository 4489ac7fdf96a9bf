"""HTTP to calls: a session's interpreter and its cells. What happens is told on the session's events."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Request, Response

from atelier.auth import Action, Caller, CallerDep, limiter_of, require
from atelier.deps import ServicesDep
from atelier.interpreters.schemas import CellEvents, CellInput, CellList, NewCells
from atelier.interpreters.service import Interpreters
from atelier.runs import shown
from atelier.services import Services

router = APIRouter(prefix="/api/v1", tags=["interpreters"])


async def _interpreters(request: Request) -> Interpreters:
    return cast("Interpreters", request.app.state.interpreters)


InterpretersDep = Annotated[Interpreters, Depends(_interpreters)]


async def _allowed(services: Services, session_id: str, caller: Caller, action: Action) -> None:
    async with services.db.read() as db:
        await require(db, session_id, caller.user_id, action)


@router.post("/sessions/{session_id}/cells", status_code=201, operation_id="run_cells")
async def run_cells(
    session_id: str,
    body: NewCells,
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    interpreters: InterpretersDep,
) -> CellList:
    """Send cells to the session's interpreter; they run in order, after those that wait."""
    limiter = limiter_of(request)
    for _ in body.cells:
        await limiter.hit("cells", caller.user_id, services.limits)
    return CellList(items=await interpreters.send(caller, session_id, body))


@router.get("/sessions/{session_id}/cells", operation_id="list_cells")
async def list_cells(
    session_id: str, services: ServicesDep, caller: CallerDep, interpreters: InterpretersDep
) -> CellList:
    """List the newest cells with what they printed and showed."""
    await _allowed(services, session_id, caller, Action.READ)
    return await interpreters.of_session(session_id)


@router.delete("/sessions/{session_id}/cells", status_code=204, operation_id="clear_cells")
async def clear_cells(
    session_id: str, services: ServicesDep, caller: CallerDep, interpreters: InterpretersDep
) -> None:
    """Forget the cells that have ended, for everyone; the variables stay."""
    await _allowed(services, session_id, caller, Action.RUN)
    await interpreters.clear(session_id)


@router.get("/sessions/{session_id}/cells/{cell_id}/events", operation_id="read_cell_events")
async def read_cell_events(
    session_id: str, cell_id: str, services: ServicesDep, caller: CallerDep, interpreters: InterpretersDep
) -> CellEvents:
    """Return all that a cell printed and showed so far."""
    await _allowed(services, session_id, caller, Action.READ)
    return CellEvents(items=await interpreters.events(session_id, cell_id))


@router.get(
    "/sessions/{session_id}/cells/{cell_id}/files/{number}",
    operation_id="read_cell_file",
    response_class=Response,
)
async def read_cell_file(
    session_id: str,
    cell_id: str,
    number: int,
    services: ServicesDep,
    caller: CallerDep,
    interpreters: InterpretersDep,
) -> Response:
    """Return a figure or another rich value. A page runs in a sandbox of its own, without an origin."""
    await _allowed(services, session_id, caller, Action.READ)
    return shown(await interpreters.file(session_id, cell_id, number))


@router.delete("/sessions/{session_id}/cells/{cell_id}", status_code=204, operation_id="stop_cell")
async def stop_cell(
    session_id: str, cell_id: str, services: ServicesDep, caller: CallerDep, interpreters: InterpretersDep
) -> None:
    """Interrupt a cell that runs, or take one that waits out of the queue; the variables stay."""
    await _allowed(services, session_id, caller, Action.RUN)
    await interpreters.stop_cell(session_id, cell_id)


@router.post("/sessions/{session_id}/interpreter/input", status_code=204, operation_id="write_cell_input")
async def write_cell_input(
    session_id: str,
    body: CellInput,
    services: ServicesDep,
    caller: CallerDep,
    interpreters: InterpretersDep,
) -> None:
    """Send text to the cell that runs."""
    await _allowed(services, session_id, caller, Action.RUN)
    await interpreters.input(session_id, body.data)


@router.delete("/sessions/{session_id}/interpreter", status_code=204, operation_id="end_interpreter")
async def end_interpreter(
    session_id: str, services: ServicesDep, caller: CallerDep, interpreters: InterpretersDep
) -> None:
    """End the interpreter: its variables are gone, what waits does not run, and the next cell starts another."""
    await _allowed(services, session_id, caller, Action.RUN)
    await interpreters.end(caller, session_id)
