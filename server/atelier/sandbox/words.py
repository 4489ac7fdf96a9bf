"""The runner's shapes and errors in the port's words, and back; whether it is in this process or elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import atelier_runner as runner
from atelier.errors import Invalid, NotFound, Unavailable
from atelier.sandbox.base import (
    Capabilities,
    CellBegan,
    CellEnded,
    CellError,
    CellValue,
    Changed,
    Collected,
    Control,
    Event,
    Exited,
    Language,
    LeftOut,
    Looked,
    Outcome,
    Output,
    Reason,
    RunSpec,
    Started,
    Window,
)


def capabilities_of(found: runner.Capabilities) -> Capabilities:
    """Say what a runner can do."""
    return Capabilities(
        found.available,
        found.hint,
        tuple(Control(c.name, c.state, c.detail) for c in found.controls),
        tuple(Language(x.name, x.title, x.extensions, x.version, x.hint) for x in found.languages),
    )


def spec_for_runner(spec: RunSpec) -> runner.Spec:
    """Say what to run."""
    return runner.Spec(
        language=spec.language,
        entry=spec.entry,
        files=spec.files,
        limits=runner.Limits(**asdict(spec.limits)),
        args=spec.args,
        stdin=spec.stdin,
        env=spec.env,
        terminal=None if spec.terminal is None else window_for_runner(spec.terminal),
        collect=None if spec.collect is None else runner.Collect(**asdict(spec.collect)),
        build=None if spec.build is None else runner.BuildLimits(**asdict(spec.build)),
        packages=tuple(runner.Packages(found.tool, found.wanted) for found in spec.packages),
        cells=None if spec.cells is None else runner.CellLimits(**asdict(spec.cells)),
        network=runner.Network() if spec.network else None,
    )


def window_for_runner(window: Window) -> runner.Window:
    """Say how large a terminal is."""
    return runner.Window(window.columns, window.rows)


def event_of(event: runner.Event) -> Event:
    """Say what came of it."""
    match event:
        case runner.Started(seq, version):
            return Started(seq, version)
        case runner.Output(seq, stream, data, cell):
            return Output(seq, stream, data, cell)
        case runner.CellBegan(seq, cell):
            return CellBegan(seq, cell)
        case runner.CellValue(seq, cell, role, media_type, data, instead):
            return CellValue(seq, cell, role, media_type, data, instead)
        case runner.CellEnded(seq, cell, outcome, seconds, error):
            told = None if error is None else CellError(error.name, error.message, error.text, error.place)
            return CellEnded(seq, cell, Outcome(outcome.value), seconds, told)
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


def missing_controls(found: Capabilities) -> list[str]:
    """Name the controls that keep untrusted programs out."""
    return [control.name for control in found.controls if control.state == "absent"]


@contextmanager
def translated() -> Iterator[None]:
    """Raise the runner's errors as the port's."""
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
