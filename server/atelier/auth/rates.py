"""Rate limits per address and per person, in this process's memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import Request
from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from atelier import times
from atelier.deps import ServicesDep
from atelier.errors import TooMany
from atelier.limits import Limits

_RATES: dict[str, Callable[[Limits], RateLimitItem]] = {
    "guests": lambda limits: RateLimitItemPerHour(limits.guests_per_hour),
    "log_ins": lambda limits: RateLimitItemPerMinute(limits.log_ins_per_minute),
    "imports": lambda limits: RateLimitItemPerHour(limits.imports_per_hour),
    "cells": lambda limits: RateLimitItemPerMinute(limits.cells_per_minute),
    "runs": lambda limits: RateLimitItemPerMinute(limits.runs_per_minute),
}


class RateLimiter:
    """Counts hits in moving windows; one per application."""

    def __init__(self) -> None:
        self._windows = MovingWindowRateLimiter(MemoryStorage())

    async def hit(self, name: str, key: str, limits: Limits) -> None:
        """Count one hit of `key` under the rate called `name`.

        Raises:
            TooMany: `rate_limited`, with the seconds until the next one is let in.
        """
        rate = _RATES[name](limits)
        if await self._windows.hit(rate, name, key):
            return
        window = await self._windows.get_window_stats(rate, name, key)
        wait = max(1.0, window.reset_time - times.now() / times.SECOND)
        raise TooMany(
            "rate_limited",
            f"At most {rate} of these; the next is let in in {wait:.0f} s.",
            retry_after=wait,
            next_step="Wait a moment and try again.",
        )


def limiter_of(request: Request) -> RateLimiter:
    """Return the application's limiter, made on first use."""
    state = request.app.state
    if not hasattr(state, "rate_limiter"):
        state.rate_limiter = RateLimiter()
    limiter: RateLimiter = state.rate_limiter
    return limiter


def rate_limited(name: str) -> Callable[..., Awaitable[None]]:
    """Return a dependency that counts each request of a client's address under `name`."""

    async def check(request: Request, services: ServicesDep) -> None:
        address = request.client.host if request.client else "unknown"
        await limiter_of(request).hit(name, address, services.limits)

    return check
