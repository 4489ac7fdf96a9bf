"""Sandboxes that wait for the languages that were used last, where each language has sandboxes of its own."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, ValuesView
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from atelier_runner.carrier import Idle, Launcher, Sandbox, together
from atelier_runner.demand import Budget, Demand
from atelier_runner.model import Limits
from atelier_runner.pool import Pool


class ClosingLauncher(Launcher, Protocol):
    """One that has something to wait for when it is not needed any more."""

    async def close(self) -> None: ...


L = TypeVar("L", bound=ClosingLauncher)


@dataclass(slots=True)
class Stock(Generic[L]):
    """The waiting sandboxes of one language, and the limits that they are prepared for."""

    launcher: L
    pool: Pool
    limits: Limits


class Stocks(Generic[L]):
    """Keeps `size` to `largest` sandboxes waiting for each of the `most` languages that were used last."""

    def __init__(
        self, make: Callable[[str], tuple[L, Limits]], size: int, largest: int, budget: Budget, most: int
    ) -> None:
        self._make = make
        self._size = size
        self._largest = largest
        self._budget = budget
        self._most = most
        self._stocks: OrderedDict[str, Stock[L]] = OrderedDict()
        self._leaving: set[asyncio.Task[None]] = set()

    async def of(self, language: str) -> Stock[L]:
        """Return a language's; from now on sandboxes of it wait, and those of the least recent one no longer."""
        stock = self._stocks.get(language)
        if stock is None:
            launcher, limits = self._make(language)
            pool = Pool(launcher, limits, Demand(self._size, self._largest), self._budget)
            stock = self._stocks[language] = Stock(launcher, pool, limits)
            await stock.pool.__aenter__()
        self._stocks.move_to_end(language)
        while len(self._stocks) > self._most:
            _, oldest = self._stocks.popitem(last=False)
            leaving = asyncio.create_task(self._leave(oldest), name="pool-leave")
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
        return stock

    def values(self) -> ValuesView[Stock[L]]:
        """All of them."""
        return self._stocks.values()

    @property
    def waiting(self) -> list[Sandbox]:
        """The sandboxes that wait at this moment."""
        return [sandbox for stock in self._stocks.values() for sandbox in stock.pool.waiting]

    def idle(self) -> Idle:
        """Say what waits."""
        return together(stock.pool.idle() for stock in self._stocks.values())

    async def filled(self) -> None:
        """Wait until as many sandboxes wait as are meant to."""
        for stock in list(self._stocks.values()):
            await stock.pool.filled()

    async def _leave(self, stock: Stock[L]) -> None:
        await stock.pool.__aexit__(None, None, None)
        await stock.launcher.close()

    async def close(self) -> None:
        """End every waiting sandbox."""
        await asyncio.gather(*(self._leave(stock) for stock in self._stocks.values()))
        await asyncio.gather(*self._leaving)
        self._stocks.clear()
