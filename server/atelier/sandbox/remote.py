"""A runner elsewhere, by its HTTP and WebSocket API (`runners/PROTOCOL.md`).

A run is named by us before it is asked for, so a request whose answer was lost can be sent again: the same runner
process begins it once. A process that was started anew meanwhile says so and refuses, since the one before may have
begun it; then it has ended as far as we know, and is not run twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpcore2
import structlog

from atelier.errors import AtelierError, Conflict, Invalid, NotFound, TooMany, Unavailable
from atelier.sandbox.base import Capabilities, Event, Place, RunSpec, Turns, Window
from atelier.sandbox.link import Link
from atelier.sandbox.words import capabilities_of, missing_controls, spec_for_runner, translated
from atelier.tasks import TaskGroup
from atelier_runner.wire import BadMessage, change_head, pack, read_capabilities, spec_blobs, spec_head

logger = structlog.get_logger(__name__)
PATIENCE = 20.0
"""Seconds without a word from the runner until a run counts as lost."""
_GRACE = 1.5  # times as long the runner waits for us: it must not give up before we do
_KNOWN_SECONDS = 10.0
_PIECE = 256 * 1024
_CONNECT_SECONDS = 5.0
_MOST_CONNECTIONS = 64
_MOST_UNREAD = 256
_FAREWELL_SECONDS = 2.0
_NOT_SENT = (httpcore2.ConnectError, httpcore2.ConnectTimeout)
_FAILURES = (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException)


class RemoteSandbox:
    """A client of one runner service. Made by `open_remote`."""

    def __init__(
        self, http: httpcore2.AsyncConnectionPool, tasks: TaskGroup, address: str, secret: str, turns: Turns, *,
        untrusted: bool, patience: float,
    ) -> None:  # fmt: skip
        self.turns = turns
        self._http = http
        self._tasks = tasks
        self._address = address
        self._headers: dict[str, str] = {"Authorization": f"Bearer {secret}"} if secret else {}
        self._untrusted = untrusted
        self._patience = patience
        self._instance = ""
        self._links: dict[str, Link] = {}
        self._known: Capabilities | None = None
        self._known_at = 0.0

    async def capabilities(self) -> Capabilities:
        """Say what the runner enforces; asked again after a while. One that does not answer is not available."""
        if self._known is None or time.monotonic() - self._known_at > _KNOWN_SECONDS:
            try:
                self._known = capabilities_of(
                    read_capabilities(await self._request("GET", "/v1/doctor", seconds=60.0))
                )
                self._known_at = time.monotonic()
            except (AtelierError, BadMessage, *_FAILURES) as error:
                hint = f"The runner at {self._address} does not answer: {error or type(error).__name__}"
                found = self._known or Capabilities(False, hint, (), ())
                return replace(found, available=False, hint=hint)
        return self._known

    async def start(self, spec: RunSpec, place: Place | None = None) -> str:
        """Begin a run; see `Sandbox`. A place is the one process that may begin it; it then is not waited for."""
        if self._untrusted and (missing := missing_controls(await self.capabilities())):
            raise Unavailable(
                "sandbox_unavailable",
                f"Untrusted programs are refused here: {', '.join(missing)} cannot be enforced.",
                next_step="See `atelier doctor` for what each control needs.",
            )
        asked = spec_for_runner(spec)
        with translated():
            asked.check()
        run = secrets.token_hex(16) if place is None else place.claim
        await self._ask_for(run, spec_head(asked), spec_blobs(asked), place.instance if place else "")
        self._links[run] = link = Link(
            run, f"ws{self._address.removeprefix('http')}/v1/runs/{run}/events", self._headers, self._patience
        )
        self._tasks.start(link.follow(), name=f"follow {run}")
        for old in [name for name, known in self._links.items() if known.ended][:-_MOST_UNREAD]:
            del self._links[old]
        return run

    async def _ask_for(self, run: str, head: dict[str, Any], blobs: list[bytes], claimant: str) -> None:
        """Ask for a run until there is an answer, at most once by any process of the runner."""
        until, sent, pause = time.monotonic() + self._patience, False, 0.05
        while True:
            try:
                instance = claimant or self._instance
                if not instance:
                    instance = self._instance = str(
                        (await self._request("GET", "/v1/health", seconds=5.0))["instance"]
                    )
                start = pack(
                    {**head, "id": run, "instance": instance, "grace_seconds": self._patience * _GRACE}
                )
                await self._request("POST", "/v1/runs", start, blobs, seconds=60.0)
                return
            except AtelierError as error:
                if claimant and not sent and error.code in ("runner_restarted", "runner_full"):
                    raise _gone(error.detail) from error
                if error.code != "runner_restarted":
                    raise
                self._instance = ""
                if sent:
                    raise Unavailable(
                        "sandbox_unavailable",
                        "The runner was started anew while the run began; it is not begun twice.",
                        next_step="Run it again.",
                    ) from error
            except _FAILURES as error:
                sent = sent or ((claimant or self._instance) != "" and not isinstance(error, _NOT_SENT))
                if claimant and not sent:
                    raise _gone(str(error) or type(error).__name__) from error
                if time.monotonic() + pause > until:
                    raise _silent(error) from error
                await asyncio.sleep(pause)
                pause = min(1.0, pause * 2)

    async def events(self, run: str) -> AsyncIterator[Event]:
        """Yield the run's events; see `Sandbox`."""
        link = self._links.get(run)
        if link is None or link.read:
            raise NotFound(
                "run_not_found",
                f"There is no run {run!r} whose events can be read.",
                next_step="It may have ended.",
            )
        link.read = True
        try:
            async for event in link.events():
                yield event
        finally:
            link.cancel()
            self._links.pop(run, None)

    async def write(self, run: str, data: bytes, *, close: bool = False) -> None:
        """Send bytes to stdin, and close it when asked."""
        if (link := self._links.get(run)) is not None:
            await link.write(data, close=close)

    async def signal(self, run: str, name: str) -> None:
        """Send a signal to the program, once or not at all."""
        if (link := self._links.get(run)) is None or link.ended:
            return
        try:
            await self._request("POST", f"/v1/runs/{run}/signal", json.dumps({"signal": name}).encode())
        except NotFound:
            return  # it has ended
        except _FAILURES as error:
            raise _silent(error) from error

    async def bring(self, run: str, files: Mapping[str, bytes | None]) -> None:
        """Bring files up to date while it runs; see `Sandbox`."""
        blobs = [data for data in files.values() if data is not None]
        await self._tell(run, "files", pack(change_head(files)), blobs)

    async def look(self, run: str) -> None:
        """Let what has been written so far come as events."""
        await self._tell(run, "look", b"{}")

    async def cell(self, run: str, number: int, path: str, code: str) -> None:
        """Hand an interpreter its next cell; asked twice, it runs once."""
        data = code.encode(errors="surrogatepass")
        await self._tell(run, "cells", pack({"number": number, "path": path, "size": len(data)}), [data])

    async def interrupt(self, run: str, cell: int) -> None:
        """Interrupt a cell."""
        await self._tell(run, "interrupt", json.dumps({"cell": cell}).encode())

    async def resize(self, run: str, window: Window) -> None:
        """Change the size of a run's terminal."""
        await self._tell(run, "window", json.dumps({"columns": window.columns, "rows": window.rows}).encode())

    async def _tell(self, run: str, what: str, start: bytes, rest: Sequence[bytes] = ()) -> None:
        """Ask for something that may be done twice; a run that has ended ignores it."""
        if (link := self._links.get(run)) is None or link.ended:
            return
        try:
            for attempt in (1, 2):
                try:
                    await self._request("POST", f"/v1/runs/{run}/{what}", start, rest)
                    return
                except _FAILURES:  # a line that had been idle
                    if attempt == 2:
                        raise
        except NotFound:
            return
        except _FAILURES as error:
            raise _silent(error) from error

    async def cancel(self, run: str) -> None:
        """End the whole process tree, as soon as the runner can be reached."""
        if (link := self._links.get(run)) is not None:
            link.cancel()

    async def close(self) -> None:
        """Ask for the end of every run, and wait a moment for it."""
        going = [link for link in self._links.values() if not link.ended]
        for link in going:
            link.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                for link in going:
                    await link.wait()

    # --- requests ---------------------------------------------------------------------------------------------------

    async def _request(
        self, method: str, path: str, start: bytes = b"", rest: Sequence[bytes] = (), *, seconds: float = 10.0
    ) -> dict[str, Any]:
        """Send a request and return the answer's object; raises what the problem in it says, or one of _FAILURES."""

        async def pieces() -> AsyncIterator[bytes]:
            yield start
            for blob in rest:
                for at in range(0, len(blob), _PIECE):
                    yield blob[at : at + _PIECE]

        size = len(start) + sum(map(len, rest))
        headers: dict[bytes | str, bytes | str] = dict(self._headers.items())
        if size:
            headers["Content-Length"] = str(size)
        answer = await self._http.request(
            method,
            self._address + path,
            headers=headers,
            content=pieces() if size else None,
            extensions={
                "timeout": dict.fromkeys(("connect", "read", "write", "pool"), seconds)
                | {"connect": _CONNECT_SECONDS}
            },
        )
        try:
            found = json.loads(answer.content or b"{}")
        except ValueError:
            found = {}
        if answer.status >= 400 or not isinstance(found, dict):
            raise _refusal(answer.status, found if isinstance(found, dict) else {})
        return found


def _refusal(status: int, problem: dict[str, Any]) -> AtelierError:
    """Return the error that a problem detail describes."""
    code = str(problem.get("code", "sandbox_unavailable"))
    detail = str(problem.get("detail", f"The runner answered with {status}."))
    next_step = str(problem.get("next_step", "")) or "Try again in a moment."
    match status:
        case 404:
            return NotFound(code, detail, next_step=next_step)
        case 409:
            return Conflict(code, detail, next_step=next_step)
        case 422:
            return Invalid(code, detail, next_step=next_step)
        case 503 if code == "runner_full":
            return TooMany(code, detail, retry_after=1.0, next_step=next_step)
    return Unavailable("sandbox_unavailable", detail, next_step=next_step)


def _gone(why: str) -> Unavailable:
    return Unavailable(
        "runner_gone",
        f"The runner that took this run has not begun it: {why}",
        next_step="It goes back in the queue.",
    )


def _silent(error: Exception) -> Unavailable:
    return Unavailable(
        "sandbox_unavailable",
        f"The runner does not answer: {error or type(error).__name__}",
        next_step="Try again in a moment.",
    )


def connections() -> httpcore2.AsyncConnectionPool:
    """Return a pool that keeps no line: what could not connect was not sent, and may be asked of another runner."""
    return httpcore2.AsyncConnectionPool(max_connections=_MOST_CONNECTIONS, max_keepalive_connections=0)


@asynccontextmanager
async def open_remote(
    address: str, turns: Turns, *, secret: str = "", untrusted: bool = False, patience: float = PATIENCE
) -> AsyncIterator[RemoteSandbox]:
    """Open the runner at http(s)://host:port. It need not be there yet."""
    async with (
        connections() as http,
        TaskGroup("sandbox") as tasks,
    ):
        sandbox = RemoteSandbox(
            http, tasks, address.rstrip("/"), secret, turns, untrusted=untrusted, patience=patience
        )
        try:
            yield sandbox
        finally:
            await sandbox.close()
