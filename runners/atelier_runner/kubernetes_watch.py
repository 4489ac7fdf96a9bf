"""What the cluster says of this runner's pods, kept up to date by one watch; and what that means in words.

A watch ends all the time: after some minutes, when the API server restarts, when its position is too old (410). It goes
on from the last position, or from a new list. Whoever waits for a pod is woken at each change and looks for itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

from atelier_runner.carrier import Fate
from atelier_runner.kubernetes_api import Api, ApiRefused
from atelier_runner.model import Reason

Pod = dict[str, Any]
FIRST_RETRY, LONGEST_RETRY = 0.2, 10.0
GONE = 410
BROKEN = (
    "CreateContainerConfigError", "CreateContainerError", "ErrImageNeverPull", "ErrImagePull", "ImageInspectError",
    "ImagePullBackOff", "InvalidImageName", "RegistryUnavailable", "RunContainerError",
)  # fmt: skip
"""What a container waits for in vain."""


class Pods:
    """An async context manager; entering takes the first list.

    Raises:
        ApiRefused: it may not be taken.
    """

    def __init__(self, api: Api, selector: str) -> None:
        self._api = api
        self._selector = selector
        self._seen: dict[str, Pod] = {}
        """Pods of interest, as they were last seen; empty before that."""
        self._deleted: set[str] = set()
        self._changed = asyncio.Condition()
        self._position = ""
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._list()
        self._task = asyncio.create_task(self._follow(), name="pods-watch")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def expect(self, name: str) -> None:
        """Take an interest in a pod that is about to be made; what the cluster says of others is not kept."""
        self._seen[name] = {}

    def forget(self, name: str) -> None:
        """Lose it."""
        self._seen.pop(name, None)
        self._deleted.discard(name)

    def state(self, name: str) -> Pod:
        """Return a pod as it was last seen; empty when it was not yet."""
        return self._seen.get(name, {})

    def deleted(self, name: str) -> bool:
        """Say whether it was there and is not any more."""
        return name in self._deleted

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait until `done`, looking at each change."""
        async with self._changed:
            await self._changed.wait_for(done)

    async def _list(self) -> None:
        found = await self._api.ask("GET", self._api.pods(), params={"labelSelector": self._selector})
        async with self._changed:
            known = {pod["metadata"]["name"]: pod for pod in found.get("items") or ()}
            self._deleted |= {name for name, pod in self._seen.items() if pod and name not in known}
            self._seen.update({name: known[name] for name in self._seen.keys() & known.keys()})
            self._position = str((found.get("metadata") or {}).get("resourceVersion", ""))
            self._changed.notify_all()

    async def _follow(self) -> None:
        retry, fresh = FIRST_RETRY, True
        while True:
            try:
                if not fresh:
                    await self._list()
                    fresh = True
                params = {"labelSelector": self._selector, "resourceVersion": self._position}
                async with contextlib.aclosing(self._api.watch(self._api.pods(), params)) as events:  # type: ignore[type-var]
                    async for event in events:
                        retry = FIRST_RETRY
                        await self._take(str(event.get("type")), event.get("object") or {})
            except ApiRefused as refused:
                fresh = False  # a position that is too old, or a server that may have forgotten it
                if refused.status == GONE:
                    continue
                await asyncio.sleep(retry)
                retry = min(retry * 2, LONGEST_RETRY)

    async def _take(self, kind: str, pod: Pod) -> None:
        metadata = pod.get("metadata") or {}
        self._position = str(metadata.get("resourceVersion") or self._position)
        name = metadata.get("name")
        if kind == "BOOKMARK" or name not in self._seen:
            return
        async with self._changed:
            self._seen[name] = pod
            if kind == "DELETED":
                self._deleted.add(name)
            self._changed.notify_all()


def _status(pod: Pod) -> dict[str, Any]:
    found = pod.get("status")
    return found if isinstance(found, dict) else {}


def _containers(pod: Pod) -> Iterator[dict[str, Any]]:
    for container in _status(pod).get("containerStatuses") or ():
        yield container.get("state") or {}


def running(pod: Pod) -> bool:
    """Say whether its container runs, so that it can be attached to."""
    return any("running" in state for state in _containers(pod))


def over(pod: Pod) -> bool:
    """Say whether it will run no more."""
    return (
        _status(pod).get("phase") in ("Succeeded", "Failed")
        or any("terminated" in state for state in _containers(pod))
        or bool((pod.get("metadata") or {}).get("deletionTimestamp"))
    )


def broken(pod: Pod) -> str:
    """Say why it will not start, when that is certain; else nothing."""
    for state in _containers(pod):
        waiting = state.get("waiting") or {}
        if waiting.get("reason") in BROKEN:
            return _words(waiting)
        if ended := state.get("terminated"):
            return f"it ended at once ({_words(ended)}, exit code {ended.get('exitCode')})"
    if _status(pod).get("phase") == "Failed":
        return _words(_status(pod))
    return ""


def lingering(pod: Pod) -> str:
    """Say what it waits for."""
    for condition in _status(pod).get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"no node takes it: {condition.get('message', '')}"
    for state in _containers(pod):
        if waiting := state.get("waiting"):
            return _words(waiting)
    return "no node has begun it" if pod else "the cluster says nothing of it"


def fate(pod: Pod, *, deleted: bool) -> Fate | None:
    """Say why it ended by itself; None when only its agent could know."""
    for state in _containers(pod):
        if (state.get("terminated") or {}).get("reason") == "OOMKilled":
            return Fate(Reason.MEMORY)
    status = _status(pod)
    reason, message = str(status.get("reason", "")), str(status.get("message", ""))
    if reason == "Evicted" and "low on resource" not in message:
        return Fate(Reason.DISK, f"It wrote more to its node than it may. {message}".strip())
    if reason == "DeadlineExceeded":
        return Fate(Reason.WALL_TIME, "Its pod was older than any may become.")
    for condition in status.get("conditions") or ():
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            return Fate(Reason.LOST, f"the cluster took its node away: {_words(condition)}")
    if reason:
        return Fate(Reason.LOST, f"the cluster ended its pod: {_words(status)}")
    if deleted or (pod.get("metadata") or {}).get("deletionTimestamp"):
        return Fate(Reason.LOST, "somebody deleted its pod")
    return None


def _words(said: dict[str, Any]) -> str:
    return (
        ": ".join(str(said[key]) for key in ("reason", "message") if said.get(key)) or "it does not say why"
    )
