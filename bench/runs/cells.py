"""Measures a kept interpreter: from sending `1+1` to its value, at the client: `python -m bench.runs.cells [--cells N]`.

In the same run: a bare `python3 -c 'print(1+1)'`, and Jupyter's own kernel (ipykernel over jupyter_client) where an
interpreter that has both is named by `--jupyter PATH`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time

import httpx2
from websockets.asyncio.client import connect

from atelier_runner import CellEnded, CellLimits, CellValue, Limits, Spec, open_local
from bench.gates import missed
from bench.served import percentile, served

GATE_RUNNER, GATE_P50, GATE_P99 = 0.2, 1.0, 2.0
PAUSE = 0.02
# Speaks with a kernel as a notebook does, one line of milliseconds for each cell.
JUPYTER = """
import sys, time
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="python3")
for n in range(int(sys.argv[1]) + 5):
    began = time.perf_counter()
    asked = client.execute("1+1")
    while True:
        message = client.get_iopub_msg(timeout=30)
        if message["parent_header"].get("msg_id") == asked and message["msg_type"] == "execute_result":
            break
    if n >= 5:
        print((time.perf_counter() - began) * 1000, flush=True)
    time.sleep(float(sys.argv[2]))
client.stop_channels()
manager.shutdown_kernel(now=True)
"""


def bare() -> float:
    began = time.perf_counter()
    subprocess.run(["python3", "-c", "print(1+1)"], check=True, stdout=subprocess.PIPE)
    return (time.perf_counter() - began) * 1000


async def runner(cells: int) -> tuple[list[float], list[float]]:
    """Return milliseconds of cells at the runner, and of bare interpreters between them."""
    limits = Limits(wall_seconds=600, cpu_seconds=300)
    taken: list[float] = []
    beside: list[float] = []
    async with open_local(limits=limits) as backend:
        run = await backend.start(Spec("python", "", {}, limits, cells=CellLimits()))
        events = backend.events(run)
        for number in range(1, cells + 6):
            began = time.perf_counter()
            await backend.cell(run, number, "", "1+1")
            async for event in events:
                if isinstance(event, CellValue):
                    assert event.data == b"2"
                    if number > 5:
                        taken.append((time.perf_counter() - began) * 1000)
                if isinstance(event, CellEnded):
                    break
            await asyncio.sleep(PAUSE)
            if number > 5:
                beside.append(await asyncio.to_thread(bare))
        await backend.cancel(run)
    return taken, beside


async def server(url: str, cells: int) -> list[float]:
    """Return milliseconds from the request to the value on the session's events."""
    async with httpx2.AsyncClient(base_url=f"{url}/api/v1", timeout=30) as http:
        token = (await http.post("/guests", json={"display_name": "Ada"})).json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        session = (await http.post("/sessions", json={"name": "Cells"})).json()["id"]
        address = f"{url.replace('http', 'ws')}/api/v1/sessions/{session}/events?token={token}"
        taken: list[float] = []
        async with connect(address) as socket:
            for n in range(cells + 5):
                began = time.perf_counter()
                answer = await http.post(f"/sessions/{session}/cells", json={"cells": [{"code": "1+1"}]})
                assert answer.status_code == 201, answer.text
                value, ended = 0.0, False
                while not (value and ended):  # what is stored and what is only told may overtake each other
                    event = json.loads(await socket.recv())
                    ended = ended or event["type"] == "cell.ended"
                    if event["type"] == "cell.event" and event["data"]["type"] == "value":
                        value = time.perf_counter() - began
                if n >= 5:
                    taken.append(value * 1000)
                await asyncio.sleep(PAUSE)
    return taken


def jupyter(python: str, cells: int) -> list[float]:
    done = subprocess.run(
        [python, "-c", JUPYTER, str(cells), str(PAUSE)],
        check=True,
        capture_output=True,
        text=True,
        timeout=600,
    )
    return [float(line) for line in done.stdout.split()]


def shown(name: str, taken: list[float]) -> tuple[float, float]:
    p50, p99 = percentile(taken, 0.5), percentile(taken, 0.99)
    print(f"{name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms ({len(taken)})")
    return p50, p99


def main() -> int:
    """Print the figures; returns how many gates were missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=300)
    parser.add_argument("--jupyter", help="a Python that has ipykernel and jupyter_client")
    options = parser.parse_args()
    at_runner, beside = asyncio.run(runner(options.cells))
    with served(ATELIER_LIMIT_CELLS_PER_MINUTE="100000") as running:
        at_server = asyncio.run(server(running.url, options.cells))
    runner_p50, _ = shown("a cell at the runner, code to value", at_runner)
    p50, p99 = shown("a cell through the server, request to value on the events", at_server)
    bare_p50, bare_p99 = shown("a bare python3", beside)
    if options.jupyter:
        shown("Jupyter's kernel, request to value", jupyter(options.jupyter, options.cells))
    return missed([
        ("at the runner over bare, p50", runner_p50 / bare_p50, GATE_RUNNER),
        ("through the server over bare, p50", p50 / bare_p50, GATE_P50),
        ("through the server over bare, p99", p99 / bare_p99, GATE_P99),
    ])  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
