"""Keeps a runner's lease, by which others see that it lives, and removes what runners that live no more have left.

Each runner has a lease (coordination.k8s.io) under whose name its pods are labelled. It renews it every ten seconds; one
that was not renewed for a minute belongs to a runner that is dead, or cut off from the cluster, whose programs have ended
with its connections. What is left of those is looked for at the start and every half a minute: a runner that was killed is
often replaced before its lease has run out.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from atelier_runner.kubernetes_api import Api, ApiRefused
from atelier_runner.kubernetes_pod import RUNNER_LABEL
from atelier_runner.kubernetes_sandbox import House

RENEW_SECONDS = 10.0
LEASE_SECONDS = 60
SWEEP_EVERY = 3
"""Renewals between two looks."""
LEASE_LABEL = {"app.kubernetes.io/managed-by": "atelier-runner"}
SELECTOR = "app.kubernetes.io/managed-by=atelier-runner"

log = logging.getLogger("atelier_runner")


class Keeper:
    """An async context manager. Entering takes the lease and looks around once.

    Raises:
        ApiRefused: it may not.
    """

    def __init__(self, api: Api, runner: str, host: str, house: House) -> None:
        self._api = api
        self._runner = runner
        self._host = host
        self._house = house
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._api.ask("POST", self._api.leases(), body=self._lease())
        try:
            await self.sweep()
        except BaseException:
            await self._let_go()
            raise
        self._task = asyncio.create_task(self._keep(), name="cluster-keep")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for name in list(self._house.left):
            await self._house.delete(name)
        await self._let_go()

    async def _let_go(self) -> None:
        try:
            await self._api.ask("DELETE", self._api.leases(self._runner))
        except ApiRefused as refused:
            log.warning("The lease %s stays until it runs out: %s", self._runner, refused)

    def _lease(self) -> dict[str, Any]:
        now = stamp(self._api.now())
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._runner, "labels": dict(LEASE_LABEL)},
            "spec": {
                "holderIdentity": self._host, "leaseDurationSeconds": LEASE_SECONDS,
                "acquireTime": now, "renewTime": now,
            },
        }  # fmt: skip

    async def _keep(self) -> None:
        count = 0
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            count += 1
            try:  # a patch, since an update would have to name the version that it replaces
                renewed = {"spec": {"renewTime": stamp(self._api.now())}}
                await self._api.ask("PATCH", self._api.leases(self._runner), body=renewed)
                for name in list(self._house.left):
                    await self._house.delete(name)
                if count % SWEEP_EVERY == 0:
                    await self.sweep()
            except ApiRefused as refused:
                log.warning("The cluster did not take this runner's lease: %s", refused)
                if refused.status == 404:  # somebody took it for dead
                    await self._again()

    async def _again(self) -> None:
        try:
            await self._api.ask("POST", self._api.leases(), body=self._lease())
        except ApiRefused as refused:
            log.warning("The cluster did not take this runner's lease: %s", refused)

    async def sweep(self) -> int:
        """Delete the pods and leases of runners that live no more, and strays of this one; returns how many pods.

        A stray is a pod whose creation was given up, because no answer came, and that was made all the same.
        """
        leases = await self._api.ask("GET", self._api.leases(), params={"labelSelector": SELECTOR})
        found = {lease["metadata"]["name"]: lease for lease in leases.get("items") or ()}
        living = {name for name, lease in found.items() if self._lives(lease)} | {self._runner}
        pods = await self._api.ask("GET", self._api.pods(), params={"labelSelector": SELECTOR})
        owners = {
            pod["metadata"]["name"]: pod["metadata"].get("labels", {}).get(RUNNER_LABEL)
            for pod in pods.get("items") or ()
        }
        known = self._house.names | self._house.left
        dead = [
            name
            for name, owner in owners.items()
            if owner not in living or (owner == self._runner and name not in known)
        ]
        for name in dead:
            await self._house.delete(name)
        for name in found.keys() - living:
            try:
                await self._api.ask("DELETE", self._api.leases(name))
            except ApiRefused as refused:
                if refused.status != 404:
                    raise
        if dead:
            log.info("Removed %d pods that a runner has left", len(dead))
        return len(dead)

    def _lives(self, lease: dict[str, Any]) -> bool:
        spec = lease.get("spec") or {}
        try:
            renewed = datetime.fromisoformat(str(spec.get("renewTime")).replace("Z", "+00:00"))
        except ValueError:
            return False
        return self._api.now() - renewed < timedelta(seconds=float(spec.get("leaseDurationSeconds") or 0))


def stamp(moment: datetime) -> str:
    """Write a time as the API does (MicroTime)."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
