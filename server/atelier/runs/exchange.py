"""The session's files in a sandbox that goes on: brought up to date before it is used, what is written there taken back.

What is written becomes edits of whoever used it last, if they may edit. Once somebody has used it who may not, nothing
that is written there reaches the session any more: it may be their doing, under another's name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Self

import structlog

from atelier.auth import Caller
from atelier.errors import AtelierError, Forbidden, NotFound, Unavailable
from atelier.files import Changes, write_back
from atelier.sandbox import Changed, Collect
from atelier.services import Services

logger = structlog.get_logger(__name__)
_FILES = 200  # that come back at once
_FILES_BYTES = 32 * 1024 * 1024
_LOOKED_SECONDS = 2.0  # a flood of output may hold an answer up


class Exchange:
    """Of one sandbox; a context manager. `say` tells those who look at it what did not work."""

    def __init__(
        self, services: Services, session_id: str, author: Caller, *, may_edit: bool, say: Callable[[str], Awaitable[None]]
    ) -> None:  # fmt: skip
        self._services, self._session_id, self._say = services, session_id, say
        self._changes = Changes(services, session_id)
        self.author = author
        """Who used it last: what is written from then on is theirs."""
        self.writes_back = may_edit
        self._written: dict[str, bytes | None] = {}
        self._going = True
        self._looking = asyncio.Lock()
        self._turn = asyncio.Lock()
        """Files go one way at a time."""
        self._looked = asyncio.Event()

    def __enter__(self) -> Self:
        self._changes.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._going = False
        self._looked.set()
        self._changes.__exit__()

    @property
    def collect(self) -> Collect:
        """How much may come back at once."""
        return Collect(_FILES, self._services.limits.blob_bytes, _FILES_BYTES)

    async def first(self) -> dict[str, bytes]:
        """Return all files, to begin with."""
        return {path: data for path, data in (await self._changes.take()).items() if data is not None}

    async def admit(self, run: str, name: str, *, may_edit: bool) -> None:
        """Let somebody use it; where they may not edit, nothing comes back from here on."""
        if not may_edit and self.writes_back:
            await self.look(run)  # what editors have written is theirs still
            await self._keep_to_itself(f"{name} may run but not edit")

    async def bring(self, run: str) -> None:
        """Give it what has changed in the session, once what it has written itself is there."""
        if not self._changes.waiting:
            return
        await self.look(run)
        try:
            async with self._turn:
                if changed := await self._changes.take():
                    await self._services.sandbox.bring(run, changed)
        except AtelierError as error:
            logger.warning("files did not reach a sandbox", session=self._session_id, code=error.code)
            await self._say(f"The session's files are not up to date here: {error.detail}")

    async def look(self, run: str) -> None:
        """Fetch what was written, and wait until it is in the session."""
        if not self.writes_back or not self._going:
            return
        async with self._looking:
            self._looked.clear()
            try:
                await self._services.sandbox.look(run)
                await asyncio.wait_for(self._looked.wait(), _LOOKED_SECONDS)
            except TimeoutError:
                pass  # it comes later
            except AtelierError as error:
                logger.warning(
                    "a sandbox's files were not looked at", session=self._session_id, code=error.code
                )

    def changed(self, event: Changed) -> None:
        """Take note of a file that was written."""
        self._written[event.path] = event.data

    async def looked(self) -> None:
        """Put what was written into the session as edits of whoever used it last."""
        try:
            await self._write_back()
        finally:
            self._looked.set()

    async def _write_back(self) -> None:
        files, self._written = self._written, {}
        if not files or not self.writes_back:
            return
        try:
            async with self._turn:
                given = self._changes.given
                done = await write_back(self._services, self.author, self._session_id, given, files)
                await self._changes.wrote(files, done.places)
        except (Forbidden, NotFound):
            await self._keep_to_itself(f"{self.author.display_name} may not edit any more")
        except Unavailable as error:
            logger.warning("files of a sandbox wait", session=self._session_id, code=error.code)
            self._written = {**files, **self._written}  # tried again at the next look
        except AtelierError as error:
            logger.warning("files of a sandbox did not come back", session=self._session_id, code=error.code)
            await self._say(f"{len(files)} files could not be put into the session: {error.detail}")
        else:
            for item in done.left_out:
                await self._say(f"{item.path} is not in the session: {item.reason}")

    async def _keep_to_itself(self, why: str) -> None:
        self.writes_back = False
        await self._say(f"What is written here from now on stays here: {why}")
