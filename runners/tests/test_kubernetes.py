"""How pods of the Kubernetes carrier come and go, what they carry, and what is left of them: nothing.

Against the cluster of `cluster.py`, which says what that proves and what it does not.
"""

from __future__ import annotations

import asyncio
import copy
import signal
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from atelier_runner import (
    Changed,
    Collect,
    Exited,
    Output,
    Reason,
    Spec,
    kubernetes_keeper,
    open_kubernetes,
)
from atelier_runner.kubernetes_carrier import KubernetesCarrier
from atelier_runner.kubernetes_keeper import stamp
from atelier_runner.kubernetes_pod import RUNNER_LABEL
from atelier_runner.run import Run
from tests.cluster import Cluster

from .finished import finished
from .over_cluster import LIMITS, begun, opened, options, python, until, url, waiting, where
from .test_hostile_agents import OPENING, STAYING

pytestmark = [pytest.mark.docker, pytest.mark.kubernetes]


async def test_nothing_is_left_of_runs_and_of_what_waited(there: Cluster) -> None:
    async with opened(there, pool_size=2) as backend:
        await asyncio.gather(*(finished(backend, python("print(1)")) for _ in range(4)))
        events = await begun(backend)
        await backend.warm()
        assert len(there.pods()) == 3
        assert len(there.leases()) == 1
        users = [pod["spec"]["securityContext"]["runAsUser"] for pod in there.pods()]
        assert len(set(users)) == 3
        await events.aclose()  # type: ignore[attr-defined]
        await until(lambda: {pod["metadata"]["name"] for pod in there.pods()} == set(waiting(backend)))
        await backend.warm()
        carrier = backend._carrier
        assert isinstance(carrier, KubernetesCarrier)
        await until(lambda: len(carrier._house.users) == 2)
        assert carrier._pods._seen.keys() == set(waiting(backend))
        assert carrier._pods._deleted == carrier._house.left == set()
    assert there.pods() == []
    assert there.leases() == {}


@pytest.mark.parametrize("protocol", ["v4.channel.k8s.io", "v5.channel.k8s.io"])
async def test_either_channel_protocol_will_do(there: Cluster, protocol: str) -> None:
    there.protocols = (protocol,)
    data = bytes(range(256)) * 4000
    spec = Spec(
        "python",
        "m.py",
        {"m.py": b"import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"},
        replace(LIMITS, output_bytes=2 << 20),
        stdin=data,
    )
    async with opened(there) as backend:
        out, _, result = await finished(backend, spec)
    assert (out == data, result.code) == (True, 0)


async def test_files_come_back_also_where_time_runs_out(there: Cluster) -> None:
    program = "open('made.txt', 'w').write('x')\nimport time\ntime.sleep(60)"
    spec = replace(python(program, replace(LIMITS, wall_seconds=0.6)), collect=Collect())
    async with opened(there) as backend:
        events = [event async for event in backend.events(await backend.start(spec))]
    assert [(event.path, event.data) for event in events if isinstance(event, Changed)] == [
        ("made.txt", b"x")
    ]
    assert isinstance(events[-1], Exited)
    assert events[-1].reason is Reason.WALL_TIME


async def test_output_that_nobody_reads_holds_its_own_program_up(there: Cluster) -> None:
    async with opened(there) as backend:
        limits = replace(LIMITS, output_bytes=1 << 30, wall_seconds=60)
        run = await backend.start(python("for n in range(99): print('x' * 99_999)", limits))
        await asyncio.sleep(0.5)
        running = backend._runs[run]
        assert isinstance(running, Run)
        assert len(running._sandbox.reader._buffer) < 2 << 20  # type: ignore[attr-defined]
        events = [event async for event in backend.events(run)]
        assert sum(len(event.data) for event in events if isinstance(event, Output)) == 99 * 100_000


async def test_a_flood_of_the_agent_s_own_standard_error_ends_the_run(there: Cluster) -> None:
    async with opened(there) as backend:
        program = "file = open('/proc/1/fd/2', 'wb', buffering=0)\nwhile True: file.write(bytes(65536))"
        _, _, result = await finished(backend, python(program))
        assert result.reason is Reason.LOST


async def test_a_run_that_needs_more_than_waits_gets_a_pod_of_its_size(there: Cluster) -> None:
    async with opened(there) as backend:
        await backend.warm()
        limits = replace(LIMITS, memory_mb=200)
        out, _, result = await finished(backend, python("x = bytearray(150 << 20); print(len(x))", limits))
        assert (out, result.reason) == (b"157286400\n", Reason.EXITED)
    assert "200Mi" in {pod["spec"]["containers"][0]["resources"]["limits"]["memory"] for pod in there.created}


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (b'send(b"U", b\'{"cpu": "x", "memory": -1e400, "kills": [1]}\'); send(b"U", b"[]"); send(b"X", b\'{"code": 0}\')', Reason.EXITED),
        (b'send(b"U", b\'{"cpu": 99}\')', Reason.CPU_TIME),
        (b'send(b"U", b\'{"memory": 999999999}\')', Reason.MEMORY),
        (b'send(b"U", b\'{"kills": 1}\')', Reason.MEMORY),
        (b"held = bytearray(500 << 20)", Reason.MEMORY),  # the kernel kills process 1, and the cluster says so
    ],
)  # fmt: skip
async def test_what_an_agent_counts_is_taken_for_what_it_is(
    there: Cluster, behaviour: bytes, reason: Reason
) -> None:
    agent = OPENING + behaviour + STAYING
    async with open_kubernetes(
        where(there), options(there), limits=LIMITS, pool_size=0, agent=agent
    ) as backend:
        _, _, result = await finished(backend, python(""))
    assert result.reason is reason, result


# Opens a carrier, starts a program that never ends and says so; then it is killed.
KILLED = """
import asyncio, sys
from atelier_runner import Output, Spec, open_backend
async def main():
    async with open_backend(sys.argv[1], pool_size=1, pool_most=1) as backend:
        await backend.warm()
        run = await backend.start(Spec("python", "m.py", {"m.py": b"import time; print(1, flush=True); time.sleep(600)"}))
        async for event in backend.events(run):
            if isinstance(event, Output):
                await backend.warm()
                print(backend._carrier._recipe.runner, flush=True)
asyncio.run(main())
"""


async def test_a_killed_runner_leaves_no_program_and_others_remove_the_rest(
    there: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, url(there), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    runner = (await process.stdout.readline()).decode().strip()

    def left() -> list[dict[str, Any]]:
        return [pod for pod in there.pods() if pod["metadata"]["labels"][RUNNER_LABEL] == runner]

    assert left()
    process.send_signal(signal.SIGKILL)
    await process.wait()
    await until(lambda: all(pod["status"]["phase"] in ("Succeeded", "Failed") for pod in left()))
    async with opened(there) as backend:
        assert left(), "its lease has not run out"
        lease = there.leases()[runner]
        lease["spec"]["renewTime"] = stamp(datetime.now(UTC) - timedelta(seconds=61))
        async with opened(there, pool_size=0):
            assert left() == []
            assert runner not in there.leases()
        assert (await finished(backend, python("print('hi')")))[0] == b"hi\n"


async def test_a_lease_is_renewed_and_taken_again_when_somebody_deletes_it(
    there: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_keeper, "RENEW_SECONDS", 0.1)
    async with opened(there, pool_size=0):
        ((name, lease),) = there.leases().items()
        began = lease["spec"]["renewTime"]
        await until(lambda: bool(there.leases()[name]["spec"]["renewTime"] > began))
        there.delete_lease(name)
        await until(lambda: name in there.leases())
    assert there.leases() == {}


async def test_a_pod_that_was_made_although_no_answer_came_is_found_and_removed(
    there: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_keeper, "RENEW_SECONDS", 0.1)
    async with opened(there) as backend:
        await backend.warm()
        (pod,) = there.pods()
        stray = copy.deepcopy(pod)
        stray["metadata"]["name"] = "stray"
        there.put("pods", stray)
        await until(lambda: [one["metadata"]["name"] for one in there.pods()] == waiting(backend))
