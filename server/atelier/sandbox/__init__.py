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
from atelier.sandbox.remote import PATIENCE, open_remote
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
async def open_sandbox(url: str, secret: str = "") -> AsyncIterator[Sandbox]:
    """Open `url`: embedded:// (this machine), or http(s)://host:port, a runner service that knows `secret`.

    With `?untrusted=1` nothing is run where a control is absent; `?patience=20` is how many seconds a runner may be
    silent until its runs are lost.

    Raises:
        ValueError: another scheme.
    """
    parts = urlsplit(url)
    asked = parse_qs(parts.query)
    untrusted = asked.get("untrusted") == ["1"]
    if parts.scheme == "embedded":
        async with open_local(limits=Limits(), untrusted=untrusted) as backend:
            yield EmbeddedSandbox(backend)
    elif parts.scheme in ("http", "https") and parts.netloc:
        patience = float(asked.get("patience", [PATIENCE])[0])
        address = f"{parts.scheme}://{parts.netloc}"
        async with open_remote(address, secret=secret, untrusted=untrusted, patience=patience) as remote:
            yield remote
    else:
        raise ValueError(f"a sandbox is embedded:// or http(s)://host:port, not {parts.scheme}://")
