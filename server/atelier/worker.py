"""`atelier work`: a process that only compacts documents, for servers that have the log in Redis."""

from __future__ import annotations

import asyncio
import signal
import sys

from atelier import documents
from atelier.log import open_log
from atelier.logs import configure_logs
from atelier.settings import Settings


def run(settings: Settings) -> int:
    """Work until told to stop; returns the exit status."""
    configure_logs(settings.log_format)
    if not settings.log_url.startswith("redis"):
        print("atelier: only a log in Redis needs workers; ATELIER_LOG_URL names another.", file=sys.stderr)
        return 2
    try:
        asyncio.run(_work(settings))
    except (RuntimeError, OSError) as error:
        print(f"atelier: {error}", file=sys.stderr)
        return 1
    finally:
        documents.end_workers()
    return 0


async def _work(settings: Settings) -> None:
    async with open_log(settings.log_url) as log:
        working = asyncio.create_task(
            documents.compact_regularly(log, most_bytes=settings.limits.document_bytes), name="compact"
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, working.cancel)
        print("Atelier compacts documents.", flush=True)
        await asyncio.gather(working, return_exceptions=True)
