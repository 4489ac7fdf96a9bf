"""Runs: asked for, queued, executed, recorded.

Theory of operation. `Runs` puts runs in the sandbox's queue and has one task per running program. A run is a row from the start
(queued, running, ended), so what a server that was killed has left behind is found and ended as `lost`; nothing is ever
run twice. The files are read from the log when the run starts, not when it is asked for. What the program wrote comes
back when it has ended (`results.py`), before the run counts as ended.

Of several server processes each says every few seconds that it holds its runs; what nobody has held for a while is
lost. Input and a wish to stop reach the process that holds the run over the bus.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Self

import structlog
from prometheus_client import Counter, Gauge, Histogram

from atelier import files, times
from atelier.auth import Action, Caller, has_egress, require
from atelier.errors import AtelierError, Conflict, Invalid, NotFound, Unavailable
from atelier.events import publish
from atelier.ids import new_id
from atelier.limits import Limits
from atelier.packages import MANIFESTS, packages_of
from atelier.runs import queries
from atelier.runs.recorder import Recorder
from atelier.runs.results import Leavings, asked_of, settle
from atelier.runs.schemas import LimitsAsked, NewRun, Run, RunFiles
from atelier.sandbox import (
    BuildLimits,
    Changed,
    Exited,
    Language,
    Output,
    Reason,
    RunLimits,
    RunSpec,
    Started,
    Turn,
)
from atelier.services import Services
from atelier.tasks import TaskGroup

logger = structlog.get_logger(__name__)
STARTED = Counter("atelier_runs_started_total", "Runs started", ["language"])
ENDED = Counter("atelier_runs_ended_total", "Runs ended", ["reason"])
WAITING = Gauge("atelier_runs_waiting", "Runs in the queue")
FIRST_OUTPUT = Histogram("atelier_run_first_output_seconds", "From the request to the first output of a run")
_LIST = 50  # what is listed is also what is kept
_WAITING_INPUT = 1024 * 1024  # bytes typed that a program has not read
_LOOK_AFTER = 2.0  # seconds; finding out what the sandbox can do takes a moment that the start should not
_HOLD_SECONDS = 5.0
_LOST_AFTER = 20.0
_TOPIC = "runs"
_NOT_YET: dict[str, Any] = {"result": None, "started_at": None, "ended_at": None}
_PRIORITIES = {"normal": 0, "low": 1}
_TYPED = 32 * 1024  # bytes of input in one signal
_ENTRIES = (
    "main.py", "main.ts", "main.mjs", "main.js", "main.sh", "index.js", "index.ts", "main.c", "main.cpp", "main.go", "main.rs",
    "Main.java", "main.rb", "main.php", "main.lua", "main.r", "main.sql",
)  # fmt: skip


@dataclass(slots=True)
class _Live:
    session_id: str
    caller: Caller | None
    spec: Mapping[str, Any]
    sandbox_id: str | None = None
    cancelled: bool = False
    asked: float = field(default_factory=time.monotonic)
    announced: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once everyone has been told that it is queued; only then are they told that it runs."""
    input: deque[tuple[bytes, bool]] = field(default_factory=deque)
    input_bytes: int = 0
    input_came: asyncio.Event = field(default_factory=asyncio.Event)


class Runs:
    """The runs of this process; an async context manager."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._turns = services.sandbox.turns
        self._live: dict[str, _Live] = {}
        self._tasks = TaskGroup("runs")
        self._own = new_id("prc")

    async def __aenter__(self) -> Self:
        if self._services.bus.alone:
            await self._end_left_behind(times.now() + 1)
        else:
            self._tasks.start(self._hold(), name="hold")
            self._tasks.start(self._hear(), name="hear")
        self._tasks.start(self._look(), name="look at the sandbox")
        self._tasks.start(self._dispatch(), name="dispatch")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.cancel()
        for run_id in self._live:
            await self._turns.drop(run_id)
        for run_id, live in list(self._live.items()):
            await self._end_lost(live.session_id, run_id)

    async def _hold(self) -> None:
        """Say that this process is there, and end what others left behind."""
        while True:
            try:
                async with self._services.db.begin() as db:
                    await queries.hold(db, self._own, times.now())
                await self._end_left_behind(times.now() - int(_LOST_AFTER * 1000))
            except AtelierError as error:
                logger.warning("runs are not looked after just now", code=error.code)
            await asyncio.sleep(_HOLD_SECONDS)

    async def _end_left_behind(self, held_before: int) -> None:
        async with self._services.db.read() as db:
            left = await queries.unfinished(db, held_before)
        for row in left:
            async with self._services.db.begin() as db:
                mine = await queries.take_over(db, row["id"], held_before, self._own, times.now())
            if mine:
                await self._end_lost(row["session_id"], row["id"])

    async def _hear(self) -> None:
        """Do what people on other processes ask of the runs of this one."""
        async with self._services.bus.subscribe(_TOPIC, bound=4096) as signals:
            async for signal in signals:
                asked = json.loads(signal or b"{}")
                live = self._live.get(asked.get("run", ""))
                if live is None:
                    continue
                try:
                    if asked["do"] == "cancel":
                        await self.cancel(live.session_id, asked["run"])
                    elif asked["do"] == "signal":
                        await self.signal(live.session_id, asked["run"], asked["name"])
                    else:
                        data = base64.b64decode(asked["data"])
                        await self.write(live.session_id, asked["run"], data, close=asked["close"])
                except AtelierError as error:
                    logger.info("refused to another process", run=asked["run"], code=error.code)

    async def _ask(self, run: Run, **what: Any) -> None:
        """Ask the process that holds a run, if it is still going."""
        if run.status != "ended" and not self._services.bus.alone:
            message = json.dumps({"run": run.id, **what}).encode()
            await self._services.bus.publish(_TOPIC, message)

    async def _look(self) -> None:
        """Ask for the capabilities before the first person has to wait for them."""
        await asyncio.sleep(_LOOK_AFTER)
        with contextlib.suppress(AtelierError):
            await self._services.sandbox.capabilities()

    async def start(self, caller: Caller, session_id: str, asked: NewRun) -> Run:
        """Queue a run of the session's files.

        Raises:
            NotFound: `session_not_found`, `entry_not_found`.
            Forbidden: `role_forbids`.
            Invalid: `language_unknown`, `limit_too_high`, `manifest_invalid`, `package_not_allowed`.
            TooMany: `queue_full`.
            Unavailable: `sandbox_unavailable`, `queue_unavailable`.
        """
        async with self._services.db.read() as db:
            await require(db, session_id, caller.user_id, Action.RUN)
            chosen = await queries.entry_of(db, session_id)
        paths = [f.path for f in await files.list_files(self._services, session_id) if f.kind != "folder"]
        capabilities = await self._services.sandbox.capabilities()
        if not capabilities.available and not capabilities.languages:  # nobody to ask
            raise Unavailable(
                "sandbox_unavailable", capabilities.hint, next_step="Ask whoever runs this server."
            )
        programs = tuple(end for language in capabilities.languages for end in language.extensions)
        looked_at = asked.open if asked.open and asked.open.lower().endswith(programs) else None
        entry = find_entry(asked.entry, [looked_at, chosen], paths)
        language = find_language(asked.language, entry, capabilities.languages)
        limits = self._limits(asked.limits)
        manifests = [path for path in MANIFESTS.values() if path in paths]
        if manifests:  # refused now, when somebody looks, and not at its turn
            content = await files.read_some(self._services, session_id, manifests)
            await packages_of(self._services, language, content)
        await self._turns.refuse_if_full()
        run_id = new_id("run")
        spec = {
            "language": language,
            "entry": entry,
            "args": asked.args,
            "stdin": asked.stdin,
            "limits": limits,
            "priority": asked.priority,
        }
        row: dict[str, Any] = {
            "id": run_id,
            "session_id": session_id,
            "user_id": caller.user_id,
            "language": language,
            "entry": entry,
            "args": asked.args,
            "limits": asdict(limits),
            "status": "queued",
            "created_at": times.now(),
        }
        async with self._services.db.begin() as db:
            await queries.add(db, **row, holder=self._own, held_at=row["created_at"])
        self._live[run_id] = live = _Live(session_id, caller, spec)
        try:
            await self._turns.put(self._turn(run_id, live))
        except AtelierError:
            del self._live[run_id]
            async with self._services.db.begin() as db:
                await queries.remove(db, run_id)
            raise
        WAITING.set(self._turns.waiting)
        run = await self._shown({**row, **_NOT_YET, "user_name": caller.display_name})
        try:
            await publish(self._services, session_id, "run.queued", {"run": run.model_dump(mode="json")})
        finally:
            live.announced.set()
        return run

    async def get(self, session_id: str, run_id: str) -> Run:
        """Return a run. Raises NotFound `run_not_found`."""
        async with self._services.db.read() as db:
            row = await queries.one(db, session_id, run_id)
        if row is None:
            raise NotFound(
                "run_not_found",
                "There is no such run in this session.",
                next_step="Look at the list of runs.",
            )
        return await self._shown(dict(row))

    async def latest(self, session_id: str) -> list[Run]:
        """Return the newest runs first."""
        async with self._services.db.read() as db:
            rows = [dict(row) for row in await queries.latest(db, session_id, _LIST)]
        waiting = await self._turns.positions([row["id"] for row in rows if row["status"] == "queued"])
        return [Run.model_validate({**row, "position": waiting.get(row["id"])}) for row in rows]

    async def file(self, session_id: str, run_id: str, number: int) -> Mapping[str, Any]:
        """Return what a run left to be shown. Raises NotFound `run_file_not_found`."""
        async with self._services.db.read() as db:
            row = await queries.file_of(db, session_id, run_id, number)
        if row is None:
            raise NotFound(
                "run_file_not_found",
                "This is not kept with the run, or not any more: newer runs needed the room.",
                next_step="Run it again.",
            )
        return dict(row)

    async def write(self, session_id: str, run_id: str, data: bytes, *, close: bool) -> None:
        """Send bytes to a run's stdin, now or once it starts; one that has ended ignores them.

        Raises:
            Conflict: `stdin_given` with the request for the run; `stdin_full`, the program does not read.
        """
        run = await self.get(session_id, run_id)
        live = self._live.get(run_id)
        if live is None:
            for start in range(0, max(1, len(data)), _TYPED):
                part = data[start : start + _TYPED]
                last = start + _TYPED >= len(data)
                await self._ask(run, do="write", data=base64.b64encode(part).decode(), close=close and last)
            return
        if live.spec.get("stdin") is not None:
            raise Conflict(
                "stdin_given",
                "This run got its whole input when it was asked for.",
                next_step="Start a run without stdin to type its input.",
            )
        if live.input_bytes + len(data) > _WAITING_INPUT:
            raise Conflict(
                "stdin_full",
                f"The program has not read the last {live.input_bytes} bytes; {_WAITING_INPUT} may wait.",
                next_step="Wait until it reads, or stop it.",
            )
        live.input.append((data, close))
        live.input_bytes += len(data)
        live.input_came.set()

    async def signal(self, session_id: str, run_id: str, name: str) -> None:
        """Send a signal to a run's program; one that has ended ignores it.

        Raises:
            Conflict: `run_not_started`.
        """
        run = await self.get(session_id, run_id)
        live = self._live.get(run_id)
        if run.status == "queued" and (live is None or live.sandbox_id is None):
            raise Conflict(
                "run_not_started",
                "This run still waits; there is no program to send a signal to.",
                next_step="Wait until it runs, or stop it.",
            )
        if live is None:
            await self._ask(run, do="signal", name=name)
        elif live.sandbox_id is not None:
            await self._services.sandbox.signal(live.sandbox_id, name)

    async def cancel(self, session_id: str, run_id: str) -> None:
        """End a run, queued or running; one that has ended stays as it is."""
        run = await self.get(session_id, run_id)
        live = self._live.get(run_id)
        if live is None:
            await self._ask(run, do="cancel")
            return
        live.cancelled = True
        if await self._turns.drop(run_id):
            await self._end(
                run_id, live, Recorder(self._services, session_id, run_id), _nothing(Reason.CANCELLED)
            )
        elif live.sandbox_id is not None:
            await self._services.sandbox.cancel(live.sandbox_id)

    async def _shown(self, row: Mapping[str, Any]) -> Run:
        waiting = await self._turns.positions([row["id"]] if row["status"] == "queued" else [])
        return Run.model_validate({**row, "position": waiting.get(row["id"])})

    def _turn(self, run_id: str, live: _Live) -> Turn:
        assert live.caller is not None
        return Turn(run_id, live.caller.user_id, _PRIORITIES[live.spec["priority"]], live.spec["language"])

    def _limits(self, asked: LimitsAsked) -> RunLimits:
        highest = self._services.limits
        values: dict[str, Any] = {}
        for name, value in asked.model_dump().items():
            most = getattr(highest, f"run_{name}")
            if value is not None and value > most:
                raise Invalid(
                    "limit_too_high",
                    f"{name} is at most {most} here; {value} was asked for.",
                    next_step="Ask for less, or ask the operator to raise it.",
                    limit=name,
                    most=most,
                )
            values[name] = most if value is None else value
        return RunLimits(**values)

    async def _dispatch(self) -> None:
        """Begin what has its turn."""
        while True:
            turn = await self._turns.take()
            WAITING.set(self._turns.waiting)
            if (live := self._live.get(turn.run)) is None:
                await self._turns.done(turn)
            else:
                self._tasks.start(self._execute(turn, live), name=turn.run)

    async def _execute(self, turn: Turn, live: _Live) -> None:
        recorder = Recorder(self._services, live.session_id, turn.run)
        result = _nothing(Reason.LOST)
        written: RunFiles | None = None
        try:
            left = Leavings(await files.read_given(self._services, live.session_id))
            result = await self._drive(turn, live, recorder, left)
            written = await self._settle(turn.run, live, left)
        except AtelierError as error:
            if live.cancelled:
                result = _nothing(Reason.CANCELLED)
            elif error.code == "runner_gone" and await self._wait_again(turn, live):
                return
            else:
                recorder.output("stderr", f"{error.detail} {error.next_step}\n".encode())
                result = _nothing(Reason.LOST, error.detail)
        except Exception:
            logger.exception("a run failed on our side", run=turn.run)
            result = _nothing(Reason.LOST, "Something went wrong here, not in your program.")
        finally:
            await self._turns.done(turn)
        await self._end(turn.run, live, recorder, result, written)

    async def _settle(self, run_id: str, live: _Live, left: Leavings) -> RunFiles | None:
        """Deal with what the program wrote; that it fails changes nothing about how the program ended."""
        assert live.caller is not None
        try:
            return await settle(self._services, live.caller, live.session_id, run_id, left)
        except Exception:
            logger.exception("a run's files are lost", run=run_id)
            return RunFiles(complete=False, not_written="Something went wrong here: its files are not kept.")

    async def _wait_again(self, turn: Turn, live: _Live) -> bool:
        """Queue a run again that has not begun, in front; says whether it waits."""
        logger.info("a run goes back in the queue", run=turn.run)
        try:
            await self._turns.put(self._turn(turn.run, live), again=True)
        except AtelierError:
            return False
        return True

    async def _drive(self, turn: Turn, live: _Live, recorder: Recorder, left: Leavings) -> Exited:
        spec = live.spec
        if live.cancelled:
            return _nothing(Reason.CANCELLED)
        stdin = None if spec["stdin"] is None else spec["stdin"].encode()
        async with self._services.db.read() as db:
            network = await has_egress(db, live.session_id, allowed=self._services.program_egress)
        live.sandbox_id = await self._services.sandbox.start(
            RunSpec(
                language=spec["language"],
                entry=spec["entry"],
                files=left.given.content,
                limits=spec["limits"],
                args=spec["args"],
                stdin=stdin,
                collect=asked_of(self._services),
                build=build_limits(self._services.limits),
                packages=await packages_of(self._services, spec["language"], left.given.content),
                network=network,
            ),
            turn.place,
        )
        if live.cancelled:
            await self._services.sandbox.cancel(live.sandbox_id)
        STARTED.labels(spec["language"]).inc()
        helpers = [self._tasks.start(self._feed(live), name=f"input of {turn.run}")]
        try:
            return await self._follow(turn.run, live, recorder, helpers, left)
        finally:
            helpers[0].cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    async def _follow(
        self,
        run_id: str,
        live: _Live,
        recorder: Recorder,
        helpers: list[asyncio.Task[None]],
        left: Leavings,
    ) -> Exited:
        assert live.sandbox_id is not None
        spec, silent = live.spec, True
        async for event in self._services.sandbox.events(live.sandbox_id):
            match event:
                case Started():
                    await recorder.add(
                        "started",
                        {"version": event.version, "language": spec["language"], "entry": spec["entry"]},
                    )
                    helpers.append(
                        self._tasks.start(self._tell_started(run_id, live), name=f"started {run_id}")
                    )
                case Output():
                    recorder.output(event.stream, event.data)
                    if silent:
                        silent = False
                        FIRST_OUTPUT.observe(time.monotonic() - live.asked)
                case Changed():
                    left.changed[event.path] = event.data
                case Exited():
                    left.collected = event.collected
                    return event
        return _nothing(Reason.LOST)

    async def _feed(self, live: _Live) -> None:
        """Hand on what was typed, in order; waits while the program does not read."""
        assert live.sandbox_id is not None
        while True:
            await live.input_came.wait()
            live.input_came.clear()
            while live.input:
                data, close = live.input.popleft()
                await self._services.sandbox.write(live.sandbox_id, data, close=close)
                live.input_bytes -= len(data)

    async def _tell_started(self, run_id: str, live: _Live) -> None:
        """Beside the output, which must not wait for it."""
        await live.announced.wait()
        async with self._services.db.begin() as db:
            row = await queries.one(db, live.session_id, run_id)
            if row is None or row["status"] != "queued":
                return
            begun = {"status": "running", "started_at": times.now()}
            await queries.change(db, run_id, **begun)
        run = Run.model_validate({**row, **begun})
        await publish(self._services, live.session_id, "run.started", {"run": run.model_dump(mode="json")})

    async def _end(
        self,
        run_id: str,
        live: _Live,
        recorder: Recorder,
        exited: Exited,
        written: RunFiles | None = None,
    ) -> None:
        result = {name: value for name, value in asdict(exited).items() if name not in ("seq", "collected")}
        result["reason"] = exited.reason.value
        told = None if written is None else written.model_dump(mode="json")
        async with self._services.db.begin() as db:
            await queries.change(db, run_id, status="ended", result=result, files=told, ended_at=times.now())
            await queries.forget_old(db, live.session_id, _LIST)
        self._live.pop(run_id, None)
        try:
            if told is not None:
                await recorder.add("files", told)
            await recorder.end(result)
        except Unavailable:
            logger.warning("the end of a run's output is lost", run=run_id)
        ENDED.labels(exited.reason.value).inc()
        run = await self.get(live.session_id, run_id)
        await publish(self._services, live.session_id, "run.ended", {"run": run.model_dump(mode="json")})

    async def _end_lost(self, session_id: str, run_id: str) -> None:
        async with self._services.db.read() as db:
            last = await queries.last_event(db, run_id)
        recorder = Recorder(self._services, session_id, run_id, 0 if last is None else last["seq"])
        live = self._live.get(run_id) or _Live(session_id, None, {})
        await self._end(
            run_id, live, recorder, _nothing(Reason.LOST, "The server was stopped while this ran.")
        )


def build_limits(limits: Limits) -> BuildLimits:
    """Return the bounds on compiling."""
    return BuildLimits(
        limits.build_wall_seconds, limits.build_cpu_seconds, limits.build_memory_mb, limits.build_processes
    )


def find_entry(asked: str | None, others: list[str | None], paths: list[str]) -> str:
    """Choose what to run: what was asked for, else the first of the others that is there, else one that is called main.

    Raises:
        NotFound: `entry_not_found`.
    """
    if asked is not None and asked not in paths:
        raise NotFound(
            "entry_not_found",
            f"There is no file {asked!r} in this session.",
            next_step="Open a file and run it.",
        )
    for candidate in (asked, *others, *_ENTRIES):
        if candidate in paths:
            return candidate
    raise NotFound(
        "entry_not_found",
        "There is nothing to run: no file was named, and none is called main.",
        next_step="Open a file and run it.",
    )


def find_language(asked: str | None, entry: str, languages: tuple[Language, ...]) -> str:
    """Choose the language: what was asked for, else by the entry's extension.

    Raises:
        Invalid: `language_unknown`.
    """
    ready = [language for language in languages if language.version]
    if asked is not None:
        names = [language.name for language in ready]
        found = next((language for language in languages if language.name == asked), None)
        if asked not in names:
            raise Invalid(
                "language_unknown",
                f"{asked!r} cannot run here; there is: {', '.join(names) or 'nothing'}.",
                next_step=found.hint if found else "Choose one of these.",
            )
        return asked
    for language in languages:
        if entry.lower().endswith(language.extensions):
            return find_language(language.name, entry, languages)
    known = ", ".join(extension for language in ready for extension in language.extensions)
    raise Invalid(
        "language_unknown",
        f"{entry!r} has none of the extensions that run here: {known}.",
        next_step="Open a program, or name the language.",
    )


def _nothing(reason: Reason, detail: str = "") -> Exited:
    return Exited(0, reason, None, None, 0.0, 0.0, 0, detail)
