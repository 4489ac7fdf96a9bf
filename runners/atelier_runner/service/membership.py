"""One of several runners: says in Redis that it is there, and claims runs that wait while it has room for them.

`line.py` has the keys and scripts. A claim is made before a run has begun and holds a place for a while; if the server
that wanted the run does not come, the place is free again. While Redis is away nothing is claimed and what runs goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

import redis.asyncio as redis
from redis.exceptions import RedisError

from atelier_runner import line
from atelier_runner.model import Capabilities
from atelier_runner.service import metrics
from atelier_runner.service.options import Options
from atelier_runner.service.runs import HostedRuns

logger = logging.getLogger(__name__)
FAILURES = (RedisError, OSError, TimeoutError)
SAY_SECONDS = 2.0
BLOCK_MS = 2_000
ANSWER_SECONDS = 5.0
CLAIM_SECONDS = 10.0
"""How long a place is held for a run that was claimed."""


class Membership:
    """An async context manager; leaving it takes the runner off the list."""

    def __init__(self, url: str, address: str, runs: HostedRuns, options: Options) -> None:
        self._redis = redis.from_url(
            url, socket_timeout=ANSWER_SECONDS, socket_connect_timeout=ANSWER_SECONDS, protocol=2
        )
        self._address = address
        self._runs = runs
        self._options = options
        self._name = secrets.token_hex(8)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.create_task(self._say(), name="say that this runner is there"),
            asyncio.create_task(self._claim(), name="claim runs"),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(*FAILURES):
            await self._redis.srem(line.RUNNERS, self._name)
            await self._redis.delete(line.runner_key(self._name))
        await self._redis.aclose()

    def _fit(self, found: Capabilities) -> bool:
        """Say whether programs may run here."""
        absent = any(control.state == "absent" for control in found.controls)
        return found.available and not (self._options.untrusted and absent)

    async def _say(self) -> None:
        found = await self._runs.backend.capabilities()
        about = {
            "address": self._address,
            "instance": self._runs.instance,
            "runs": self._options.runs,
            "running": 0,
            "capabilities": {**asdict(found), "available": self._fit(found)},
        }
        while True:
            text = json.dumps({**about, "running": self._runs.running})
            try:
                await self._redis.set(line.runner_key(self._name), text, ex=line.RUNNER_SECONDS)
                await self._redis.sadd(line.RUNNERS, self._name)
                metrics.WAITING.set(await self._redis.zcard(line.LINE))
            except FAILURES as error:
                logger.warning("the runner is not registered just now: %s", error)
            await asyncio.sleep(SAY_SECONDS)

    async def _claim(self) -> None:
        found = await self._runs.backend.capabilities()
        if not self._fit(found):
            logger.error(
                "no runs are claimed: programs may not run here (%s)", found.hint or "a control is absent"
            )
            return
        languages = [language.name for language in found.languages if language.version]
        keys = (line.LINE, line.WAITING, line.ROUNDS, line.SERVED)
        about: Any = (self._address, self._runs.instance, line.LOOKED_AT, line.OFFER_SECONDS, *languages)
        while True:
            try:
                await self._runs.room()
                news = await self._news()
                run: Any = await self._redis.eval(line.CLAIM, len(keys), *keys, *about)
                if run is not None:
                    self._runs.reserve(run.decode(), CLAIM_SECONDS)
                else:
                    await self._redis.xread({line.NEWS: news}, block=BLOCK_MS)
            except FAILURES as error:
                logger.warning("nothing is claimed just now: %s", error)
                await asyncio.sleep(0.5)

    async def _news(self) -> str:
        """Return the last news, before a claim is tried: what comes later wakes."""
        last: Any = await self._redis.xrevrange(line.NEWS, count=1)
        return str(last[0][0].decode()) if last else "0"
