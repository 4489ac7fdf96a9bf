"""Starts one pod whose process 1 is the agent, and holds its strings.

Starting: the pod is made, and once its container runs, its standard streams are attached to. Process 1 is a line that
reads the agent from there, so an image holds nothing of ours but a Python, and not a word of the agent's is missed. That
takes a second or more, so a pool does it.

Ending: the connection is cut. The node closes the container's standard input (`stdinOnce`), the agent ends, and the
kernel ends the rest with it. Behind that the pod is deleted without grace, which also ends an agent that would not
listen. A deletion that the API server does not take is asked for again, by `kubernetes_keeper`.

A pod cannot be looked into from outside as a container of this machine can: what a program uses is counted by the agent
from the pod's own control group, and what the cluster knows (killed for memory, evicted, its node gone) comes from its
status. Both come after the fact, so the pod's own limits, set when it is made, are what holds in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable

from atelier_runner import frames
from atelier_runner.carrier import Fate
from atelier_runner.cgroups import Usage
from atelier_runner.errors import SandboxUnavailable
from atelier_runner.kubernetes_api import Api, ApiRefused
from atelier_runner.kubernetes_pod import CONTAINER, WAIT_SECONDS, Recipe, manifest, user
from atelier_runner.kubernetes_stream import Line
from atelier_runner.kubernetes_watch import Pods, broken, fate, lingering, over, running
from atelier_runner.model import Limits, Reason

START_SECONDS = 90.0
"""Until a pod runs; a node that must be added first takes longer, and the pool asks again."""
READY_SECONDS = 20.0
FATE_SECONDS = 5.0
"""How long a node may take to say why a container ended."""
LINGER_SECONDS = 1.0
"""How long a connection may outlive its container: what was printed last may still come."""
ATTACH_PAUSES = (0.1, 0.3, 1.0, 2.0)
KILL = bytes([9])
MANIFESTS = "deploy/kubernetes has the account, the role and the quota that a runner needs."

log = logging.getLogger("atelier_runner")


class PodMeter:
    """Counts nothing: the agent does. Knows only that the cluster saw the kernel kill it for memory."""

    def __init__(self) -> None:
        self._killed: int | None = None

    def cpu_seconds(self) -> float | None:
        """Return nothing."""
        return None

    def usage(self) -> Usage:
        """Return what the cluster has said."""
        return Usage(None, None, self._killed)

    def killed(self) -> None:
        """Take note that the kernel killed process 1 for memory."""
        self._killed = 1


class KubernetesSandbox:
    """One pod whose agent is ready. Used for one run, then closed."""

    own_user = True
    """Each pod has a user of its own, so RLIMIT_NPROC counts its processes alone."""
    pid = 0

    def __init__(self, launcher: KubernetesLauncher, name: str, uid: int, line: Line, limits: Limits) -> None:
        self._launcher = launcher
        self._line = line
        self._made = limits
        self._aborted = False
        self.id = name
        self.uid = uid
        self.reader = line.reader
        self.writer = line.writer
        self.group = PodMeter()
        self.on_death: Callable[[], None] | None = None
        self._waits_until = asyncio.get_running_loop().time() + WAIT_SECONDS
        self._watching = asyncio.create_task(self._watch(), name="pod-fate")

    @property
    def alive(self) -> bool:
        """Whether it waits, and has not for too long."""
        early = asyncio.get_running_loop().time() < self._waits_until
        return early and not self._line.ended.is_set() and not over(self._launcher.pods.state(self.id))

    async def _watch(self) -> None:
        """Tell of its end: by the connection, by the cluster, or because it has waited too long."""
        pods = self._launcher.pods
        ended = asyncio.create_task(self._line.ended.wait())
        gone = asyncio.create_task(pods.until(lambda: pods.deleted(self.id) or over(pods.state(self.id))))
        try:
            await asyncio.wait({ended, gone}, timeout=WAIT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if self.on_death is not None:
                self.on_death()
            await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():  # a node that is gone closes no connection
                await asyncio.wait({ended}, timeout=LINGER_SECONDS)
                self._line.abort()
        finally:
            ended.cancel()
            gone.cancel()
            await asyncio.gather(ended, gone, return_exceptions=True)

    async def limit(self, limits: Limits) -> None:
        """Refuse what the pod is too small for; the agent counts what is less."""
        if limits.memory_mb > self._made.memory_mb:
            raise frames.BadFrame(
                f"its pod has {self._made.memory_mb} MiB of memory, and {limits.memory_mb} MiB are asked for"
            )

    async def memory(self) -> int:
        """Nobody says what a pod holds: 0."""
        return 0

    async def measure(self) -> Fate | None:
        """Find out why it ended, where the agent could not say."""
        if self._aborted or not self._line.ended.is_set():
            return None
        pods = self._launcher.pods
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FATE_SECONDS):
                await pods.until(lambda: pods.deleted(self.id) or over(pods.state(self.id)))
        found = fate(pods.state(self.id), deleted=pods.deleted(self.id))
        if found is not None and found.reason is Reason.MEMORY:
            self.group.killed()
        if found is None and self._line.why:
            found = Fate(Reason.LOST, f"the connection to its pod ended: {self._line.why}")
        return found

    def end_program(self) -> None:
        """Ask the agent to kill the program; its stream is the only way to it."""
        with contextlib.suppress(ConnectionError, RuntimeError):
            self.writer.write(frames.encode(frames.SIGNAL, KILL))

    def kill(self) -> None:
        """Cut the connection, and have the pod deleted."""
        if not self._aborted:
            self._aborted = True
            self._line.abort()
            self._launcher.discard(self.id, self.uid)

    async def close(self) -> None:
        """Kill everything inside and leave no pod behind."""
        self.on_death = None
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        self.kill()
        await self._line.close()
        await self._launcher.discarded(self.id)


class KubernetesLauncher:
    """Starts pods of one language."""

    def __init__(self, api: Api, pods: Pods, language: str, image: str, recipe: Recipe, house: House) -> None:
        self._api = api
        self.pods = pods
        self._language = language
        self._image = image
        self._recipe = recipe
        self._house = house

    async def start(self, limits: Limits) -> KubernetesSandbox:
        """Start a pod and wait until its agent is ready; cold, so a second at least.

        Raises:
            SandboxUnavailable: the cluster refused it or cannot run it, or its image has no Python that becomes the agent.
        """
        name = f"atelier-run-{secrets.token_hex(6)}"
        uid = user(self._house.users)
        self._house.users.add(uid)
        self._house.names.add(name)
        self.pods.expect(name)
        pod = manifest(name, self._language, self._image, uid, limits, self._recipe)
        creating = asyncio.create_task(self._create(pod), name="pod-create")
        line: Line | None = None
        try:
            await asyncio.shield(creating)
            await self._run(name)
            line = await self._attach(name)
            line.writer.write(self._recipe.payload)
            async with asyncio.timeout(READY_SECONDS):
                ready = await frames.read(line.reader)
            if ready is None or ready[0] != frames.READY:
                raise SandboxUnavailable(f"The pod's agent did not start: {_said(line)}")
            return KubernetesSandbox(self, name, uid, line, limits)
        except (TimeoutError, frames.BadFrame) as error:
            await self._give_up(name, uid, line)
            raise SandboxUnavailable(f"The pod's agent did not answer: {_said(line)}") from error
        except BaseException:
            await self._give_up(name, uid, line, creating)
            raise

    async def _create(self, pod: dict[str, object]) -> None:
        try:
            created = await self._api.ask("POST", self._api.pods(), body=pod)
        except ApiRefused as refused:
            if refused.status == 409:  # an attempt before was taken, and its answer lost
                return
            raise unavailable(refused, "The cluster does not take the pod") from refused
        self._house.own_users = created.get("spec", {}).get("hostUsers") is False

    async def _run(self, name: str) -> None:
        """Wait until its container runs."""
        pods = self.pods
        try:
            async with asyncio.timeout(START_SECONDS):
                await pods.until(
                    lambda: running(pods.state(name)) or bool(broken(pods.state(name))) or pods.deleted(name)
                )
        except TimeoutError:
            raise SandboxUnavailable(
                f"The pod did not start within {START_SECONDS:g} s: {lingering(pods.state(name))}",
                hint="Add a node, raise the quota, or let fewer sandboxes wait (--pool); where nodes have no user namespaces, "
                "host_users=1. `kubectl describe pod` says more.",
            ) from None
        if why := broken(pods.state(name)):
            raise SandboxUnavailable(
                f"The pod of {self._language} cannot start: {why}",
                hint=f"Its image is {self._image}; nodes must be able to pull it.",
            )
        if pods.deleted(name):
            raise SandboxUnavailable("Somebody deleted the pod before it had started.")

    async def _attach(self, name: str) -> Line:
        pauses = list(ATTACH_PAUSES)
        while True:
            try:
                return Line(await self._api.attach(name, CONTAINER))
            except ApiRefused as refused:
                if refused.status in (401, 403) or not pauses:
                    raise unavailable(
                        refused, "The pod runs, and its streams cannot be attached to"
                    ) from refused
            await asyncio.sleep(pauses.pop(0))

    async def _give_up(
        self, name: str, uid: int, line: Line | None, creating: asyncio.Task[None] | None = None
    ) -> None:
        self._house.discard(name, uid, self.pods, creating)
        if line is not None:
            await line.close()

    def discard(self, name: str, uid: int) -> None:
        """Have a pod deleted, in the background."""
        self._house.discard(name, uid, self.pods)

    async def discarded(self, name: str) -> None:
        """Wait until that has been asked for."""
        await self._house.discarded(name)

    async def close(self) -> None:
        """Wait for pods that are being thrown away."""
        await self._house.settled()


class House:
    """What all launchers of a runner share: which users are taken, and what is being thrown away."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.users: set[int] = set()
        self.own_users = False
        """Whether the cluster gives pods a user namespace."""
        self.names: set[str] = set()
        """Pods that are there, or are being made or thrown away; any other under this runner's name is a stray."""
        self.left: set[str] = set()
        """Pods whose deletion the API server has not taken."""
        self._leaving: dict[str, asyncio.Task[None]] = {}

    def discard(self, name: str, uid: int, pods: Pods, creating: asyncio.Task[None] | None = None) -> None:
        """Delete a pod, in the background; not before its creation was answered, or it would come after its end."""
        self.users.discard(uid)
        leaving = self._leaving[name] = asyncio.create_task(self._leave(name, creating), name="pod-delete")

        def done(_: asyncio.Task[None]) -> None:
            self._leaving.pop(name, None)
            self.names.discard(name)
            pods.forget(name)

        leaving.add_done_callback(done)

    async def _leave(self, name: str, creating: asyncio.Task[None] | None) -> None:
        if creating is not None:
            await asyncio.wait({creating})
            if not creating.cancelled():
                creating.exception()  # whoever asked for it has been told, or has gone
        await self.delete(name)

    async def delete(self, name: str) -> None:
        """Delete a pod without grace; one that is gone is fine."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
        try:
            await self._api.ask("DELETE", self._api.pods(name), body=body)
        except ApiRefused as refused:
            if refused.status != 404:
                self.left.add(name)
                log.warning("The pod %s stays for now: %s", name, refused)
                return
        self.left.discard(name)

    async def discarded(self, name: str) -> None:
        """Wait until a deletion has been asked for."""
        if (leaving := self._leaving.get(name)) is not None:
            await asyncio.wait({leaving})

    async def settled(self) -> None:
        """Wait until all have."""
        if self._leaving:
            await asyncio.wait(set(self._leaving.values()))


def unavailable(refused: ApiRefused, what: str) -> SandboxUnavailable:
    """Say what an API server's refusal means for whoever wants to run something."""
    if "exceeded quota" in str(refused):
        hint = "The namespace's quota is used up: wait, raise it, or let fewer sandboxes wait (--pool)."
    elif refused.status in (401, 403):
        hint = f"The runner's account may not. {MANIFESTS}"
    elif refused.status in (0, 429, 502, 503, 504):
        hint = "The API server is away or has too much to do: try again in a moment."
    else:
        hint = ""
    return SandboxUnavailable(f"{what}: {refused}", hint=hint)


def _said(line: Line | None) -> str:
    """Return what the agent, or what stands in its place, wrote to its standard error."""
    if line is None:
        return "it could not be attached to"
    return line.said.decode(errors="replace").strip()[-400:] or line.why or "it said nothing"
