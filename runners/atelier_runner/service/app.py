"""HTTP and WebSockets to calls. Every route but /v1/health asks for the secret."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import re
import secrets
from dataclasses import asdict
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from atelier_runner.errors import EventsGone, ReaderReplaced, RunnerError, ServiceRefused, SpecInvalid
from atelier_runner.model import CELL_BYTES, MIB, Exited, Window
from atelier_runner.service import metrics
from atelier_runner.service.bodies import Body
from atelier_runner.service.options import Options
from atelier_runner.service.problems import problem
from atelier_runner.service.runs import HostedRun, HostedRuns
from atelier_runner.wire import (
    BadMessage,
    change_sizes,
    is_count,
    pack,
    pack_event,
    read_head,
    read_spec,
    spec_sizes,
    unpack,
)

PROTOCOL = 1
NAME = re.compile(r"[A-Za-z0-9_-]{8,64}")
SMALL_BODY = 4096
FAREWELL_SECONDS = 5.0
"""How long a reader may take to confirm the end."""


def create_app(runs: HostedRuns, options: Options) -> ASGIApp:
    """Return the application for runs that are open."""

    async def health(_request: Request) -> Response:
        return JSONResponse({"status": "ok", "protocol": PROTOCOL, "instance": runs.instance})

    async def doctor(_request: Request) -> Response:
        return JSONResponse({**asdict(await runs.backend.capabilities()), "instance": runs.instance})

    async def show_metrics(_request: Request) -> Response:
        await metrics.collect(runs, options)
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    async def start(request: Request) -> Response:
        body = Body(request.stream())
        try:
            run, new = await _start(body, runs, options)
        except (RunnerError, BadMessage):
            await body.drain(options.body_seconds)
            raise
        return JSONResponse(
            {"id": run.name, "instance": runs.instance},
            201 if new else 200,
            {"Location": f"/v1/runs/{run.name}"},
        )

    async def show(request: Request) -> Response:
        run = runs.get(request.path_params["name"])
        result = None if run.ended is None else asdict(run.ended)
        return JSONResponse(
            {
                "id": run.name,
                "state": "ended" if result else "running",
                "confirmed": run.journal.confirmed,
                "result": result,
            }
        )

    async def cancel(request: Request) -> Response:
        await runs.get(request.path_params["name"]).cancel()
        return Response(status_code=204)

    async def signal(request: Request) -> Response:
        run = runs.get(request.path_params["name"])
        await run.signal(str((await _small(request)).get("signal")))
        return Response(status_code=204)

    async def resize(request: Request) -> Response:
        run, asked = runs.get(request.path_params["name"]), await _small(request)
        if not (is_count(asked.get("columns")) and is_count(asked.get("rows"))):
            raise BadMessage("columns and rows are numbers")
        await run.resize(Window(asked["columns"], asked["rows"]))
        return Response(status_code=204)

    async def look(request: Request) -> Response:
        await runs.get(request.path_params["name"]).look()
        return Response(status_code=204)

    async def cell(request: Request) -> Response:
        run = runs.get(request.path_params["name"])
        body = Body(request.stream())
        async with asyncio.timeout(options.body_seconds):
            head = read_head(await body.head())
            number, path, size = head.get("number"), head.get("path", ""), head.get("size")
            if not (isinstance(number, int) and number > 0 and isinstance(path, str) and is_count(size)):
                raise BadMessage("a cell has a number, a path and a size")
            assert isinstance(size, int)
            if size > CELL_BYTES:
                raise SpecInvalid("cell_invalid", f"A cell has at most {CELL_BYTES // 1024} KiB.")
            code = await body.exactly(size)
            await body.end()
        try:
            text = code.decode()
        except UnicodeDecodeError:
            raise SpecInvalid("cell_invalid", "The cell is not UTF-8.") from None
        await run.cell(number, path, text)
        return Response(status_code=204)

    async def interrupt(request: Request) -> Response:
        run, asked = runs.get(request.path_params["name"]), await _small(request)
        if not is_count(asked.get("cell")):
            raise BadMessage("cell is the number of a cell")
        await run.interrupt(asked["cell"])
        return Response(status_code=204)

    async def place(request: Request) -> Response:
        body = Body(request.stream())
        try:
            await _place(body, runs, runs.get(request.path_params["name"]), options)
        except (RunnerError, BadMessage):
            await body.drain(options.body_seconds)
            raise
        return Response(status_code=204)

    async def events(socket: WebSocket) -> None:
        try:
            name, after = socket.path_params["name"], _number(socket.query_params.get("after", "0"))
            run = runs.get(name)
            run.journal.check(after)
        except RunnerError as error:
            await socket.send_denial_response(problem(error))
            return
        await socket.accept()
        await _converse(socket, runs, run, after)

    async def refused(_request: Request, error: Exception) -> Response:
        match error:
            case RunnerError():
                return problem(error)
            case HTTPException():
                code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
                return problem(ServiceRefused(error.status_code, code, error.detail))
        return problem(ServiceRefused(400, "bad_request", f"{error}."))

    app = Starlette(
        routes=[
            Route("/v1/health", health),
            Route("/v1/doctor", doctor),
            Route("/v1/runs", start, methods=["POST"]),
            Route("/v1/runs/{name}", show),
            Route("/v1/runs/{name}", cancel, methods=["DELETE"]),
            Route("/v1/runs/{name}/signal", signal, methods=["POST"]),
            Route("/v1/runs/{name}/window", resize, methods=["POST"]),
            Route("/v1/runs/{name}/look", look, methods=["POST"]),
            Route("/v1/runs/{name}/files", place, methods=["POST"]),
            Route("/v1/runs/{name}/cells", cell, methods=["POST"]),
            Route("/v1/runs/{name}/interrupt", interrupt, methods=["POST"]),
            WebSocketRoute("/v1/runs/{name}/events", events),
            Route("/metrics", show_metrics),
        ],
        exception_handlers={
            RunnerError: refused,
            BadMessage: refused,
            HTTPException: refused,
            ClientDisconnect: refused,
        },
    )
    return Gate(app, options.secret)


class Gate:
    """Lets nobody in who does not know the secret, and no web page: a runner on loopback may have none."""

    def __init__(self, app: ASGIApp, secret: str) -> None:
        self._app = app
        self._expected = f"Bearer {secret}".encode() if secret else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = None if scope["type"] == "lifespan" else self._refusal(Headers(scope=scope), scope["path"])
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await WebSocket(scope, receive, send).send_denial_response(problem(refusal))
        else:
            await problem(refusal)(scope, receive, send)

    def _refusal(self, headers: Headers, path: str) -> ServiceRefused | None:
        if "origin" in headers:
            return ServiceRefused(
                403, "cross_site", "A web page may not speak with a runner.", hint="Ask from a program."
            )
        known = hmac.compare_digest(headers.get("authorization", "").encode(), self._expected)
        if not self._expected or path == "/v1/health" or known:
            return None
        return ServiceRefused(
            401,
            "unauthenticated",
            "This runner has a secret, and the request did not bring it.",
            hint="Give both sides the same ATELIER_RUNNER_SECRET.",
        )


async def _start(body: Body, runs: HostedRuns, options: Options) -> tuple[HostedRun, bool]:
    """Read a request and begin what it asks for."""
    held = 0
    try:
        async with asyncio.timeout(options.body_seconds):
            head = read_head(await body.head())
            sizes = spec_sizes(head)
            name, policy = head.get("id") or secrets.token_hex(16), head.get("disconnect", "cancel")
            grace = head.get("grace_seconds", options.grace_seconds)
            if not isinstance(name, str) or not NAME.fullmatch(name):
                raise BadMessage("an id has 8 to 64 letters, digits, - or _")
            if isinstance(grace, bool) or not isinstance(grace, int | float):
                raise BadMessage("grace_seconds is a number")
            if head.get("instance") not in (None, runs.instance):
                raise ServiceRefused(
                    409,
                    "runner_restarted",
                    "The runner was started anew since this run was first asked for.",
                    hint="It may have begun; it is not begun twice.",
                )
            runs.check_sizes(head)
            runs.hold(sum(sizes))
            held = sum(sizes)
            spec = read_spec(head, [await body.exactly(size) for size in sizes])
            await body.end()
        runs.check(spec, policy, grace)
        run, new = await runs.start(name, spec, policy, grace, held)
    except TimeoutError:
        runs.let_go(held)
        raise _too_slow(options) from None
    except BaseException:
        runs.let_go(held)
        raise
    if not new:
        runs.let_go(held)
    return run, new


async def _place(body: Body, runs: HostedRuns, run: HostedRun, options: Options) -> None:
    """Read files and bring them to a run; a size of null says that one is gone."""
    held = 0
    try:
        async with asyncio.timeout(options.body_seconds):
            head = read_head(await body.head())
            sizes = change_sizes(head)
            held = sum(size or 0 for size in sizes.values())
            if held > run.disk_mb * MIB:
                raise SpecInvalid(
                    "files_too_large", f"The working folder of this run holds {run.disk_mb} MiB."
                )
            runs.hold(held)
            files = {path: None if size is None else await body.exactly(size) for path, size in sizes.items()}
            await body.end()
        await run.bring(files)
    except TimeoutError:
        raise _too_slow(options) from None
    finally:
        runs.let_go(held)


def _too_slow(options: Options) -> ServiceRefused:
    return ServiceRefused(
        408, "too_slow", f"A request has {options.body_seconds:g} s to be sent.", hint="Try again."
    )


async def _small(request: Request) -> dict[str, Any]:
    """Read a small JSON object."""
    text = b""
    async for piece in request.stream():
        text += piece
        if len(text) > SMALL_BODY:
            raise ServiceRefused(413, "too_large", f"This has at most {SMALL_BODY} bytes.")
    return read_head(text)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise ServiceRefused(400, "bad_request", "after is the number of an event.")
    return int(text)


async def _converse(socket: WebSocket, runs: HostedRuns, run: HostedRun, after: int) -> None:
    """Tell events and take input until the run's end is confirmed or the line is gone."""
    ended = asyncio.Event()

    async def tell() -> None:
        async with contextlib.aclosing(runs.read(run.name, after)) as events:
            async for event in events:
                await socket.send_bytes(pack_event(event))
                if isinstance(event, Exited):
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(ended.wait(), FAREWELL_SECONDS)
                    return

    async def confirm_input() -> None:
        told = 0
        while True:
            await run.taken_changed.wait()
            run.taken_changed.clear()
            if run.taken > told:
                told = run.taken
                await socket.send_bytes(pack({"type": "taken", "input": told}))

    async def hear() -> None:
        while True:
            head, body = unpack(await socket.receive_bytes() or b"")
            if head.get("type") == "confirm" and is_count(head.get("seq")):
                run.journal.confirm(head["seq"])
                if run.ended is not None and head["seq"] >= run.ended.seq:
                    ended.set()
                    runs.forget(run.name)
            elif head.get("type") == "input" and is_count(head.get("number")):
                run.take(head["number"], body, close=head.get("close") is True)
            elif head.get("type") == "cancel":
                await run.cancel()
            else:
                raise BadMessage("a message is confirm, with seq, or input, with number, or cancel")

    code, reason = 1000, ""
    run.taken_changed.set()
    tasks = [asyncio.create_task(work()) for work in (tell, confirm_input, hear)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        error = next((task.exception() for task in tasks if task.done()), None)
        match error:
            case None | WebSocketDisconnect() | RuntimeError():
                pass
            case EventsGone():
                code, reason = 4410, error.detail
            case ReaderReplaced():
                code, reason = 4409, error.detail
            case BadMessage() | KeyError():
                code, reason = 4400, f"{error}"
            case _:
                raise error
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if (
            socket.client_state is WebSocketState.CONNECTED
            and socket.application_state is WebSocketState.CONNECTED
        ):
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                await socket.close(code, reason[:120])
