"""A large document: joining it, with and without edits that wait in its tail, and a storm of joiners.

python -m bench.hub.large            20 MB, 150 joiners at once
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from statistics import median

from pycrdt import Doc, Text

from bench.gates import missed
from bench.hub.servers import Server, Started
from bench.hub.wire import STEP1, STEP2, UPDATE, Line, enter, masked, message, open_line, sized
from bench.served import percentile
from bench.writer import Writer

_PASTE = 200_000  # characters
_TARGET_SECONDS, _TARGET_MB = 5.0, 300


async def join(server: Server) -> tuple[float, int]:
    """Take the whole document; returns seconds and bytes. The answer that says "that is all" comes last."""
    began = time.perf_counter()
    reader, writer = await open_line(server)
    writer.write(masked(STEP1))
    size = 0
    while True:
        body = await message(reader)
        size += len(body)
        if body[:2] == STEP2:
            writer.transport.abort()
            return time.perf_counter() - began, size


async def write(server: Server, megabytes: int) -> Doc[Text]:
    """Paste until the document is so large, and wait until every paste is acknowledged."""
    line = await enter(server)
    writing = Writer()
    for number in range(megabytes * 1_000_000 // _PASTE):
        writing.text += f"{number:09}\n" * (_PASTE // 10)
        await _send(line, writing.take())
    line[1].transport.abort()
    return writing.doc


async def _send(line: Line, update: bytes) -> None:
    reader, writer = line
    body = UPDATE + sized(update)
    writer.write(masked(body))
    while await message(reader) != body:  # its echo is the acknowledgement
        pass


async def type_some(server: Server, doc: Doc[Text], edits: int) -> None:
    """Type at the end, an edit a message."""
    reader, writer = await open_line(server)
    writing = Writer(doc)
    writer.write(masked(b"\x00\x00" + sized(doc.get_state())))
    while (await message(reader))[:2] != STEP2:
        pass
    for _ in range(edits):
        writing.text += "x"
        await _send((reader, writer), writing.take())
    writer.transport.abort()


async def measure(server: Server, megabytes: int, joiners: int) -> int:
    """Measure and print; returns how many gates were missed."""
    doc = await write(server, megabytes)
    await asyncio.sleep(12)  # until it has been compacted and nobody is there
    alone = [await join(server) for _ in range(5)]
    await type_some(server, doc, 50)
    pending = [await join(server) for _ in range(5)]
    one, with_tail = median(s for s, _ in alone), median(s for s, _ in pending)
    print(
        f"one joiner: {one * 1e3:.0f} ms, {alone[0][1] / 1e6:.1f} MB; with edits in the tail {with_tail * 1e3:.0f} ms"
    )
    memory, peak = server.memory(), 0

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, server.memory())
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    began, cpu = time.perf_counter(), server.cpu_seconds()
    found = await asyncio.gather(*(join(server) for _ in range(joiners)))
    seconds = [s for s, _ in found]
    sent = sum(size for _, size in found)
    took, used = time.perf_counter() - began, server.cpu_seconds() - cpu
    watching.cancel()
    grown = (peak - memory) / 1e6
    print(
        f"{joiners} at once: p50 {percentile(seconds, 0.5):.2f} s, p99 {percentile(seconds, 0.99):.2f} s,"
        f" {sent / took / 1e6:.0f} MB/s, server CPU {used:.2f} s, memory + {grown:.0f} MB"
    )
    return missed(
        (
            ("with edits, of without", with_tail / one, 1.1),
            ("p99 of the storm, s", percentile(seconds, 0.99), _TARGET_SECONDS),
            ("memory of the storm, MB", grown, _TARGET_MB),
        )
    )


def main() -> int:
    """Run it against a fresh server."""
    parser = argparse.ArgumentParser(prog="python -m bench.hub.large")
    parser.add_argument("--megabytes", type=int, default=20)
    parser.add_argument("--joiners", type=int, default=150)
    options = parser.parse_args()
    with Started("atelier") as server:
        return asyncio.run(measure(server, options.megabytes, options.joiners))


if __name__ == "__main__":
    sys.exit(main())
