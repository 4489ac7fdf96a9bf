"""What the tests over the cluster share: carriers that are opened over it, programs, and waiting for what happens in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from atelier_runner import (
    Backend,
    Exited,
    Limits,
    Output,
    Spec,
    open_kubernetes,
)
from atelier_runner.kubernetes_api import Where
from atelier_runner.kubernetes_carrier import KubernetesCarrier, Options
from tests.cluster import NAMESPACE, Cluster

LIMITS = Limits(wall_seconds=10, cpu_seconds=2, memory_mb=96, processes=24, disk_mb=8)
FOREVER = "import time\nprint('up', flush=True)\ntime.sleep(600)"


def python(program: str, limits: Limits = LIMITS) -> Spec:
    return Spec("python", "main.py", {"main.py": program.encode()}, limits, stdin=b"")


def where(cluster: Cluster) -> Where:
    return Where(kubeconfig=str(cluster.kubeconfig))


def options(cluster: Cluster, **more: Any) -> Options:
    return Options(**{"images": str(cluster.kubeconfig.with_name("images.json")), **more})


def url(cluster: Cluster, more: str = "") -> str:
    return f"kubernetes://{NAMESPACE}?kubeconfig={cluster.kubeconfig}&images={cluster.kubeconfig.with_name('images.json')}{more}"


@asynccontextmanager
async def opened(cluster: Cluster, *, pool_size: int = 1, **more: Any) -> AsyncIterator[Backend]:
    async with open_kubernetes(
        where(cluster), options(cluster, **more), limits=LIMITS, pool_size=pool_size, pool_most=pool_size
    ) as backend:
        yield backend


async def until(done: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not done():  # noqa: ASYNC110 - it happens in another thread
            await asyncio.sleep(0.02)


async def begun(backend: Backend, program: str = FOREVER, limits: Limits = LIMITS) -> AsyncIterator[Any]:
    """Start a program, wait for its first output, and yield the events that follow."""
    events = backend.events(await backend.start(python(program, limits)))
    async for event in events:
        if isinstance(event, Output):
            return events
        assert not isinstance(event, Exited), event
    raise AssertionError("nothing came")


async def last(events: AsyncIterator[Any]) -> Exited:
    found = [event async for event in events][-1]
    assert isinstance(found, Exited)
    return found


def waiting(backend: Backend) -> list[str]:
    """Return the pods that wait."""
    carrier = backend._carrier
    assert isinstance(carrier, KubernetesCarrier)
    return [one.id for one in carrier._stocks.waiting]  # type: ignore[attr-defined]
