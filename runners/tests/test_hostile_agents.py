"""The host believes nothing: agents that lie, flood, stall or vanish cost their own run and nothing else."""

from __future__ import annotations

import time

import pytest

from atelier_runner import Exited, Limits, Output, Reason, SandboxUnavailable, Spec, open_local

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
async def test_each_costs_its_own_run_only(name: str) -> None:
    behaviour, reasons = AGENTS[name]
    begun = time.monotonic()
    async with open_local(limits=LIMITS, pool_size=1, agent=OPENING + behaviour + STAYING) as backend:
        run = await backend.start(Spec("python", "m.py", {"m.py": b""}, LIMITS, stdin=b""))
        events = [event async for event in backend.events(run)]
    last = events[-1]
    assert isinstance(last, Exited)
    assert last.reason in reasons, last
    assert sum(len(event.data) for event in events if isinstance(event, Output)) <= LIMITS.output_bytes
    assert time.monotonic() - begun < LIMITS.wall_seconds + 3


async def test_one_that_is_not_an_agent_is_an_error_of_start() -> None:
    async with open_local(limits=LIMITS, pool_size=1, agent=b"raise SystemExit('not an agent')") as backend:
        with pytest.raises(SandboxUnavailable) as refused:
            await backend.start(Spec("python", "m.py", {"m.py": b""}, LIMITS))
    assert "not an agent" in refused.value.detail
