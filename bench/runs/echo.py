"""Measures a shared terminal's echo, key to screen, at the client: `python -m bench.runs.echo [--keys N]`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time

import httpx2
from websockets.asyncio.client import connect

from bench.gates import missed
from bench.served import percentile, served

GATE_P50_MS, GATE_P99_MS = 5.0, 20.0
PAUSE = 0.02  # between keys: five times as fast as people type


async def measure(url: str, keys: int) -> list[float]:
    """Return the milliseconds from each key to its echo."""
    async with httpx2.AsyncClient(base_url=f"{url}/api/v1", timeout=30) as http:
        token = (await http.post("/guests", json={"display_name": "Ada"})).json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        session = (await http.post("/sessions", json={"name": "Echo"})).json()["id"]
        terminal = (await http.post(f"/sessions/{session}/terminals", json={})).json()["id"]
    address = (
        f"{url.replace('http', 'ws')}/api/v1/sessions/{session}/terminals/{terminal}/socket?token={token}"
    )
    taken: list[float] = []
    async with connect(address) as socket:
        place, shown = 0, b""

        async def until(text: bytes) -> None:
            nonlocal place, shown
            while text not in shown:
                message = await socket.recv()
                if isinstance(message, bytes):
                    shown += message
                    place += len(message)
                    await socket.send(json.dumps({"type": "shown", "place": place}))
            shown = shown.split(text, 1)[1]

        await until(b"$ ")
        for n in range(keys):
            key = b"abcdefghij"[n % 10 : n % 10 + 1]
            if n % 60 == 59:  # a new line, so that the shell has little to draw
                await socket.send(b"\x15")
                await asyncio.sleep(PAUSE)
                shown = b""
            began = time.perf_counter()
            await socket.send(key)
            await until(key)
            taken.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(PAUSE)
    return taken


def main() -> int:
    """Print the figures; returns how many gates were missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=600)
    keys = parser.parse_args().keys
    with served() as server:
        taken = asyncio.run(measure(server.url, keys))
    p50, p99 = percentile(taken, 0.5), percentile(taken, 0.99)
    print(f"{keys} keys: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    return missed([("p50, ms", p50, GATE_P50_MS), ("p99, ms", p99, GATE_P99_MS)])


if __name__ == "__main__":
    sys.exit(main())
