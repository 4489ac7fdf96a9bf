"""The host believes nothing: agents that lie, flood, stall or vanish cost their own run and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from atelier_runner import (
    Backend,
    Changed,
    Collect,
    Exited,
    Limits,
    Output,
    Reason,
    SandboxUnavailable,
    Spec,
    open_local,
)

Open = Callable[..., AbstractAsyncContextManager[Backend]]
LIMITS = Limits(wall_seconds=1, cpu_seconds=1, memory_mb=96, processes=16, disk_mb=8, output_bytes=100_000)
# Ready, then wait until GO has come: what each does after that is up to it.
OPENING = b"""
import os, struct
def send(kind, payload=b""):
    data = struct.pack(">I", len(payload)) + kind + payload
    while data: data = data[os.write(1, data):]
send(b"R", b"{}")
seen = b""
while b"\\0\\0\\0\\0G" not in seen: seen += os.read(0, 65536)
"""
STAYING = b"\nwhile os.read(0, 4096): pass\n"
AGENTS = {
    "a frame of 4 GiB": (b'os.write(1, b"\\xff\\xff\\xff\\xffO")', {Reason.LOST}),
    "a frame of an unknown kind": (b'send(b"?", b"x")', {Reason.LOST}),
    "empty output without end": (b'while True: send(b"O")', {Reason.LOST}),
    "output without end": (b'while True: send(b"O", bytes(65536))', {Reason.OUTPUT}),
    "half a frame": (b'os.write(1, b"\\0\\0\\0\\x09Oabc"); os._exit(0)', {Reason.LOST}),
    "nothing": (b"os._exit(0)", {Reason.LOST}),
    "silence": (b"while True: os.read(0, 1) or os._exit(0)", {Reason.WALL_TIME}),
    "an exit that is no JSON": (b'send(b"X", b"\\xff{")', {Reason.EXITED}),
    "an exit of the wrong shape": (
        b'send(b"X", b\'{"code": "x", "signal": [], "cpu": "NaN", "memory": -1e400, "full": 7}\')',
        {Reason.DISK, Reason.EXITED},
    ),
    "an unheard-of signal": (b'send(b"X", b\'{"code": null, "signal": 999}\')', {Reason.SIGNALLED}),
    "a failure of the wrong shape": (b'send(b"P", b"[1]")', {Reason.LOST}),
}


@pytest.mark.parametrize("name", list(AGENTS))
async def test_each_costs_its_own_run_only(open_carrier: Open, name: str) -> None:
    behaviour, reasons = AGENTS[name]
    async with open_carrier(limits=LIMITS, pool_size=1, agent=OPENING + behaviour + STAYING) as backend:
        begun = time.monotonic()
        run = await backend.start(Spec("python", "m.py", {"m.py": b""}, LIMITS, stdin=b""))
        events = [event async for event in backend.events(run)]
        assert time.monotonic() - begun < LIMITS.wall_seconds + 3
    last = events[-1]
    assert isinstance(last, Exited)
    assert last.reason in reasons, last
    assert sum(len(event.data) for event in events if isinstance(event, Output)) <= LIMITS.output_bytes


async def test_one_that_is_not_an_agent_is_an_error_of_start(open_carrier: Open) -> None:
    async with open_carrier(limits=LIMITS, pool_size=1, agent=b"raise SystemExit('not an agent')") as backend:
        with pytest.raises(SandboxUnavailable) as refused:
            await backend.start(Spec("python", "m.py", {"m.py": b""}, LIMITS))
    assert "not an agent" in refused.value.detail


# What an agent may say once its program has ended: each is given up at the first thing that makes no sense.
ENDED = b"""send(b"X", b'{"code": 0, "signal": null}')
def file(path, size, data): send(b"N", struct.pack(">HQ", len(path), size) + path + data)
file(b"good", 4, b"good")
"""
COLLECTIONS = {
    "a path that leaves": b'file(b"../x", 1, b"x")',
    "an absolute path": b'file(b"/etc/passwd", 1, b"x")',
    "a path that is not UTF-8": rb'file(b"\xff", 1, b"x")',
    "a NUL in a path": rb'file(b"a\0b", 1, b"x")',
    "the same file twice": b'file(b"good", 1, b"x")',
    "more than was said": b'file(b"a", 1, b"xx")',
    "more than is allowed": b'file(b"a", 1 << 60, b"x")',
    "more and more files": b"for i in range(999): file(b'%d' % i, 1, b'x')",
    "more and more bytes": b"for i in range(40): file(b'b%d' % i, 500_000, bytes(500_000))",
    "a file without an end": b'file(b"a", 9, b"x")',
    "bytes of no file": b'send(b"A", b"x")',
    "another frame inside a file": b'file(b"a", 9, b"x"); send(b"L", b"{}")',
    "empty pieces without end": b'file(b"a", 9, b"x")\nwhile True: send(b"A")',
    "a length without a name": rb'send(b"N", b"\xff\xff")',
    "what was never there is gone": b'send(b"D", b"other")',
    "output after the end": b'send(b"O", b"x")',
    "a second end": b'send(b"X", b"{}")',
    "a frame of 4 GiB": rb'os.write(1, b"\xff\xff\xff\xffN")',
    "silence": b"pass",
    "the end of the stream": b"import socket; socket.socket(fileno=1).shutdown(socket.SHUT_WR)",
}


@pytest.mark.parametrize("name", list(COLLECTIONS))
async def test_a_collection_that_makes_no_sense_is_given_up_and_nothing_else(name: str) -> None:
    agent = OPENING + ENDED + COLLECTIONS[name] + STAYING
    wanted = Collect(files=20, file_bytes=1 << 20, total_bytes=4 << 20, seconds=0.5)
    begun = time.monotonic()
    async with open_local(limits=LIMITS, pool_size=1, agent=agent) as backend:
        run = await backend.start(Spec("python", "m.py", {"m.py": b""}, LIMITS, stdin=b"", collect=wanted))
        events = [event async for event in backend.events(run)]
    last, files = events[-1], [event for event in events if isinstance(event, Changed)]
    assert isinstance(last, Exited)
    assert (last.reason, last.code) == (Reason.EXITED, 0)
    assert last.collected is not None
    assert not last.collected.complete
    assert files[0].data == b"good"
    assert len(files) <= wanted.files
    assert sum(len(file.data or b"") for file in files) <= wanted.total_bytes
    assert {file.path for file in files} <= {"good", *map(str, range(20)), *(f"b{i}" for i in range(20))}
    assert time.monotonic() - begun < 10  # not for ever


@pytest.mark.parametrize(
    "said",
    [
        b"[]",
        b'{"left_out": 7, "count": -1}',
        b'{"left_out": [["x"], ["x", "made-up"], [1, "link"], null], "count": 1e400}',
        b"{" * 5000,
    ],
)
async def test_a_summary_of_the_wrong_shape_says_nothing(said: bytes) -> None:
    agent = OPENING + ENDED + b'send(b"L", ' + repr(said).encode() + b")" + STAYING
    async with open_local(limits=LIMITS, pool_size=1, agent=agent) as backend:
        run = await backend.start(Spec("python", "m.py", {"m.py": b""}, LIMITS, stdin=b"", collect=Collect()))
        last = [event async for event in backend.events(run)][-1]
    assert isinstance(last, Exited)
    assert last.collected is not None
    assert (last.collected.complete, last.collected.left_out, last.collected.count) == (True, (), 0)
