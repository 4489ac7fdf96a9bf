"""Running untrusted programs, chosen by URL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl, urlencode, urlsplit

from atelier.sandbox.base import (
    BuildLimits,
    Capabilities,
    CellBegan,
    CellEnded,
    CellError,
    CellLimits,
    CellValue,
    Changed,
    Collect,
    Collected,
    Control,
    Event,
    Exited,
    Language,
    LeftOut,
    Looked,
    Outcome,
    Output,
    Packages,
    Place,
    Reason,
    RunLimits,
    RunSpec,
    Sandbox,
    Started,
    Turn,
    Turns,
    Window,
)
from atelier.sandbox.embedded import EmbeddedSandbox
from atelier.sandbox.fleet import open_fleet
from atelier.sandbox.remote import PATIENCE, open_remote
from atelier.sandbox.turns import LocalTurns
from atelier_runner import (
    MOST_WAITING,
    POOL_MEMORY_MB,
    EnvironmentOptions,
    Limits,
    Outward,
    open_local,
    read_ports,
)

__all__ = [
    "BuildLimits",
    "Capabilities",
    "CellBegan",
    "CellEnded",
    "CellError",
    "CellLimits",
    "CellValue",
    "Changed",
    "Collect",
    "Collected",
    "Control",
    "EnvironmentOptions",
    "Event",
    "Exited",
    "Language",
    "LeftOut",
    "Looked",
    "Outcome",
    "Output",
    "Packages",
    "Place",
    "Reason",
    "RunLimits",
    "RunSpec",
    "Sandbox",
    "Started",
    "Turn",
    "Turns",
    "Window",
    "open_sandbox",
]

EMBEDDED_ONLY = {"ports", "strict", "pool_most", "pool_memory_mb"}


@asynccontextmanager
async def open_sandbox(
    url: str,
    secret: str = "",
    *,
    concurrent: int = 4,
    queued: int = 32,
    environments: EnvironmentOptions | None = None,
) -> AsyncIterator[Sandbox]:
    """Open `url`: embedded:// (this machine); http(s)://host:port, a runner service that knows `secret`; or redis://…,
    all runner services that register there.

    With `?untrusted=1` nothing is run where a control is absent; `?patience=20` is how many seconds a runner may be
    silent until its runs are lost. Further runs than `concurrent` at once wait (in Redis the runners know how many they
    take), and no more than `queued` may. Of embedded:// alone: `ports=80,443` are those that programs with a network may
    reach, `strict=1` starts a new interpreter for every program, `pool_most` and `pool_memory_mb` bound what waits,
    `environments` says where installed packages are kept; a runner service has options of its own for that.

    Raises:
        ValueError: another scheme, or an option that is not its own.
    """
    parts = urlsplit(url)
    asked = dict(parse_qsl(parts.query))
    untrusted = asked.pop("untrusted", "") == "1"
    patience = float(asked.pop("patience", PATIENCE))
    rest = parts._replace(query=urlencode(asked)).geturl()
    if parts.scheme != "embedded" and (own := EMBEDDED_ONLY & asked.keys()):
        raise ValueError(
            f"{', '.join(sorted(own))} belongs to embedded://; a runner service is told by its options"
        )
    if parts.scheme == "embedded":
        local = open_local(
            limits=Limits(),
            untrusted=untrusted,
            strict=asked.get("strict") == "1",
            pool_most=int(asked.get("pool_most", MOST_WAITING)),
            pool_memory_mb=int(asked.get("pool_memory_mb", POOL_MEMORY_MB)),
            outward=Outward(ports=read_ports(asked["ports"])) if "ports" in asked else None,
            environments=environments,
        )
        async with local as backend:
            yield EmbeddedSandbox(backend, LocalTurns(concurrent, queued))
    elif parts.scheme in ("http", "https") and parts.netloc:
        turns = LocalTurns(concurrent, queued)
        async with open_remote(rest, turns, secret=secret, untrusted=untrusted, patience=patience) as remote:
            yield remote
    elif parts.scheme in ("redis", "rediss", "unix"):
        if not secret:
            raise ValueError("runners that register have a secret: set ATELIER_RUNNER_SECRET to theirs")
        fleet = open_fleet(rest, secret=secret, queued=queued, untrusted=untrusted, patience=patience)
        async with fleet as opened:
            yield opened
    else:
        raise ValueError(f"a sandbox is embedded://, http(s)://host:port or redis://…, not {parts.scheme}://")
