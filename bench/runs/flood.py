"""Measures what a program that prints without end costs the server's memory: `python -m bench.runs.flood`.

Two floods of a gigabyte each: a run (which its output limit ends), and a shared terminal that somebody reads as fast
as they can, to the last byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
from pathlib import Path

import httpx2
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from bench.gates import missed
from bench.served import served

SIZE = 1 << 30
GATE_MIB = 8.0


def resident(pid: int, name: str) -> float:
    """Return VmRSS or VmHWM of a process in MiB."""
    found = re.search(rf"^{name}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def forget_peak(pid: int) -> None:
    """Let VmHWM begin anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


async def terminal(http: httpx2.AsyncClient, url: str, session: str, token: str) -> int:
    """Read a flood from a terminal; returns how many bytes came."""
    opened = (await http.post(f"/sessions/{session}/terminals", json={})).json()["id"]
    address = f"{url.replace('http', 'ws')}/api/v1/sessions/{session}/terminals/{opened}/socket?token={token}"
    place = came = 0
    async with connect(address, max_size=None) as socket:
        await socket.send(f"head -c {SIZE} /dev/zero | tr '\\0' x; exit\n".encode())
        async for message in socket:
            if isinstance(message, bytes):
                place += len(message)
                came += len(message)
                with contextlib.suppress(ConnectionClosed):  # the last bytes and the end may come together
                    await socket.send(json.dumps({"type": "shown", "place": place}))
            elif (said := json.loads(message))["type"] == "from":
                place = said["place"]
    return came


async def measure(url: str, pid: int) -> tuple[float, float, int]:
    """Return the growth in MiB by the run and by the terminal, and what came of the latter."""
    async with httpx2.AsyncClient(base_url=f"{url}/api/v1", timeout=600) as http:
        token = (await http.post("/guests", json={"display_name": "Ada"})).json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        session = (await http.post("/sessions", json={"name": "Flood"})).json()["id"]
        program = f"import os\nfor _ in range({SIZE >> 16}): os.write(1, b'x' * 65536)"
        for name, text in (("warm.py", "print(1)"), ("main.py", program)):
            await http.put(f"/sessions/{session}/files/{name}", content=text.encode())

        async def run(entry: str) -> None:
            begun = (await http.post(f"/sessions/{session}/runs", json={"entry": entry, "stdin": ""})).json()
            await http.get(f"/sessions/{session}/runs/{begun['id']}/events")

        await run("warm.py")
        before = resident(pid, "VmRSS")
        forget_peak(pid)
        await run("main.py")
        by_run = resident(pid, "VmHWM") - before
        before = resident(pid, "VmRSS")
        forget_peak(pid)
        came = await terminal(http, url, session, token)
        return by_run, resident(pid, "VmHWM") - before, came


def main() -> int:
    """Print the figures; returns how many gates were missed."""
    with served() as server:
        by_run, by_terminal, came = asyncio.run(measure(server.url, server.pid))
    print(f"a run: + {by_run:.1f} MiB; a terminal: + {by_terminal:.1f} MiB, {came >> 20} MiB came")
    return missed([("by a run, MiB", by_run, GATE_MIB), ("by a terminal, MiB", by_terminal, GATE_MIB)])


if __name__ == "__main__":
    sys.exit(main())
