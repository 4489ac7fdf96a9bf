"""Import from a Git address: fetched, read and written like a zip, within a time, and given up when nobody waits."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

from atelier.auth import Action, Caller
from atelier.errors import Conflict, TooMany, Unavailable
from atelier.events import publish_transient
from atelier.files import service
from atelier.files.checkout import Checkout, checkout
from atelier.files.clone import Progress, Ref, fetch
from atelier.files.paths import checked
from atelier.files.store import allowed
from atelier.services import Services

_TELL_SECONDS = 0.3
# Who imports just now, in this process: each import holds a repository's files in memory.
_under_way: set[str] = set()


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a repository holds, and which of its commits that is."""

    ref: Ref
    checkout: Checkout


Tell = Callable[[Progress], Awaitable[None]]


async def import_git(
    services: Services, caller: Caller, session_id: str, url: str, ref: str, into: str
) -> Fetched:
    """Put a repository's files into a session, all that can be files or nothing.

    Raises:
        Invalid, NotFound, TooLarge, Unavailable: as `fetch_git`.
        Conflict: `path_taken`, `too_many_files`, `import_under_way`.
    """
    await allowed(services, caller, session_id, Action.EDIT)

    async def tell(progress: Progress) -> None:
        about = {"user_id": caller.user_id, **asdict(progress)}
        await publish_transient(services, session_id, "import.progress", about)

    async with _one_at_a_time(services, caller):
        fetched = await _fetch(services, url, ref, into, tell)
        await tell(Progress("writing"))
        await service.seed(services, session_id, caller.user_id, fetched.checkout.files)
        return fetched


async def fetch_git(services: Services, caller: Caller, url: str, ref: str = "") -> Fetched:
    """Return a repository's files; nothing is written.

    Raises:
        Invalid: `url_…`, `host_…`, `port_forbidden`, `repository_unreadable`, `repository_empty`,
            `repository_too_many`, or a `path_…` code for the folder.
        NotFound: `repository_not_found`, `branch_not_found`.
        TooLarge: `repository_too_large`.
        TooMany: `imports_busy`.
        Conflict: `import_under_way`.
        Unavailable: `host_unreachable`, `repository_unavailable`, `import_too_slow`.
    """

    async def tell(_progress: Progress) -> None:
        return

    async with _one_at_a_time(services, caller):
        return await _fetch(services, url, ref, "", tell)


async def _fetch(services: Services, url: str, wanted: str, into: str, tell: Tell) -> Fetched:
    into = checked(into) if into else ""
    limits, progress = services.limits, Progress()
    gone = threading.Event()
    try:
        async with asyncio.timeout(limits.import_seconds), _telling(tell, progress):
            with tempfile.TemporaryFile() as pack:
                ref = await fetch(services.egress, url.strip(), wanted.strip(), pack, limits, progress)
                progress.phase = "unpacking"
                return Fetched(ref, await asyncio.to_thread(checkout, pack, ref, into, limits, gone.is_set))
    except TimeoutError:
        raise Unavailable(
            "import_too_slow",
            f"An import takes at most {limits.import_seconds} seconds; this one would take longer.",
            next_step="Try again later, or import a zip.",
        ) from None
    finally:
        gone.set()  # a thread cannot be cancelled; it looks at this between any two objects


@asynccontextmanager
async def _telling(tell: Tell, progress: Progress) -> AsyncIterator[None]:
    """Tell about the progress while a block runs, when there is something new."""

    async def watch() -> None:
        told = Progress("")
        while True:
            if told != progress:
                told = Progress(progress.phase, progress.received)
                await tell(told)
            await asyncio.sleep(_TELL_SECONDS)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


@asynccontextmanager
async def _one_at_a_time(services: Services, caller: Caller) -> AsyncIterator[None]:
    if caller.user_id in _under_way:
        raise Conflict(
            "import_under_way",
            "Another import of yours is under way.",
            next_step="Wait until it is done, or cancel it.",
        )
    if len(_under_way) >= services.limits.concurrent_imports:
        raise TooMany(
            "imports_busy",
            f"{services.limits.concurrent_imports} imports are under way on this server.",
            retry_after=10,
            next_step="Try again in a moment.",
        )
    _under_way.add(caller.user_id)
    try:
        yield
    finally:
        _under_way.discard(caller.user_id)
