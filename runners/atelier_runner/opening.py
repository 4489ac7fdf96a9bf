"""The door of the runner: one address decides which carrier is opened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

from atelier_runner.backend import Backend
from atelier_runner.docker_carrier import open_docker
from atelier_runner.docker_engine import DEFAULT_SOCKET
from atelier_runner.environments import EnvironmentOptions
from atelier_runner.kubernetes_api import Where
from atelier_runner.kubernetes_carrier import IMAGE, Options, open_kubernetes
from atelier_runner.local import open_local
from atelier_runner.model import Limits
from atelier_runner.outward import Outward, read_ports

OPTIONS = {
    "embedded": {"untrusted", "ports"},
    "docker": {"untrusted", "runtime", "ports"},
    "kubernetes": {
        "untrusted", "ports", "kubeconfig", "context", "images", "image", "runtime_class", "template", "cpu", "seccomp",
        "host_users",
    },
}  # fmt: skip


@asynccontextmanager
async def open_backend(
    url: str,
    *,
    limits: Limits | None = None,
    pool_size: int = 2,
    untrusted: bool = False,
    environments: EnvironmentOptions | None = None,
) -> AsyncIterator[Backend]:
    """Open `url`: embedded:// (this machine), docker:// (its Docker engine; docker:///path/to/socket another) or
    kubernetes://[namespace]?images=… (a cluster; `kubernetes_carrier.Options` are its options).

    `?untrusted=1` (or `untrusted`) refuses to run with a control missing; `ports=80,443` are those that programs with a
    network may reach; docker:// takes `runtime=runsc` too. `limits` are those that waiting sandboxes are prepared for,
    `pool_size` is how many wait (of each language, in containers and pods); `environments` says where installed packages
    are kept and come from (on this machine and in its containers; pods have none).

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
    untrusted = untrusted or options.get("untrusted") == "1"
    outward = Outward(ports=read_ports(options["ports"])) if "ports" in options else Outward()
    if parts.scheme == "embedded":
        async with open_local(
            limits=limits,
            pool_size=pool_size,
            untrusted=untrusted,
            outward=outward,
            environments=environments,
        ) as backend:
            yield backend
    elif parts.scheme == "kubernetes":
        where = Where(parts.netloc, options.get("kubeconfig", ""), options.get("context", ""))
        made = Options(
            options.get("images", ""), options.get("image", IMAGE), options.get("runtime_class", ""),
            options.get("template", ""), options.get("cpu", "1"), options.get("seccomp", ""),
            options.get("host_users") == "1",
        )  # fmt: skip
        async with open_kubernetes(
            where, made, limits=limits, pool_size=pool_size, untrusted=untrusted, outward=outward
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
