"""Running untrusted programs, chosen by URL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

from atelier.sandbox.base import (
    Capabilities,
    Changed,
    Collect,
    Collected,
    Control,
    Event,
    Exited,
    Language,
    LeftOut,
    Looked,
    Output,
    Reason,
    RunLimits,
    RunSpec,
    Sandbox,
    Started,
    Window,
)
from atelier.sandbox.embedded import EmbeddedSandbox
from atelier_runner import Limits, open_local

__all__ = [
    "Capabilities",
    "Changed",
    "Collect",
    "Collected",
    "Control",
    "Event",
    "Exited",
    "Language",
    "LeftOut",
    "Looked",
    "Output",
    "Reason",
    "RunLimits",
    "RunSpec",
    "Sandbox",
    "Started",
    "Window",
    "open_sandbox",
]


@asynccontextmanager
async def open_sandbox(url: str) -> AsyncIterator[Sandbox]:
    """Open `url`: embedded:// (this machine), with `?untrusted=1` to refuse where a control is missing.

    Raises:
        ValueError: another scheme.
    """
    parts = urlsplit(url)
    if parts.scheme != "embedded":
        raise ValueError(f"a sandbox is embedded://, not {parts.scheme}://")
    untrusted = parse_qs(parts.query).get("untrusted") == ["1"]
    async with open_local(limits=Limits(), untrusted=untrusted) as backend:
        yield EmbeddedSandbox(backend)
