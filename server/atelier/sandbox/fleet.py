"""Several runners and several servers: runs wait in Redis, runners claim them, and servers speak with those that did.

`atelier_runner/line.py` has the keys and scripts. Each server says every few seconds that it is there and reads its own
stream of offers; an offer for a run that it did not put, or has begun already, is left out, so that nothing is begun
twice. If Redis has lost what waits, the server puts it again. A runner that claimed a run and then is not there has
not begun it: the run goes back, in front. Once a runner may have begun a run, it is that runner's, to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpcore2
import redis.asyncio as redis
import structlog

from atelier.channels import FAILURES, connected
from atelier.errors import AtelierError, Invalid, NotFound, TooMany, Unavailable
from atelier.ids import new_id
from atelier.sandbox.base import Capabilities, Control, Event, Language, Place, RunSpec, Turn, Window
from atelier.sandbox.remote import RemoteSandbox, connections
from atelier.sandbox.turns import queue_full
from atelier.sandbox.words import capabilities_of
from atelier.tasks import TaskGroup
from atelier_runner import line
from atelier_runner.wire import BadMessage, read_capabilities

logger = structlog.get_logger(__name__)
_SAY_SECONDS = 4.0
_BLOCK_MS = 2_000
_KNOWN_SECONDS = 2.0
_LOST_AFTER_LOOKS = 2  # looks in a row at which a run of ours was neither waiting nor offered
_BADNESS = {"enforced": 0, "partial": 1, "absent": 2}
_JOIN = "Start one: python -m atelier_runner serve --join redis://…"


class SharedTurns:
    """The turns of one of several server processes; see `Turns`."""

    def __init__(self, pool: redis.Redis, tasks: TaskGroup, most: int) -> None:
        self._redis = pool
        self._most = most
        self._own = new_id("prc")
        self._put: dict[str, Turn] = {}
        self._missing: dict[str, int] = {}
        self._offered: asyncio.Queue[Turn] = asyncio.Queue()  # bounded by what we put
        self._count = 0
        tasks.start(self._say(), name="say that this server is there")
        tasks.start(self._hear(), name="hear offers")

    @property
    def waiting(self) -> int:
        """How many wait, as of the last look."""
        return self._count

    async def refuse_if_full(self) -> None:
        """Raise TooMany `queue_full` when no further run is taken."""
        with _translated():
            self._count = await self._redis.zcard(line.LINE)
        if self._count >= self._most:
            raise queue_full(self._most)

    async def put(self, turn: Turn, *, again: bool = False) -> None:
        """Queue a run."""
        self._put[turn.run] = turn
        try:
            with _translated():
                await self._redis.set(line.server_key(self._own), "1", ex=line.SERVER_SECONDS)
                count = await self._enter(turn, again=again)
        except BaseException:
            self._put.pop(turn.run, None)
            raise
        if count < 0:
            self._put.pop(turn.run, None)
            raise queue_full(self._most)
        self._count = count

    async def _enter(self, turn: Turn, *, again: bool) -> int:
        about = json.dumps({"server": self._own, "language": turn.language})
        keys = (line.LINE, line.WAITING, line.ROUNDS, line.SERVED, line.NEWS)
        priority = min(max(turn.priority, 0), line.PRIORITIES - 1)
        return int(
            await self._redis.eval(
                line.PUT, len(keys), *keys, turn.run, turn.person, priority, self._most, about, int(again)
            )
        )

    async def take(self) -> Turn:
        """Wait for an offer of a runner's."""
        return await self._offered.get()

    async def done(self, turn: Turn) -> None:
        """Nothing: the runner knows how many it runs."""

    async def drop(self, run: str) -> bool:
        """Take a run out of the queue; says whether it was there."""
        if self._put.pop(run, None) is None:
            return False
        keys = (line.LINE, line.WAITING, line.ROUNDS, line.SERVED)
        with contextlib.suppress(*FAILURES):  # an offer of it will be left out
            await self._redis.eval(line.DROP, len(keys), *keys, run)
        return True

    async def positions(self, runs: Sequence[str]) -> Mapping[str, int]:
        """Return how many runs come before each of these that waits; none while Redis is away."""
        if not runs:
            return {}
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for run in runs:
                    pipeline.zrank(line.LINE, run)
                ranks = await pipeline.execute()
        except FAILURES:
            return {}
        return {run: rank for run, rank in zip(runs, ranks, strict=True) if rank is not None}

    async def _say(self) -> None:
        """Say that this server is there, and put again what Redis has lost."""
        while True:
            try:
                await self._redis.set(line.server_key(self._own), "1", ex=line.SERVER_SECONDS)
                self._count = await self._redis.zcard(line.LINE)
                there = await self.positions(list(self._put))
                self._missing = {run: self._missing.get(run, 0) + 1 for run in self._put if run not in there}
                for run in [run for run, looks in self._missing.items() if looks >= _LOST_AFTER_LOOKS]:
                    if (turn := self._put.get(run)) is not None:
                        logger.warning("a waiting run had been lost", run=run)
                        await self._enter(turn, again=True)
            except FAILURES as error:
                logger.warning("the line is not looked after just now", error=str(error))
            await asyncio.sleep(_SAY_SECONDS)

    async def _hear(self) -> None:
        """Take what runners have claimed for us."""
        last = "0"
        while True:
            try:
                found = await self._redis.xread({line.offers(self._own): last}, count=100, block=_BLOCK_MS)
            except FAILURES as error:
                logger.warning("offers are not heard just now", error=str(error))
                await asyncio.sleep(0.5)
                continue
            streams: Any = found or []
            for _, entries in streams:
                for position, offer in entries:
                    last = position.decode()
                    turn = self._put.pop(offer[b"run"].decode(), None)
                    if turn is not None:
                        place = Place(offer[b"address"].decode(), offer[b"instance"].decode(), turn.run)
                        self._offered.put_nowait(
                            Turn(turn.run, turn.person, turn.priority, turn.language, place)
                        )


class FleetSandbox:
    """A client of every runner that has registered. Made by `open_fleet`."""

    def __init__(
        self, pool: redis.Redis, http: httpcore2.AsyncConnectionPool, tasks: TaskGroup, secret: str, *, queued: int,
        untrusted: bool, patience: float,
    ) -> None:  # fmt: skip
        self.turns = SharedTurns(pool, tasks, queued)
        self._redis = pool
        self._http = http
        self._tasks = tasks
        self._secret = secret
        self._untrusted = untrusted
        self._patience = patience
        self._remotes: dict[str, RemoteSandbox] = {}
        self._where: dict[str, RemoteSandbox] = {}
        self._known: Capabilities | None = None
        self._known_at = 0.0

    async def capabilities(self) -> Capabilities:
        """Say what all runners together can do: every language that one has, every control as the weakest has it."""
        if self._known is None or time.monotonic() - self._known_at > _KNOWN_SECONDS:
            try:
                found = [
                    capabilities_of(read_capabilities(about["capabilities"]))
                    for about in await self._runners()
                ]
            except (*FAILURES, BadMessage, KeyError, ValueError) as error:
                hint = f"The queue of runs does not answer: {error}"
                return replace(self._known or Capabilities(False, "", (), ()), available=False, hint=hint)
            self._known, self._known_at = _together(found), time.monotonic()
        return self._known

    async def _runners(self) -> list[dict[str, Any]]:
        members: Any = await self._redis.smembers(line.RUNNERS)
        names = sorted(name.decode() for name in members)
        texts = await self._redis.mget([line.runner_key(name) for name in names]) if names else []
        gone = [name for name, text in zip(names, texts, strict=True) if text is None]
        if gone:
            await self._redis.srem(line.RUNNERS, *gone)
        return [json.loads(text) for text in texts if text is not None]

    async def start(self, spec: RunSpec, place: Place | None = None) -> str:
        """Begin a run at the runner that claimed it; what needs no turn begins where there is most room. See `Sandbox`."""
        if place is None:
            return await self._start_anywhere(spec)
        return await self._start_at(place.address, spec, place)

    async def _start_anywhere(self, spec: RunSpec) -> str:
        with _translated():
            runners = [about for about in await self._runners() if about["capabilities"]["available"]]
        if runners and not (able := [about for about in runners if _knows(about, spec.language)]):
            raise Invalid(
                "language_unknown", f"No runner has {spec.language!r}.", next_step="Choose another language."
            )
        refused: AtelierError = Unavailable(
            "sandbox_unavailable", f"No runner has registered. {_JOIN}", next_step="Try again in a moment."
        )
        for about in sorted(able if runners else [], key=lambda about: about["running"] / about["runs"]):
            try:
                return await self._start_at(about["address"], spec, None)
            except (TooMany, Unavailable) as error:
                refused = error
        raise refused

    async def _start_at(self, address: str, spec: RunSpec, place: Place | None) -> str:
        remote = self._remotes.get(address)
        if remote is None:
            for old in [name for name, known in self._remotes.items() if known not in self._where.values()]:
                del self._remotes[old]
            remote = self._remotes[address] = RemoteSandbox(
                self._http,
                self._tasks,
                address,
                self._secret,
                self.turns,
                untrusted=self._untrusted,
                patience=self._patience,
            )
        run = await remote.start(spec, place)
        self._where[run] = remote
        return run

    async def events(self, run: str) -> AsyncIterator[Event]:
        """Yield the run's events; see `Sandbox`."""
        remote = self._where.get(run)
        if remote is None:
            raise NotFound(
                "run_not_found",
                f"There is no run {run!r} whose events can be read.",
                next_step="It may have ended.",
            )
        try:
            async for event in remote.events(run):
                yield event
        finally:
            self._where.pop(run, None)

    async def write(self, run: str, data: bytes, *, close: bool = False) -> None:
        """Send bytes to stdin, and close it when asked."""
        if (remote := self._where.get(run)) is not None:
            await remote.write(run, data, close=close)

    async def bring(self, run: str, files: Mapping[str, bytes | None]) -> None:
        """Bring files up to date while it runs."""
        if (remote := self._where.get(run)) is not None:
            await remote.bring(run, files)

    async def look(self, run: str) -> None:
        """Let what has been written so far come as events."""
        if (remote := self._where.get(run)) is not None:
            await remote.look(run)

    async def cell(self, run: str, number: int, path: str, code: str) -> None:
        """Hand an interpreter its next cell."""
        if (remote := self._where.get(run)) is not None:
            await remote.cell(run, number, path, code)

    async def interrupt(self, run: str, cell: int) -> None:
        """Interrupt a cell."""
        if (remote := self._where.get(run)) is not None:
            await remote.interrupt(run, cell)

    async def resize(self, run: str, window: Window) -> None:
        """Change the size of a run's terminal."""
        if (remote := self._where.get(run)) is not None:
            await remote.resize(run, window)

    async def signal(self, run: str, name: str) -> None:
        """Send a signal to the program."""
        if (remote := self._where.get(run)) is not None:
            await remote.signal(run, name)

    async def cancel(self, run: str) -> None:
        """End the whole process tree."""
        if (remote := self._where.get(run)) is not None:
            await remote.cancel(run)

    async def close(self) -> None:
        """Ask for the end of every run."""
        await asyncio.gather(*(remote.close() for remote in self._remotes.values()))


def _knows(about: dict[str, Any], language: str) -> bool:
    return any(one["name"] == language and one["version"] for one in about["capabilities"]["languages"])


def _together(found: list[Capabilities]) -> Capabilities:
    """Add up what runners can do."""
    if not found:
        return Capabilities(False, f"No runner has registered. {_JOIN}", (), ())
    controls: dict[str, Control] = {}
    languages: dict[str, Language] = {}
    for one in found:
        for control in one.controls:
            known = controls.setdefault(control.name, control)
            if _BADNESS[control.state] > _BADNESS[known.state]:
                controls[control.name] = control
        for language in one.languages:
            if language.name not in languages or not languages[language.name].version:
                languages[language.name] = language
    able = [one for one in found if one.available]
    return Capabilities(
        bool(able), "" if able else found[0].hint, tuple(controls.values()), tuple(languages.values())
    )


@contextlib.contextmanager
def _translated() -> Any:
    try:
        yield
    except FAILURES as error:
        raise Unavailable(
            "queue_unavailable",
            f"The queue of runs does not answer just now ({error}).",
            next_step="Try again in a moment.",
        ) from error


@asynccontextmanager
async def open_fleet(
    url: str, *, secret: str, queued: int, untrusted: bool, patience: float
) -> AsyncIterator[FleetSandbox]:
    """Open the runners that register in this Redis. None need be there yet."""
    async with (
        connected(url) as pool,
        connections() as http,
        TaskGroup("fleet") as tasks,
    ):
        fleet = FleetSandbox(pool, http, tasks, secret, queued=queued, untrusted=untrusted, patience=patience)
        try:
            yield fleet
        finally:
            await fleet.close()
