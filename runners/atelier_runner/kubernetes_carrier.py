"""The Kubernetes carrier: each run has a pod of its language's image, which was started before and is used once.

`open_kubernetes` finds the cluster, takes a lease in the namespace, removes what dead runners have left there, and keeps
pods waiting for the languages that were used last. A cluster cannot be asked what is in an image without starting it, so a
file says it (`python -m atelier_runner.images list --json`), and an address says where nodes pull it from.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import secrets
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from atelier_runner.backend import Backend
from atelier_runner.carrier import Idle, Means, Sandbox
from atelier_runner.demand import MOST_WAITING, Budget
from atelier_runner.errors import SandboxUnavailable
from atelier_runner.kubernetes_api import Api, ApiRefused, Where, open_api
from atelier_runner.kubernetes_keeper import Keeper
from atelier_runner.kubernetes_pod import RUNNER_LABEL, Recipe, checked, payload
from atelier_runner.kubernetes_sandbox import House, KubernetesLauncher, unavailable
from atelier_runner.kubernetes_watch import Pods
from atelier_runner.languages import Language, imaged
from atelier_runner.model import MIB, BuildLimits, Limits
from atelier_runner.outward import Outward
from atelier_runner.stocks import Stocks

FIRST = "python"
"""The language whose pods wait from the start."""
IMAGE = "atelier/{language}"


@dataclass(frozen=True, slots=True)
class Options:
    """How pods are made; everything but the images has a default."""

    images: str = ""
    """A file: language to `{"tool", "version", "image"?}`."""
    image: str = IMAGE
    """Where nodes pull images from, with `{language}` in it; an image's own name in the file goes before."""
    runtime_class: str = ""
    template: str = ""
    """A file with a pod's `metadata` and `spec`; see `kubernetes_pod.OPEN`."""
    cpu: str = "1"
    """What a pod gets and is counted for, waiting or not."""
    seccomp: str = ""
    host_users: bool = False


class KubernetesCarrier:
    """Pods of one namespace. Keeps `size` to `largest` waiting for each of the `most` languages that were used last."""

    hint = ""

    def __init__(
        self,
        api: Api,
        pods: Pods,
        recipe: Recipe,
        house: House,
        languages: dict[str, Language],
        images: Mapping[str, str],
        limits: Limits,
        size: int,
        largest: int,
        budget: Budget,
        most: int,
        reach: tuple[str, int],
    ) -> None:
        self._api = api
        self._reach = reach
        self._pods = pods
        self._recipe = recipe
        self._house = house
        self._languages = languages
        self._images = images
        self._limits = limits
        self._stocks = Stocks(self._launcher, size, largest, budget, most)

    def _launcher(self, name: str) -> tuple[KubernetesLauncher, Limits]:
        launcher = KubernetesLauncher(
            self._api, self._pods, name, self._images[name], self._recipe, self._house
        )
        # A pod's memory cannot be changed later: what is compiled in it must fit too.
        compiled = self._languages[name].build
        return launcher, BuildLimits().widest(self._limits) if compiled else self._limits

    async def languages(self) -> dict[str, Language]:
        """Return the catalogue; what has an image has a version."""
        return self._languages

    async def take(self, language: Language, limits: Limits, preload: str = "") -> Sandbox:
        """Return a pod that is large enough; from now on others of its language wait. See `Carrier`."""
        stock = await self._stocks.of(language.info.name)
        if limits.memory_mb > stock.limits.memory_mb:
            return await stock.launcher.start(limits)
        return await stock.pool.take(limits)

    async def idle(self) -> Idle:
        """Say how many pods wait, and how much memory is set aside for them; what they have resident nobody says."""
        aside = sum(len(stock.pool.waiting) * stock.limits.memory_mb * MIB for stock in self._stocks.values())
        return replace(self._stocks.idle(), memory_bytes=aside)

    async def begin(self) -> None:
        """Let pods of the most common language wait."""
        if FIRST in self._images:
            await self._stocks.of(FIRST)

    async def warm(self) -> None:
        """Wait until as many pods wait as are meant to."""
        await self._stocks.filled()

    def means(self) -> Means:
        """Say by what the cluster holds each limit."""
        by = self._recipe.runtime_class or "the nodes' default runtime"
        partial = {
            "memory": "a pod's own by the kernel; a run that may use less than its pod has is watched by the agent",
            "processes": "by RLIMIT_NPROC, which the agent sets: each pod has a user of its own, and a cluster no limit for one pod",
            "cpu time": "counted by the agent in the pod; the wall time and the pod's processors bound it",
        }
        if not self._house.own_users:
            partial["identity"] = (
                "each pod has a user of its own, which is the node's too: the cluster gives pods no user "
                "namespace (hostUsers: false)"
            )
        return Means(
            identity="each pod has a user of its own, who is nobody on the node",
            calls=f"filtered by seccomp, by the agent before the program, run by {by}",
            memory="", processes="", cpu="",
            partial=partial,
            shared=frozenset({"cgroup", "user"}),
            reach=self._reach,
        )  # fmt: skip

    async def close(self) -> None:
        """Delete every waiting pod."""
        await self._stocks.close()
        await self._house.settled()


@asynccontextmanager
async def open_kubernetes(
    where: Where,
    options: Options,
    *,
    pool_size: int = 2,
    pool_most: int = MOST_WAITING,
    pool_languages: int = 4,
    limits: Limits | None = None,
    untrusted: bool = False,
    strict: bool = False,
    agent: bytes | None = None,
    outward: Outward | None = None,
) -> AsyncIterator[Backend]:
    """Open a namespace of a cluster. `limits` are those that waiting pods are prepared for; `untrusted` refuses to run with a
    control missing; `agent` (its source) and `outward` replace what is here.

    Raises:
        SandboxUnavailable: no API server answers, its account may not do what is needed, or the package is missing.
        ValueError: a file that the options name does not say what it should.
    """
    api = await open_api(where)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(api.close)
        found = await asyncio.to_thread(_images, options)
        template = await asyncio.to_thread(_template, options.template)
        runner = f"atelier-runner-{secrets.token_hex(5)}"
        recipe = Recipe(
            runner, payload(agent), options.runtime_class, options.cpu, options.seccomp, options.host_users, template
        )  # fmt: skip
        house = House(api)
        try:
            await stack.enter_async_context(Keeper(api, runner, socket.gethostname(), house))
            pods = await stack.enter_async_context(Pods(api, f"{RUNNER_LABEL}={runner}"))
        except ApiRefused as refused:
            raise unavailable(refused, f"The namespace {api.namespace} cannot be used") from refused
        languages = imaged({name: (entry["tool"], entry["version"]) for name, entry in found.items()})
        images = {
            name: entry.get("image") or options.image.replace("{language}", name)
            for name, entry in found.items()
        }
        budget = Budget(
            pool_languages * max(pool_size, pool_most), 0
        )  # the cluster's quota bounds their memory
        carrier = KubernetesCarrier(
            api,
            pods,
            recipe,
            house,
            languages,
            images,
            limits or Limits(),
            pool_size,
            pool_most,
            budget,
            pool_languages,
            await api.endpoint(),
        )
        stack.push_async_callback(carrier.close)
        await carrier.begin()
        backend = Backend(carrier, untrusted=untrusted, strict=strict, outward=outward)
        stack.push_async_callback(backend.close)
        yield backend


def _images(options: Options) -> dict[str, dict[str, str]]:
    if not options.images:
        raise SandboxUnavailable(
            "Nothing says which images there are.",
            hint="Write it down with `python -m atelier_runner.images list --json > images.json`, and name the file: "
            "kubernetes://?images=/path/images.json",
        )
    found = _read(options.images, json.loads)
    entries = found if isinstance(found, dict) else {}
    if not entries or not all(
        isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in ("tool", "version"))
        for entry in entries.values()
    ):
        raise ValueError(f"{options.images} has no table of languages with a `tool` and a `version` each")
    return entries


def _template(path: str) -> dict[str, Any]:
    if not path:
        return {}
    yaml = importlib.import_module("yaml")  # the client brings it
    with contextlib.suppress(yaml.YAMLError):
        return checked(_read(path, yaml.safe_load))
    raise ValueError(f"{path} is no YAML")


def _read(path: str, parse: Any) -> Any:
    try:
        return parse(Path(path).read_text())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
