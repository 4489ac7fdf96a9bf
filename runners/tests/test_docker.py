"""What only the Docker carrier has: the engine's stream, its containers and their end, what it says where parts miss."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import struct
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from deploy.engine import BASE

from atelier_runner import (
    Backend,
    Limits,
    Output,
    Reason,
    SandboxUnavailable,
    Spec,
    open_backend,
    open_docker,
)
from atelier_runner.docker_carrier import DockerCarrier, identity
from atelier_runner.docker_engine import Engine
from atelier_runner.docker_meter import StatsMeter
from atelier_runner.docker_sandbox import RUNNER_LABEL, DockerSandbox
from atelier_runner.docker_stream import KEPT, Demultiplexer
from atelier_runner.images import LANGUAGE_LABEL, ImageFailed, build
from atelier_runner.languages import read_catalogue

from .finished import finished, sandbox_of

LIMITS = Limits(wall_seconds=5, cpu_seconds=1, memory_mb=96, processes=24, disk_mb=8)
pytestmark = pytest.mark.docker


def python(program: str, limits: Limits = LIMITS) -> Spec:
    return Spec("python", "main.py", {"main.py": program.encode()}, limits, stdin=b"")


@pytest.fixture
def engine(docker_socket: str) -> Iterator[Engine]:
    """The engine itself, to look behind the carrier."""
    opened = Engine(docker_socket)
    yield opened
    opened.close()


def ours(engine: Engine, runner: str | None = None) -> list[str]:
    """Return the containers that this process, or another runner, has."""
    return [
        cid
        for cid, labels in engine.containers(RUNNER_LABEL)
        if labels[RUNNER_LABEL] == (runner or identity())
    ]


def waiting(backend: Backend) -> list[str]:
    """Return the containers that wait."""
    carrier = backend._carrier
    assert isinstance(carrier, DockerCarrier)
    found = [one for stock in carrier._stocks.values() for one in stock.pool._idle]
    return [one.id for one in found if isinstance(one, DockerSandbox)]


def piece(stream: int, data: bytes) -> bytes:
    return struct.pack(">BxxxI", stream, len(data)) + data


@pytest.mark.parametrize("seed", range(5))
async def test_the_stream_is_taken_apart_wherever_it_is_cut(seed: int) -> None:
    chance = random.Random(seed)
    sent = [(chance.choice((1, 1, 2, 3)), chance.randbytes(chance.randrange(300))) for _ in range(80)]
    stream = b"".join(piece(*one) for one in sent)
    reader = asyncio.StreamReader()
    taker = Demultiplexer(reader)
    while stream:
        size = chance.randrange(1, 40)
        taker.data_received(stream[:size])
        stream = stream[size:]
    reader.feed_eof()
    assert await reader.read() == b"".join(data for kind, data in sent if kind == 1)
    assert taker.said == b"".join(data for kind, data in sent if kind == 2)[:KEPT]


async def test_a_flood_of_the_agent_s_own_standard_error_ends_the_run(docker_socket: str) -> None:
    async with open_docker(docker_socket, limits=LIMITS) as backend:
        program = "file = open('/proc/1/fd/2', 'wb', buffering=0)\nwhile True: file.write(bytes(65536))"
        _, _, result = await finished(backend, python(program))
        assert result.reason is Reason.LOST
        assert result.wall_seconds < 2
        assert (await finished(backend, python("print('hi')")))[0] == b"hi\n"


async def test_nothing_is_left_of_runs_and_of_what_waited(docker_socket: str, engine: Engine) -> None:
    async with open_docker(docker_socket, limits=LIMITS) as backend:
        handles = 0
        for _ in range(3):  # in the first the connections to the engine are made that then stay
            await asyncio.gather(*(finished(backend, python("print(1)")) for _ in range(4)))
            await backend.warm()
            handles = handles or len(os.listdir("/proc/self/fd"))
        run = await backend.start(python("import time; time.sleep(60)"))
        assert len(ours(engine)) >= 2
        await backend.cancel(run)
        await backend.warm()
        async with asyncio.timeout(10):
            while set(ours(engine)) - set(waiting(backend)):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert len(os.listdir("/proc/self/fd")) <= handles + 4
    assert ours(engine) == []


async def test_a_waiting_container_that_dies_is_replaced(docker_socket: str, engine: Engine) -> None:
    async with open_docker(docker_socket, limits=LIMITS) as backend:
        await backend.warm()
        doomed = set(waiting(backend))
        for container in doomed:
            engine.remove(container)
        async with asyncio.timeout(10):
            while doomed & set(waiting(backend)) or len(waiting(backend)) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert (await finished(backend, python("print('hi')")))[0] == b"hi\n"


async def test_containers_wait_for_the_languages_that_were_used_last(docker_socket: str) -> None:
    async with open_docker(docker_socket, limits=LIMITS, pool_size=1, pool_languages=1) as backend:
        await backend.warm()
        before = waiting(backend)
        spec = Spec("bash", "m.sh", {"m.sh": b"echo $0"}, LIMITS, stdin=b"")
        assert (await finished(backend, spec))[0] == b"m.sh\n"
        await backend.warm()
        assert len(waiting(backend)) == 1
        assert waiting(backend) != before


# Opens a carrier, starts a program that never ends and says so; then it is killed.
KILLED = """
import asyncio, sys
from atelier_runner import Output, Spec, open_docker
from atelier_runner.docker_carrier import identity
async def main():
    async with open_docker(sys.argv[1]) as backend:
        await backend.warm()
        run = await backend.start(Spec("python", "m.py", {"m.py": b"import time; print(1, flush=True); time.sleep(600)"}))
        async for event in backend.events(run):
            if isinstance(event, Output):
                print(identity(), flush=True)
asyncio.run(main())
"""


async def test_a_killed_runner_leaves_no_program_and_the_next_start_removes_the_rest(
    docker_socket: str, engine: Engine
) -> None:
    async with open_docker(docker_socket, limits=LIMITS) as neighbour:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", KILLED, docker_socket, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        runner = (await process.stdout.readline()).decode().strip()
        left = ours(engine, runner)
        assert left
        process.send_signal(signal.SIGKILL)
        await process.wait()
        async with asyncio.timeout(10):
            while any(engine.state(container).running for container in left):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await neighbour.warm()
        alive = waiting(neighbour)
        async with open_docker(docker_socket, limits=LIMITS):
            assert ours(engine, runner) == []
            assert set(alive) <= set(ours(engine))
        assert (await finished(neighbour, python("print('hi')")))[0] == b"hi\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def far(docker_socket: str) -> AsyncIterator[Backend]:
    """A carrier whose engine's control groups cannot be seen from here."""
    async with open_docker(docker_socket, limits=LIMITS, read_groups=False) as opened:
        yield opened


BUSY = replace(LIMITS, cpu_seconds=0.4, wall_seconds=30)  # a machine with much to do gives it little
CHILDREN = "import os, time\nfor _ in range(8):\n    if not os.fork():\n        x = bytearray(40 << 20); x[::4096] = b'x' * len(x[::4096]); time.sleep(9)\ntime.sleep(9)"
HOG = "x = []\nwhile True: x.append(bytearray(1 << 20))"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("program", "limits", "reason"),
    [
        ("print(1)", LIMITS, Reason.EXITED),
        (HOG, LIMITS, Reason.MEMORY),
        (HOG, replace(LIMITS, memory_mb=48), Reason.MEMORY),
        (CHILDREN, LIMITS, Reason.MEMORY),
        ("import os; os.fork()\nwhile True: pass", BUSY, Reason.CPU_TIME),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", LIMITS, Reason.SIGNALLED),
    ],
)
async def test_with_the_engine_s_counts_alone_the_reasons_are_the_same(
    far: Backend, program: str, limits: Limits, reason: Reason
) -> None:
    _, _, result = await finished(far, python(program, limits))
    assert result.reason is reason, result


@pytest.mark.asyncio(loop_scope="module")
async def test_with_the_engine_s_counts_alone_the_doctor_says_partial(far: Backend) -> None:
    controls = {control.name: control for control in (await far.capabilities()).controls}
    assert controls["cpu time"].state == "partial"
    assert controls["cpu time"].detail == StatsMeter.by
    assert controls["memory"].state == controls["processes"].state == "enforced"


async def test_where_no_engine_answers_it_says_so() -> None:
    with pytest.raises(SandboxUnavailable, match="No Docker engine answers") as refused:
        async with open_backend("docker:///nowhere/docker.sock"):
            pass
    assert "docker:///path" in refused.value.hint


async def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "docker", None)
    with pytest.raises(SandboxUnavailable) as refused:
        async with open_backend("docker://"):
            pass
    assert "atelier-runner[docker]" in refused.value.hint


async def test_a_runtime_that_the_engine_lacks_is_refused_with_what_there_is(docker_socket: str) -> None:
    with pytest.raises(SandboxUnavailable, match=r"no runtime 'none-such'; there is: .*runc"):
        async with open_backend(f"docker://{docker_socket}?runtime=none-such"):
            pass


@pytest.mark.parametrize(
    "url", ["http://x", "docker://host/x", "docker:///x?speed=9", "embedded://?runtime=runsc"]
)
async def test_an_address_that_makes_no_sense_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"docker://|does not take"):
        async with open_backend(url):
            pass


async def test_an_address_opens_either_carrier(docker_socket: str) -> None:
    for url in (f"docker://{docker_socket}?runtime=runc", "embedded://"):
        async with open_backend(url, limits=LIMITS) as backend:
            assert (await finished(backend, python("print('hi')")))[0] == b"hi\n"


async def test_in_untrusted_mode_it_runs_where_no_control_is_absent(docker_socket: str) -> None:
    async with open_docker(docker_socket, limits=LIMITS, untrusted=True) as backend:
        assert (await finished(backend, python("print('hi')")))[0] == b"hi\n"


async def test_a_language_without_an_image_says_how_to_build_it(docker_socket: str) -> None:
    async with open_docker(docker_socket, limits=LIMITS, pool_size=1) as backend:
        languages = {info.name: info for info in (await backend.capabilities()).languages}
    assert languages.keys() == read_catalogue().keys()
    assert languages["python"].version.startswith("3.")
    for name, info in languages.items():
        assert info.version or info.hint == f"Build its image: python -m atelier_runner.images build {name}"


async def test_output_that_nobody_reads_holds_its_own_program_up(docker_socket: str) -> None:
    async with open_docker(docker_socket, limits=LIMITS) as backend:
        limits = replace(LIMITS, output_bytes=1 << 30, wall_seconds=20)
        run = await backend.start(python("import sys\nfor n in range(99): print('x' * 99_999)", limits))
        await asyncio.sleep(0.3)
        sandbox = sandbox_of(backend, run)
        assert len(sandbox.reader._buffer) < 2 << 20
        size = 0
        async with contextlib.aclosing(backend.events(run)) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Output):
                    size += len(event.data)
        assert size == 99 * 100_000


async def test_an_image_says_its_version_and_is_built_once(engine: Engine) -> None:
    before = engine.images(f"{LANGUAGE_LABEL}=bash")
    said: list[str] = []
    version = await asyncio.to_thread(build, engine, "bash", say=said.append)
    assert version == before[0][1]["atelier.version"]
    assert before[0][1]["atelier.tool"] == "/usr/bin/bash"
    assert said == []
    assert engine.images(f"{LANGUAGE_LABEL}=bash") == before


async def test_a_build_that_fails_says_where(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "lua").mkdir()
    (tmp_path / "lua/Dockerfile").write_text(f"FROM {BASE}\nRUN echo the mirror is away && false\n")
    with pytest.raises(ImageFailed, match=r"(?s)lua could not be built: .*false.*the mirror is away"):
        await asyncio.to_thread(build, engine, "lua", network="none", folder=tmp_path)


async def test_an_image_without_its_toolchain_is_refused(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "lua").mkdir()
    (tmp_path / "lua/Dockerfile").write_text(f"FROM {BASE}\nUSER 1000:1000\n")
    with pytest.raises(ImageFailed, match=r"lua5.4 in the image says no version"):
        await asyncio.to_thread(build, engine, "lua", folder=tmp_path)
