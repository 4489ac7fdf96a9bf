"""The node of the test cluster: runs each pod for real, as a container of the Docker engine that the tests start.

From the pod's specification come the command, environment, user, read-only root, capabilities, memory-backed folders with their
sizes, limits of memory and processors, no-new-privileges, and whether a network policy leaves it a network. A container's
end, its exit code and whether the kernel killed it for memory go into the pod's status, as a kubelet writes it.

What it is not: containerd, a network plugin, a scheduler. A seccomp profile `RuntimeDefault` is Docker's own; a user namespace
(`hostUsers: false`), a RuntimeClass and `ephemeral-storage` it cannot give, and the cluster does not claim that it did.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

from atelier_runner.docker_engine import Engine, EngineRefused

Pod = dict[str, Any]
HEADER = struct.Struct(">BxxxI")
UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
NODE_LABEL = "atelier.test-node"


def quantity(text: str) -> int:
    """Return the bytes that a quantity means."""
    return int(text[:-2]) * UNITS[text[-2:]] if text[-2:] in UNITS else int(text)


def processors(text: str) -> float:
    """Return the processors that a quantity means."""
    return int(text[:-1]) / 1000 if text.endswith("m") else float(text)


def container_of(pod: Pod, *, network: bool) -> dict[str, Any]:
    """Return the engine's table for the one container of a pod."""
    spec = pod["spec"]
    program, outer = spec["containers"][0], spec["securityContext"]
    inner, limits = program["securityContext"], program["resources"]["limits"]
    volumes = {volume["name"]: volume["emptyDir"] for volume in spec["volumes"]}
    assert all(volume["medium"] == "Memory" for volume in volumes.values())
    assert outer["seccompProfile"]["type"] == "RuntimeDefault"
    # A kubelet lets everybody write there; Docker puts the mode of the image's folder back, so the user owns it.
    tmpfs = {
        mount[
            "mountPath"
        ]: f"rw,exec,mode=0777,uid={outer['runAsUser']},gid={outer['fsGroup']},size={quantity(volumes[mount['name']]['sizeLimit'])}"
        for mount in program["volumeMounts"]
    }
    memory = quantity(limits["memory"])
    return {
        "Image": program["image"],
        "Entrypoint": program["command"],
        "Env": [f"{item['name']}={item['value']}" for item in program["env"]],
        "User": f"{outer['runAsUser']}:{outer['runAsGroup']}",
        "WorkingDir": program["workingDir"],
        "Labels": {NODE_LABEL: pod["metadata"]["name"]},
        "OpenStdin": program["stdin"], "StdinOnce": program["stdinOnce"], "Tty": program["tty"],
        "AttachStdin": True, "AttachStdout": True, "AttachStderr": True,
        "Healthcheck": {"Test": ["NONE"]},
        **({} if network else {"Hostname": spec["hostname"], "NetworkDisabled": True}),
        "HostConfig": {
            "NetworkMode": "host" if network else "none",
            "Dns": spec["dnsConfig"]["nameservers"],
            "ReadonlyRootfs": inner["readOnlyRootFilesystem"],
            "Privileged": inner["privileged"],
            "CapDrop": inner["capabilities"]["drop"],
            "SecurityOpt": [] if inner["allowPrivilegeEscalation"] else ["no-new-privileges"],
            "Tmpfs": tmpfs,
            "Memory": memory, "MemorySwap": memory,
            "CpuPeriod": 100_000, "CpuQuota": int(processors(limits["cpu"]) * 100_000),
            "IpcMode": "private", "CgroupnsMode": "private",
            "LogConfig": {"Type": "none"},
        },
    }  # fmt: skip


class Node:
    """Starts and ends the containers of pods. `changed` is told of a pod whose status is another."""

    def __init__(self, engine: Engine, changed: Callable[[Pod], Awaitable[None]]) -> None:
        self._engine = engine
        self._changed = changed
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._streams: dict[str, socket.socket] = {}
        self._containers: dict[str, str] = {}
        self._hints: dict[str, asyncio.Event] = {}
        self.schedule_seconds = 0.0
        self.unschedulable = ""

    def take(self, pod: Pod, *, network: bool) -> None:
        """Run a pod, in the background."""
        name = pod["metadata"]["name"]
        task = self._tasks[name] = asyncio.create_task(self._live(pod, network=network), name=f"node-{name}")
        task.add_done_callback(lambda _: self._tasks.pop(name, None))

    async def drop(self, name: str) -> None:
        """Kill a pod's container."""
        if (task := self._tasks.get(name)) is not None:
            if not task.cancelling():  # a second time would keep it from removing the container
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def close(self) -> None:
        """Kill all."""
        for name in list(self._tasks):
            await self.drop(name)

    async def _status(self, pod: Pod, state: dict[str, Any], phase: str, **more: Any) -> None:
        pod["status"].update(phase=phase, **more)
        name = pod["spec"]["containers"][0]["name"]
        pod["status"]["containerStatuses"] = [
            {
                "name": name, "state": state, "lastState": {}, "ready": "running" in state, "restartCount": 0,
                "image": pod["spec"]["containers"][0]["image"], "imageID": "",
            }
        ]  # fmt: skip
        await self._changed(pod)

    async def _live(self, pod: Pod, *, network: bool) -> None:
        name = pod["metadata"]["name"]
        starting: asyncio.Task[None] | None = None
        try:
            await self._wait_for_a_place(pod)
            await self._status(pod, {"waiting": {"reason": "ContainerCreating"}}, "Pending")
            table = container_of(pod, network=network)
            starting = asyncio.create_task(asyncio.to_thread(self._start, name, table))
            await asyncio.shield(starting)
            await self._status(pod, {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, "Running")
            killed, code = await self._ended(name)
            reason = "OOMKilled" if killed else "Completed" if code == 0 else "Error"
            ended = {"exitCode": code, "reason": reason}
            await self._status(pod, {"terminated": ended}, "Succeeded" if code == 0 else "Failed")
        except EngineRefused as refused:
            waiting = {"reason": "CreateContainerError", "message": str(refused)}
            if "No such image" in str(refused):
                waiting = {"reason": "ErrImagePull", "message": f"pull access denied: {refused}"}
            await self._status(pod, {"waiting": waiting}, "Pending")
        finally:
            if starting is not None:
                with contextlib.suppress(EngineRefused):
                    await starting
            if (stream := self._streams.pop(name, None)) is not None:
                stream.close()
            self._hints.pop(name, None)
            if (container := self._containers.pop(name, None)) is not None:
                await asyncio.to_thread(self._engine.remove, container)

    async def _wait_for_a_place(self, pod: Pod) -> None:
        if self.unschedulable:
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
            pod["status"]["conditions"] = [{**condition, "message": self.unschedulable}]
            await self._changed(pod)
        while self.unschedulable:  # noqa: ASYNC110 - a test changes it
            await asyncio.sleep(0.02)
        await asyncio.sleep(self.schedule_seconds)
        pod["status"]["conditions"] = [{"type": "PodScheduled", "status": "True"}]

    def _start(self, name: str, table: dict[str, Any]) -> None:
        container = self._containers[name] = self._engine.create(table)
        self._streams[name] = self._engine.attach(container)
        self._engine.start(container)

    async def _ended(self, name: str) -> tuple[bool, int]:
        """Wait until a container has ended; return whether it was killed for memory, and its exit code."""
        hint = self._hints.setdefault(name, asyncio.Event())
        while True:
            state = await asyncio.to_thread(self._state, self._containers[name])
            if not state["Running"]:
                return bool(state["OOMKilled"]), int(state["ExitCode"])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(hint.wait(), 1)
            if hint.is_set():
                await asyncio.sleep(0.02)

    def _state(self, container: str) -> dict[str, Any]:
        with self._engine._asking():
            found: dict[str, Any] = self._engine._client.inspect_container(container)["State"]
        return found

    def hint(self, name: str) -> None:
        """Take note that a container's streams have ended, so that it may have."""
        self._hints.setdefault(name, asyncio.Event()).set()

    def stream(self, name: str) -> socket.socket | None:
        """Return the connection to a running container's streams; None when it does not run, or it was taken before."""
        return self._streams.pop(name, None)


async def pieces(stream: socket.socket) -> Any:
    """Yield (stream, bytes) of what a container prints, until its connection ends."""
    loop = asyncio.get_running_loop()
    held = b""
    while data := await loop.sock_recv(stream, 65536):
        held += data
        while len(held) >= HEADER.size:
            kind, size = HEADER.unpack_from(held)
            if len(held) < HEADER.size + size:
                break
            yield kind, held[HEADER.size : HEADER.size + size]
            held = held[HEADER.size + size :]
