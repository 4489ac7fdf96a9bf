"""The runner package in this process: its shapes and errors in the port's words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict

import atelier_runner as runner
from atelier.errors import Invalid, NotFound, Unavailable
from atelier.sandbox.base import (
    Capabilities,
    Changed,
    Collected,
    Control,
    Event,
    Exited,
    Language,
    LeftOut,
    Looked,
    Output,
    Reason,
    RunSpec,
    Started,
    Window,
)


class EmbeddedSandbox:
    """A client of the runner's local backend."""

    def __init__(self, backend: runner.Backend) -> None:
        self._backend = backend

    async def capabilities(self) -> Capabilities:
        """Say what this machine enforces; takes about a second the first time."""
        found = await self._backend.capabilities()
        return Capabilities(
            found.available,
            found.hint,
            tuple(Control(c.name, c.state, c.detail) for c in found.controls),
            tuple(Language(x.name, x.title, x.extensions, x.version, x.hint) for x in found.languages),
        )

    async def start(self, spec: RunSpec) -> str:
        """Begin a run; see `Sandbox`."""
        with _translated():
            return await self._backend.start(
                runner.Spec(
                    language=spec.language,
                    entry=spec.entry,
                    files=spec.files,
                    limits=runner.Limits(**asdict(spec.limits)),
                    args=spec.args,
                    stdin=spec.stdin,
                    env=spec.env,
                    terminal=_window(spec.terminal),
                    collect=None if spec.collect is None else runner.Collect(**asdict(spec.collect)),
                )
            )

    async def events(self, run: str) -> AsyncIterator[Event]:
        """Yield the run's events; see `Sandbox`."""
        with _translated():
            async for event in self._backend.events(run):
                yield _event(event)

    async def write(self, run: str, data: bytes, *, close: bool = False) -> None:
        """Send bytes to stdin, and close it when asked."""
        with _translated():
            await self._backend.write(run, data, close=close)

    async def place(self, run: str, files: Mapping[str, bytes | None]) -> None:
        """Bring files up to date while it runs; see `Sandbox`."""
        with _translated():
            await self._backend.place(run, files)

    async def look(self, run: str) -> None:
        """Let what has been written so far come as events."""
        await self._backend.look(run)

    async def resize(self, run: str, window: Window) -> None:
        """Change the size of a run's terminal."""
        with _translated():
            await self._backend.resize(run, runner.Window(window.columns, window.rows))

    async def cancel(self, run: str) -> None:
        """End the whole process tree."""
        await self._backend.cancel(run)


def _window(window: Window | None) -> runner.Window | None:
    return None if window is None else runner.Window(window.columns, window.rows)


def _event(event: runner.Event) -> Event:
    match event:
        case runner.Started(seq, version):
            return Started(seq, version)
        case runner.Output(seq, stream, data):
            return Output(seq, stream, data)
        case runner.Changed(seq, path, content):
            return Changed(seq, path, content)
        case runner.Looked(seq):
            return Looked(seq)
        case runner.Exited():
            return Exited(
                event.seq,
                Reason(event.reason.value),
                event.code,
                event.signal,
                event.wall_seconds,
                event.cpu_seconds,
                event.peak_memory_bytes,
                event.detail,
                None if event.collected is None else _collected(event.collected),
            )


def _collected(found: runner.Collected) -> Collected:
    left_out = tuple(LeftOut(item.path, item.code) for item in found.left_out)
    return Collected(found.complete, left_out, found.count)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except runner.SandboxUnavailable as error:
        raise Unavailable(
            "sandbox_unavailable", str(error), next_step=error.hint or "Try again in a moment."
        ) from error
    except runner.LanguageUnknown as error:
        raise Invalid(
            "language_unknown", str(error), next_step=error.hint or "Choose one of these."
        ) from error
    except runner.RunUnknown as error:
        raise NotFound("run_not_found", str(error), next_step="It may have ended.") from error
    except runner.SpecInvalid as error:
        raise Invalid(error.code, str(error), next_step=error.hint or "Change what is asked for.") from error
