"""The door of the runner: one address decides which carrier is opened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from atelier_runner.backend import Backend
from atelier_runner.demand import MOST_WAITING, POOL_MEMORY_MB
from atelier_runner.docker_carrier import open_docker
from atelier_runner.docker_engine import DEFAULT_SOCKET
from atelier_runner.environments import EnvironmentOptions
from atelier_runner.kubernetes_api import Where
from atelier_runner.kubernetes_carrier import IMAGE, Options, open_kubernetes
from atelier_runner.local import open_local
from atelier_runner.model import Limits
from atelier_runner.outward import Outward, read_ports

OPTIONS = {
    "embedded": {"untrusted", "strict", "ports"},
    "docker": {"untrusted", "strict", "runtime", "ports"},
    "kubernetes": {
        "untrusted", "strict", "ports", "kubeconfig", "context", "images", "image", "runtime_class", "template", "cpu", "seccomp",
        "host_users",
    },
}  # fmt: skip


@asynccontextmanager
async def open_backend(
    url: str,
    *,
    limits: Limits | None = None,
    pool_size: int = 2,
    pool_most: int = MOST_WAITING,
    pool_memory_mb: int = POOL_MEMORY_MB,
    untrusted: bool = False,
    strict: bool = False,
    environments: EnvironmentOptions | None = None,
) -> AsyncIterator[Backend]:
    """Open `url`: embedded:// (this machine), docker:// (its Docker engine; docker:///path/to/socket another) or
    kubernetes://[namespace]?images=… (a cluster; `kubernetes_carrier.Options` are its options).

    `?untrusted=1` (or `untrusted`) refuses to run with a control missing, `?strict=1` (or `strict`) starts a new
    interpreter for every program, `ports=80,443` are those that programs with a network may reach; docker:// takes
    `runtime=runsc` too. `limits` are those that waiting sandboxes are prepared for; at least `pool_size` of them wait, at
    most `pool_most` (of each language, in containers and pods), as long as they hold no more than `pool_memory_mb` together
    (pods: the cluster says); `environments` says where installed packages are kept and come from (pods have none).

    Raises:
        ValueError: another scheme or option, a file among them that does not say what it should, or another process keeps
            its environments in the same folder.
        SandboxUnavailable: no engine or cluster answers, it refuses, or the package that speaks with it is missing.
    """
    parts = urlsplit(url)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if parts.scheme not in OPTIONS or (parts.path if parts.scheme == "kubernetes" else parts.netloc):
        raise ValueError(
            f"a runner's address is embedded://, docker:///path/to/socket or kubernetes://namespace?images=…, not {url}"
        )
    if unknown := options.keys() - OPTIONS[parts.scheme]:
        raise ValueError(f"{parts.scheme}:// does not take {', '.join(sorted(unknown))}")
    outward = Outward(ports=read_ports(options["ports"])) if "ports" in options else Outward()
    settings: dict[str, Any] = {
        "limits": limits,
        "pool_size": pool_size,
        "pool_most": pool_most,
        "untrusted": untrusted or options.get("untrusted") == "1",
        "strict": strict or options.get("strict") == "1",
        "outward": outward,
    }
    here: dict[str, Any] = {**settings, "pool_memory_mb": pool_memory_mb, "environments": environments}
    if parts.scheme == "embedded":
        async with open_local(**here) as backend:
            yield backend
    elif parts.scheme == "kubernetes":
        where = Where(parts.netloc, options.get("kubeconfig", ""), options.get("context", ""))
        made = Options(
            options.get("images", ""), options.get("image", IMAGE), options.get("runtime_class", ""),
            options.get("template", ""), options.get("cpu", "1"), options.get("seccomp", ""),
            options.get("host_users") == "1",
        )  # fmt: skip
        async with open_kubernetes(where, made, **settings) as backend:
            yield backend
    else:
        path, runtime = parts.path or DEFAULT_SOCKET, options.get("runtime")
        async with open_docker(path, runtime=runtime, **here) as backend:
            yield backend
