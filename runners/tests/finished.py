"""A run to its end."""

from __future__ import annotations

from typing import Any

from atelier_runner import Backend, Changed, Exited, Output, Spec
from atelier_runner.run import Run


async def finished(backend: Backend, spec: Spec) -> tuple[bytes, bytes, Exited]:
    """Return both streams and the result."""
    streams = {"install": bytearray(), "stdout": bytearray(), "stderr": bytearray()}
    async for event in backend.events(await backend.start(spec)):
        if isinstance(event, Output):
            streams[event.stream] += event.data
        elif isinstance(event, Exited):
            return bytes(streams["stdout"]), bytes(streams["stderr"]), event
    raise AssertionError("no result")


def sandbox_of(backend: Backend, run: str) -> Any:
    """Return the sandbox of a run that has begun."""
    found = backend._runs[run]
    assert isinstance(found, Run)
    return found._sandbox


async def collected(backend: Backend, spec: Spec) -> tuple[dict[str, bytes | None], Exited]:
    """Return the files that came back, None for one that is gone, and the result."""
    files: dict[str, bytes | None] = {}
    async for event in backend.events(await backend.start(spec)):
        if isinstance(event, Changed):
            assert event.path not in files
            files[event.path] = event.data
        elif isinstance(event, Exited):
            return files, event
    raise AssertionError("no result")
