"""As large a document as may be, over a slow line: it comes once, whole, and nobody starts again from the beginning."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from bench.writer import Writer

from atelier.documents import compact_if_long
from atelier.ids import document_key
from atelier.log import Edit, open_log

from ..faults import faulty_line
from .clients import world

MEGABYTES = 62
PASTE = 500_000
PIECE_SECONDS = (
    0.04  # each 64 KiB: 1.6 MB/s, so that it takes longer than any client or server waits in silence
)


@pytest.mark.node
@pytest.mark.timeout(240)
async def test_a_document_of_62_mb_comes_over_a_slow_line_at_once_and_edits_come_behind_it(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as place, faulty_line(place.server.port) as line:
        document = await place.put("Ada", "a.txt", "")
        key = document_key(place.session, document)
        await place.server.end()
        writing = Writer()
        async with open_log(f"sqlite:///{tmp_path}/log.db") as log:
            for number in range(MEGABYTES * 1_000_000 // PASTE):
                writing.text += f"{number:09}\n" * (PASTE // 10)
                await log.append(key, [Edit(writing.take(), "usr_a", number)])
            await compact_if_long(log, key, most_bytes=10**9, always=True)
        await place.server.start()
        line.delay = PIECE_SECONDS
        place.line_url = f"http://127.0.0.1:{line.port}"
        began = time.monotonic()
        ada = await place.open("Ada", "y-websocket", document, synced=False)
        await ada.until(lambda s: s["size"] > 0, seconds=60)  # it is on its way
        place.line_url = ""
        near = await place.open("Ada", "hocuspocus", document, name="near", line="near")
        await near.do("insert", at=0, text="meanwhile ")
        size = MEGABYTES * 1_000_000 + len("meanwhile ")
        state = await ada.until(lambda s: s["synced"] and s["size"] == size, seconds=150)
        assert time.monotonic() - began > 30
        assert state["closed"] is None
        assert state["vector"] == (await near.state())["vector"]
