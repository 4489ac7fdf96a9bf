"""The door of the runner: one address decides which carrier is opened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

from atelier_runner.backend import Backend
from atelier_runner.docker_carrier import open_docker
from atelier_runner.docker_engine import DEFAULT_SOCKET
from atelier_runner.environments import EnvironmentOptions
from atelier_runner.local import open_local
from atelier_runner.model import Limits
from atelier_runner.outward import Outward

OPTIONS = {"embedded": {"untrusted", "ports"}, "docker": {"untrusted", "runtime", "ports"}}


@asynccontextmanager
async def open_backend(
    url: str,
    *,
    limits: Limits | None = None,
    pool_size: int = 2,
    untrusted: bool = False,
    environments: EnvironmentOptions | None = None,
) -> AsyncIterator[Backend]:
    """Open `url`: embedded:// (this machine) or docker:// (its Docker engine; docker:///path/to/socket another).

    `?untrusted=1` (or `untrusted`) refuses to run with a control missing; `ports=80,443` are those that programs with a network may
    reach; docker:// takes `runtime=runsc` too. `limits` are
    those that waiting sandboxes are prepared for, `pool_size` is how many wait (of each language, in containers);
    `environments` says where installed packages are kept and come from.

    Raises:
        ValueError: another scheme or option, or another process keeps its environments in the same folder.
        SandboxUnavailable: no engine answers, it lacks the runtime, or the docker package is missing.
    """
    parts = urlsplit(url)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if parts.scheme not in OPTIONS or parts.netloc:
        raise ValueError(f"a runner's address is embedded:// or docker:///path/to/socket, not {url}")
    if unknown := options.keys() - OPTIONS[parts.scheme]:
        raise ValueError(f"{parts.scheme}:// does not take {', '.join(sorted(unknown))}")
    untrusted = untrusted or options.get("untrusted") == "1"
    outward = Outward(ports=_ports(options["ports"])) if "ports" in options else Outward()
    if parts.scheme == "embedded":
        async with open_local(
            limits=limits,
            pool_size=pool_size,
            untrusted=untrusted,
            outward=outward,
            environments=environments,
        ) as backend:
            yield backend
    else:
        path, runtime = parts.path or DEFAULT_SOCKET, options.get("runtime")
        async with open_docker(
            path,
            runtime=runtime,
            limits=limits,
            pool_size=pool_size,
            untrusted=untrusted,
            outward=outward,
            environments=environments,
        ) as backend:
            yield backend


def _ports(text: str) -> list[int]:
    """Read `80,443`. Raises ValueError."""
    ports = [int(port) if port.isascii() and port.isdigit() else 0 for port in text.split(",")]
    if not all(0 < port < 65536 for port in ports):
        raise ValueError(f"ports is a list like 80,443, not {text}")
    return ports
