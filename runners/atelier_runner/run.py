"""One run in one sandbox, from the spec to `Exited`.

Three things happen at once: `_pump` reads what the agent sends, `_watch` holds CPU time (and memory, where no cgroup
does) against the limits, and a timer holds the wall time. Whichever first decides that the run is over says why
(`stop`) and kills the sandbox; `_pump` then meets the end of the stream, and `_result` turns what is known into one
reason. Limits never depend on the agent, which sits inside with the program.

Where files are wanted back, a limit on time or output, or the wish to stop it, first asks the agent to kill the program
and gives it a tenth of a second; after that everything is killed as before, and nothing is collected. From the moment
the agent says how the program ended only the collection's own bounds count.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import signal
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, replace
from typing import Any

from atelier_runner import frames
from atelier_runner.bubblewrap import ENVIRONMENT, TERMINAL
from atelier_runner.carrier import Fate, Sandbox
from atelier_runner.cells import Cells
from atelier_runner.channels import CONNECTIONS, WINDOW, Channels
from atelier_runner.collection import Collection
from atelier_runner.errors import SpecInvalid
from atelier_runner.languages import Language
from atelier_runner.model import MIB, SIGNALS, Event, Exited, Limits, Reason, Spec, Window, check_files
from atelier_runner.outbox import Outbox
from atelier_runner.outward import Outward
from atelier_runner.processes import tree_usage
from atelier_runner.proxy import ENVIRONMENT as PROXIED
from atelier_runner.proxy import PORT, Proxy

OPEN_FILES = 256
CPUS = os.cpu_count() or 1
END_SECONDS = 0.1  # a limit's tree is dead by then, collected or not
USAGE_SECONDS = 0.1
"""How often an agent says what is used, where nobody else can count it."""
SOFT = (Reason.WALL_TIME, Reason.CPU_TIME, Reason.OUTPUT, Reason.CANCELLED)


class Run:
    """Drives one spec in one sandbox; `events` is what came of it."""

    def __init__(
        self,
        spec: Spec,
        language: Language,
        sandbox: Sandbox,
        outward: Outward,
        *,
        environments: Mapping[str, str] | None = None,
        fresh: bool = False,
    ) -> None:
        """Drive `spec`; `environments` has the path inside of the one for each tool that there is one for; `fresh`: in an
        interpreter of its own."""
        self._spec = spec
        self._environments = environments or {}
        self._fresh = fresh
        self._language = language
        self._sandbox = sandbox
        self._outbox = Outbox()
        self._cause: Reason | None = None
        self._begun = asyncio.Event()
        self._ended = False
        self.taken = False
        self._agent_said: dict[str, Any] | None = None
        self._failure: dict[str, Any] | None = None
        self._lost = "the sandbox ended without saying how the program did"
        self._peak = 0
        self._tree_cpu = 0.0
        self._wall = 0.0
        self._collection: Collection | None = None
        self._known = set(spec.files)
        """Paths that the agent may say are gone."""
        self._build: Limits | None = None
        """While it is compiled under limits of its own: those."""
        self._staged = False
        self._began = 0.0
        self._timer: asyncio.TimerHandle
        self._tree_before = 0.0
        counted = sandbox.group.usage()
        self._by_tree = counted.cpu_seconds is None or counted.peak_memory_bytes is None
        self._by_agent = self._by_tree and not sandbox.pid
        self._fate: Fate | None = None
        self._looking = 0
        self._found_now: Collection | None = None
        self._channels: Channels | None = None
        if spec.network is not None:
            self._channels = Channels(sandbox.writer, Proxy(spec.network, outward).serve)
        self._cells: Cells | None = None
        if spec.cells is not None:
            self._cells = Cells(spec.cells, self._outbox, self._interrupt, self.stop)

    @property
    def ended(self) -> bool:
        """Whether `Exited` has been queued."""
        return self._ended

    def events(self) -> AsyncIterator[Event]:
        """Yield the run's events; call it once."""
        return self._outbox.read()

    def stop(self, reason: Reason, *, files: bool = True) -> None:
        """End the whole process tree, for this reason unless there was one before; without `files` none is waited for."""
        soft = files and reason in SOFT and self._spec.collect is not None
        if not soft:
            self._outbox.no_more_files()
            if self._collection is not None and not self._ended:
                self._sandbox.kill()
        if self._cause is not None or self._ended or self._agent_said is not None:
            return
        self._cause = reason
        self._outbox.stop_waiting()
        if soft:
            self._sandbox.end_program()
            asyncio.get_running_loop().call_later(END_SECONDS, self._kill_late)
        else:
            self._sandbox.kill()

    def _kill_late(self) -> None:
        if self._agent_said is None and not self._ended:
            self._sandbox.kill()

    async def write(self, data: bytes, *, close: bool) -> None:
        """Send bytes to stdin; ignored once the program has ended. Waits while the program does not read."""
        await self._begun.wait()
        writer = self._sandbox.writer
        with contextlib.suppress(ConnectionError, RuntimeError):
            view = memoryview(data)
            while view:
                count = min(len(view), frames.CHUNK)
                if self._channels is not None:
                    count = await self._channels.stdin.take(count)
                if self._ended or not count:
                    return
                writer.write(frames.encode(frames.STDIN, view[:count]))
                await writer.drain()
                view = view[count:]
            if close and not self._ended:
                writer.write(frames.encode(frames.STDIN_END))

    async def bring(self, files: Mapping[str, bytes | None]) -> None:
        """Bring files of the working folder up to date while the program runs (None takes one away), in one go.

        Raises:
            SpecInvalid: `path_invalid`, `files_too_large`.
        """
        check_files({path: data or b"" for path, data in files.items()}, self._spec.limits)
        await self._begun.wait()
        writer = self._sandbox.writer
        self._known.update(files)
        with contextlib.suppress(ConnectionError, RuntimeError):
            for frame in frames.encode_changes(files):
                if self._ended:
                    return
                writer.write(frame)
                await writer.drain()

    async def resize(self, window: Window) -> None:
        """Change the size of the run's terminal; ignored where there is none, and once it has ended."""
        window.check()
        await self._begun.wait()
        if self._spec.terminal is not None and not self._ended:
            with contextlib.suppress(ConnectionError, RuntimeError):
                self._sandbox.writer.write(frames.encode_window(window.columns, window.rows))

    async def send_signal(self, name: str) -> None:
        """Send a signal to the program's process group; ignored once it has ended.

        Raises:
            SpecInvalid: `signal_unknown`.
        """
        if name not in SIGNALS:
            raise SpecInvalid(
                "signal_unknown", f"{name[:20]!r} is not a signal that can be sent: {', '.join(SIGNALS)}."
            )
        await self._begun.wait()
        if not self._ended:
            with contextlib.suppress(ConnectionError, RuntimeError):
                number = signal.Signals[f"SIG{name}"]
                self._sandbox.writer.write(frames.encode(frames.SIGNAL, bytes([number])))

    async def cell(self, number: int, path: str, code: str) -> None:
        """Hand the interpreter its next cell; ignored once it has ended. Raises SpecInvalid, as `Cells.take`."""
        cells = self._of_cells()
        await self._begun.wait()
        frame = cells.take(number, path, code)
        if frame and not self._ended:
            with contextlib.suppress(ConnectionError, RuntimeError):
                self._sandbox.writer.write(frame)
                await self._sandbox.writer.drain()

    async def interrupt(self, number: int) -> None:
        """Interrupt a cell, if it is the one that runs. Raises SpecInvalid `no_cells`."""
        self._of_cells()
        await self._begun.wait()
        self._interrupt(number)

    def _of_cells(self) -> Cells:
        if self._cells is None:
            raise SpecInvalid("no_cells", "This run is not an interpreter that is sent cells.")
        return self._cells

    def _interrupt(self, number: int) -> None:
        if not self._ended:
            with contextlib.suppress(ConnectionError, RuntimeError):
                self._sandbox.writer.write(frames.encode_interrupt(number))

    async def drive(self) -> None:
        """Run the program to its end and queue `Exited`, whatever happens."""
        loop = asyncio.get_running_loop()
        compiled = self._spec.entry and self._language.build
        self._build = self._spec.build.of(self._spec.limits) if compiled and self._spec.build else None
        self._staged = self._build is not None
        helpers: list[asyncio.Task[None]] = []
        result: Exited | None = None
        try:
            await self._begin_stage()
            self._outbox.started(self._language.runtime)
            helpers += [
                asyncio.create_task(self._send(), name="run-send"),
                asyncio.create_task(self._watch(), name="run-watch"),
            ]
            await self._pump()
            self._wall = loop.time() - self._began
            self._timer.cancel()
            self._fate = await self._sandbox.measure()
            result = self._result()
            if self._agent_said is not None and self._agent_said.get("built") is not False:
                await self._collect()
        except (OSError, frames.BadFrame) as error:
            self._lost = str(error)
        finally:
            self._wall = self._wall or loop.time() - self._began
            if result is None:
                self._fate = await self._sandbox.measure()
            self._sandbox.kill()  # the program may have left others behind
            self._timer.cancel()
            if self._channels is not None:
                await self._channels.close()
            if self._cells is not None:
                self._cells.close()
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            self._begun.set()
            if result is None:
                result = self._result()
            if self._collection is not None:
                result = replace(result, collected=self._collection.summary)
            self._ended = True
            self._outbox.exited(result)

    @property
    def _limits(self) -> Limits:
        """What holds in the present stage."""
        return self._build or self._spec.limits

    async def _begin_stage(self) -> None:
        """Let time run and count from here on, under the stage's limits."""
        loop = asyncio.get_running_loop()
        self._began = loop.time()
        self._timer = loop.call_later(self._limits.wall_seconds, self.stop, Reason.WALL_TIME)
        self._tree_before, self._peak = self._tree_before + self._tree_cpu, 0
        self._tree_cpu = 0.0
        try:
            await self._sandbox.limit(self._limits)
        except OSError:  # the kernel refuses a limit below what is used already
            self.stop(Reason.MEMORY)

    async def _built(self) -> None:
        """Go on with the program, which waits for it."""
        self._build = None
        self._timer.cancel()
        await self._begin_stage()
        with contextlib.suppress(ConnectionError, RuntimeError):
            self._sandbox.writer.write(frames.encode(frames.BUILT))

    async def _collect(self) -> None:
        """Take in the files that the program wrote; whatever goes wrong ends only this."""
        if (wanted := self._spec.collect) is None:
            return
        self._collection = Collection(self._known, wanted, self._outbox.changed)
        with contextlib.suppress(TimeoutError, OSError, frames.BadFrame):
            async with asyncio.timeout(wanted.seconds):
                await self._collection.take(self._sandbox.reader)

    async def _send(self) -> None:
        """Send spec, files and GO, then the stdin that was given."""
        spec, writer = self._spec, self._sandbox.writer
        language, window = self._language, spec.terminal
        terminal = {} if window is None else TERMINAL
        way = {"port": PORT, "connections": CONNECTIONS, "window": WINDOW}
        proxied = {} if spec.network is None else PROXIED
        argv = language.argv(spec.entry, tuple(spec.args)) if spec.entry else list(language.prompt)
        python, node = self._environments.get("python"), self._environments.get("node")
        own = {}
        if self._environments:
            bins = [python and f"{python}/bin", node and f"{node}/node_modules/.bin", ENVIRONMENT["PATH"]]
            own["PATH"] = ":".join(filter(None, bins))
        if python:
            own["VIRTUAL_ENV"] = python
            if language.info.name == "python":
                argv[0] = f"{python}/bin/python"
        head = {
            "argv": argv,
            "build": language.build_argv(spec.entry) if spec.entry else [],
            "env": {**ENVIRONMENT, **terminal, **proxied, **own, **language.env, **spec.env},
            "python": python,
            "node_modules": f"{node}/node_modules" if node else None,
            "fork": spec.entry if language.fork and window is None and not self._fresh else None,
            "terminal": None if window is None else [window.columns, window.rows],
            "tty": "",
            "collect": None if spec.collect is None else asdict(spec.collect),
            "staged": self._build is not None,
            "network": None if spec.network is None else way,
            "usage": USAGE_SECONDS if self._by_agent else 0,
            "cells": spec.cells is not None,
            "rlimits": {"nofile": OPEN_FILES, "fsize": spec.limits.disk_mb * MIB},
            "build_rlimits": self._rlimits(self._build or spec.limits),
            "program_rlimits": self._rlimits(spec.limits),
        }
        with contextlib.suppress(ConnectionError):
            pending = bytearray(frames.encode(frames.SPEC, json.dumps(head).encode()))
            for frame in frames.encode_files(spec.files):
                pending += frame
                if len(pending) > frames.CHUNK:
                    writer.write(bytes(pending))
                    pending.clear()
                    await writer.drain()
            writer.write(bytes(pending + frames.encode(frames.GO)))
            self._begun.set()
            if spec.stdin is not None:
                await self.write(spec.stdin, close=True)

    def _rlimits(self, limits: Limits) -> dict[str, int]:
        """Return the backstops of one stage. CPU time in the next whole second: the host counts exactly, and all processes."""
        users = {"nproc": limits.processes + 1} if self._sandbox.own_user else {}
        return {"cpu": math.ceil(limits.cpu_seconds) + 1, **users}

    async def _pump(self) -> None:
        """Read the agent's frames until it is gone; keeps the head of the output up to its limit."""
        left = self._spec.limits.output_bytes
        reader = self._sandbox.reader
        printed = "stdout" if self._spec.terminal is None else "terminal"
        streams = {frames.STDOUT: printed, frames.STDERR: "stderr"}
        while (frame := await frames.read(reader)) is not None:
            kind, payload = frame
            if (stream := streams.get(kind)) is not None and payload:
                if len(payload) > left:
                    self.stop(Reason.OUTPUT)
                if left:
                    await self._outbox.output(stream, payload[:left])
                left = max(0, left - len(payload))
            elif self._cells is not None and kind in frames.CELLS:
                await self._cells.add(kind, payload)
            elif kind == frames.BEGUN and self._build is not None:
                await self._built()
            elif kind == frames.USED and self._by_agent:
                self._told(frames.json_object(payload))
            elif self._looking and kind in frames.FILES:
                await self._found(kind, payload)
            elif self._channels is not None and kind in frames.NETWORK:
                self._channels.take(kind, payload)
            elif kind == frames.EXIT:
                self._agent_said = frames.json_object(payload)
                return
            elif kind == frames.FAILED:
                self._failure = frames.json_object(payload)
                return
            else:
                raise frames.BadFrame(f"the sandbox sent a frame of kind {kind}")

    async def look(self) -> None:
        """Let what has changed since the last look come as events, then `Looked`; nothing once it has ended."""
        await self._begun.wait()
        if self._spec.collect is not None and not self._ended:
            self._looking += 1
            with contextlib.suppress(ConnectionError, RuntimeError):
                self._sandbox.writer.write(frames.encode(frames.LOOK))

    async def _found(self, kind: int, payload: bytes) -> None:
        """Take the next frame of what a look has found."""
        assert self._spec.collect is not None
        self._found_now = self._found_now or Collection(self._known, self._spec.collect, self._outbox.changed)
        if await self._found_now.add(kind, payload):
            self._found_now = None
            self._looking -= 1
            self._outbox.looked()

    async def _watch(self) -> None:
        """Look at what has been used, the more often the nearer the limit."""
        group = self._sandbox.group
        while True:
            used = group.cpu_seconds()
            if self._by_tree:
                if not self._by_agent:
                    tree = await asyncio.to_thread(tree_usage, self._sandbox.pid)
                    self._count(tree.cpu_seconds, tree.memory_bytes)
                used = self._tree_cpu if used is None else used
            if (
                group.usage().oom_kills
            ):  # also when the kernel chose a child, and the program only waits for it
                self.stop(Reason.MEMORY)
            if used is not None and used >= self._limits.cpu_seconds:
                self.stop(Reason.CPU_TIME)
            left = self._limits.cpu_seconds - (used or 0.0)
            await asyncio.sleep(max(0.02, min(left / CPUS, 0.1 if self._by_tree else 0.5)))

    def _count(self, cpu_seconds: float, memory_bytes: int) -> None:
        """Take what all processes together have used so far, where no control group counts."""
        self._tree_cpu = max(self._tree_cpu, cpu_seconds - self._tree_before)
        self._peak = max(self._peak, memory_bytes)
        if (
            self._sandbox.group.usage().peak_memory_bytes is None
            and memory_bytes > self._limits.memory_mb * MIB
        ):
            self.stop(Reason.MEMORY)

    def _told(self, said: dict[str, Any]) -> None:
        """Take what the agent counted. A program that speaks in its place can hide its own use, and has the wall time then."""
        self._count(_seconds(said.get("cpu")), _number(said.get("memory")) or 0)
        if _number(said.get("kills")):
            self.stop(Reason.MEMORY)

    def _result(self) -> Exited:
        """Turn what is known into one reason."""
        used = self._sandbox.group.usage()
        said = self._agent_said or {}
        code, number = _number(said.get("code")), _number(said.get("signal"))
        cpu = (
            used.cpu_seconds
            if used.cpu_seconds is not None
            else max(self._tree_cpu, 0.0 if self._by_agent else _seconds(said.get("cpu")))
        )
        peak = (
            used.peak_memory_bytes
            if used.peak_memory_bytes is not None
            else max(self._peak, 0 if self._staged else _number(said.get("memory")) or 0)
        )
        # What the agent counts comes a moment late: a short program may have had more than it was to have.
        oom = bool(used.oom_kills) or (self._by_agent and peak > self._limits.memory_mb * MIB)
        reason, detail = self._reason(code, number, bool(said.get("full")), oom, cpu)
        if self._cause is not None:
            code = None
        name = None if number is None or self._cause is not None else _signal_name(number)
        return Exited(0, reason, code, name, round(self._wall, 6), round(cpu, 6), peak, detail)

    def _reason(
        self, code: int | None, number: int | None, full: bool, oom: bool, cpu: float
    ) -> tuple[Reason, str]:
        limits = self._limits
        what = "Compiling it" if self._build is not None else "It"
        texts = {
            Reason.WALL_TIME: f"{what} {'took' if self._build else 'ran'} longer than {limits.wall_seconds:g} s.",
            Reason.CPU_TIME: f"{what} used more than {limits.cpu_seconds:g} s of CPU time.",
            Reason.MEMORY: f"{what} needed more than {limits.memory_mb} MiB of memory.",
            Reason.OUTPUT: f"{what} printed more than {limits.output_bytes} bytes; the first are kept.",
            Reason.DISK: f"{what} wrote more than {limits.disk_mb} MiB of files.",
            Reason.CANCELLED: "It was stopped.",
        }
        failed = number is not None or code != 0
        if self._cause is not None:
            said = self._cells.detail if self._cells is not None else ""
            return self._cause, said or texts[self._cause]
        if oom and (failed or self._by_agent):
            return Reason.MEMORY, texts[Reason.MEMORY]
        if self._failure is not None:
            if self._failure.get("kind") == "disk":
                return Reason.DISK, texts[Reason.DISK]
            return Reason.LOST, str(self._failure.get("detail", ""))[:200]
        if self._agent_said is None and self._fate is not None:
            return self._fate.reason, self._fate.detail or texts.get(self._fate.reason, self._lost)
        if self._agent_said is None:
            return Reason.LOST, self._lost
        if number == signal.SIGXCPU or (number == signal.SIGKILL and cpu >= limits.cpu_seconds):
            return Reason.CPU_TIME, texts[Reason.CPU_TIME]
        if number == signal.SIGXFSZ or (full and failed):
            return Reason.DISK, texts[Reason.DISK]
        if self._agent_said.get("cut_off") is True:
            return Reason.LOST, "A cell closed the line between the interpreter and its sandbox."
        if self._agent_said.get("built") is False:
            return Reason.EXITED, "It could not be compiled."
        return (Reason.EXITED if number is None else Reason.SIGNALLED), ""


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 53 else None


def _seconds(value: object) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
