"""HTTP to calls: runs and their events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, cast

from fastapi import APIRouter, Depends, Header, Request, Response
from starlette.responses import StreamingResponse

from atelier.auth import Action, CallerDep, limiter_of, require, role_in
from atelier.deps import ServicesDep
from atelier.errors import BadRequest
from atelier.runs import queries
from atelier.runs.recorder import topic
from atelier.runs.schemas import ControlShown, LanguageShown, NewRun, Run, RunList, Runtimes, Signal, Stdin
from atelier.runs.service import Runs
from atelier.runs.showing import shown
from atelier.services import Services

router = APIRouter(prefix="/api/v1", tags=["runs"])
_SILENCE_SECONDS = 15.0  # after which a comment goes out, so that proxies keep the stream open


async def _runs(request: Request) -> Runs:
    return cast("Runs", request.app.state.runs)


RunsDep = Annotated[Runs, Depends(_runs)]


async def _allowed(services: Services, session_id: str, user_id: str, action: Action) -> None:
    async with services.db.read() as db:
        await require(db, session_id, user_id, action)


@router.get("/runtimes", operation_id="get_runtimes")
async def get_runtimes(services: ServicesDep) -> Runtimes:
    """Say which languages run here and what the sandbox enforces."""
    found = await services.sandbox.capabilities()
    return Runtimes(
        available=found.available,
        hint=found.hint,
        languages=[LanguageShown.model_validate(asdict(language)) for language in found.languages],
        controls=[ControlShown.model_validate(asdict(control)) for control in found.controls],
    )


@router.post("/sessions/{session_id}/runs", status_code=202, operation_id="start_run")
async def start_run(
    session_id: str, body: NewRun, request: Request, services: ServicesDep, caller: CallerDep, runs: RunsDep
) -> Run:
    """Run one of the session's files; everyone in the session sees the output."""
    await limiter_of(request).hit("runs", caller.user_id, services.limits)
    return await runs.start(caller, session_id, body)


@router.get("/sessions/{session_id}/runs", operation_id="list_runs")
async def list_runs(session_id: str, services: ServicesDep, caller: CallerDep, runs: RunsDep) -> RunList:
    """List the latest runs."""
    await _allowed(services, session_id, caller.user_id, Action.READ)
    return RunList(items=await runs.latest(session_id))


@router.get("/sessions/{session_id}/runs/{run_id}", operation_id="get_run")
async def get_run(
    session_id: str, run_id: str, services: ServicesDep, caller: CallerDep, runs: RunsDep
) -> Run:
    """Show a run."""
    await _allowed(services, session_id, caller.user_id, Action.READ)
    return await runs.get(session_id, run_id)


@router.get(
    "/sessions/{session_id}/runs/{run_id}/events",
    operation_id="get_run_events",
    response_class=StreamingResponse,
)
async def get_run_events(
    session_id: str,
    run_id: str,
    services: ServicesDep,
    caller: CallerDep,
    runs: RunsDep,
    last_event_id: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """Stream a run's events: install, started, stdout, stderr, files, exited. Resume with Last-Event-ID; the stream ends after exited."""
    await _allowed(services, session_id, caller.user_id, Action.READ)
    await runs.get(session_id, run_id)
    if last_event_id and not (last_event_id.isdigit() and len(last_event_id) < 10):
        raise BadRequest(
            "bad_event_id", "Last-Event-ID is the number of an event.", next_step="Start without it."
        )
    return StreamingResponse(
        _stream(services, session_id, caller.user_id, run_id, int(last_event_id or 0)),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store"},
    )


async def _stream(
    services: Services, session_id: str, user_id: str, run_id: str, seq: int
) -> AsyncIterator[bytes]:
    async with services.bus.subscribe(topic(run_id)) as signals:
        while True:
            async with services.db.read() as db:
                if await role_in(db, session_id, user_id) is None:
                    return  # removed meanwhile
                rows = await queries.events_after(db, run_id, seq)
                last = await queries.last_event(db, run_id)
            for row in rows:
                seq = row["seq"]
                data = json.dumps({"seq": seq, "at": row["at"], **row["data"]}, separators=(",", ":"))
                yield f"id: {seq}\nevent: {row['type']}\ndata: {data}\n\n".encode()
                if row["type"] == "exited":
                    return
            if last is not None and last["type"] == "exited" and last["seq"] <= seq:
                return  # resumed after its last event
            try:
                await asyncio.wait_for(anext(signals), _SILENCE_SECONDS)
            except TimeoutError:
                yield b": still there\n\n"


@router.get(
    "/sessions/{session_id}/runs/{run_id}/files/{number}",
    operation_id="read_run_file",
    response_class=Response,
)
async def read_run_file(
    session_id: str, run_id: str, number: int, services: ServicesDep, caller: CallerDep, runs: RunsDep
) -> Response:
    """Return what a run left to be shown, as it was then. A page runs in a sandbox of its own, without an origin."""
    await _allowed(services, session_id, caller.user_id, Action.READ)
    return shown(await runs.file(session_id, run_id, number))


@router.post("/sessions/{session_id}/runs/{run_id}/stdin", status_code=204, operation_id="write_stdin")
async def write_stdin(
    session_id: str, run_id: str, body: Stdin, services: ServicesDep, caller: CallerDep, runs: RunsDep
) -> None:
    """Send text to a run's stdin, and close it when asked."""
    await _allowed(services, session_id, caller.user_id, Action.RUN)
    await runs.write(session_id, run_id, body.data.encode(errors="replace"), close=body.close)


@router.post("/sessions/{session_id}/runs/{run_id}/signal", status_code=204, operation_id="signal_run")
async def signal_run(
    session_id: str, run_id: str, body: Signal, services: ServicesDep, caller: CallerDep, runs: RunsDep
) -> None:
    """Send a signal to a run's program; INT is what Ctrl+C sends."""
    await _allowed(services, session_id, caller.user_id, Action.RUN)
    await runs.signal(session_id, run_id, body.signal)


@router.delete("/sessions/{session_id}/runs/{run_id}", status_code=204, operation_id="cancel_run")
async def cancel_run(
    session_id: str, run_id: str, services: ServicesDep, caller: CallerDep, runs: RunsDep
) -> None:
    """End a run."""
    await _allowed(services, session_id, caller.user_id, Action.RUN)
    await runs.cancel(session_id, run_id)
