"""What a program wrote comes back: all of it that was promised, nothing that is not its own, and never without an end."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from atelier_runner import Backend, Changed, Collect, Exited, Limits, Output, Reason, Spec, agent

from .finished import collected

sys.path.append(str(Path(agent.__file__).parent))  # as inside, where its parts find each other so
agent_side = importlib.import_module("collect")

LIMITS = Limits(wall_seconds=5, cpu_seconds=4, memory_mb=192, processes=24, disk_mb=16, output_bytes=100_000)
pytestmark = pytest.mark.asyncio(loop_scope="module")


def spec(
    program: str,
    *,
    files: dict[str, bytes] | None = None,
    limits: Limits = LIMITS,
    collect: Collect | None = None,
    language: str = "python",
) -> Spec:
    entry = {"python": "main.py", "bash": "main.sh", "c": "main.c"}[language]
    laid = {entry: program.encode(), **(files or {})}
    return Spec(language, entry, laid, limits, stdin=b"", collect=collect or Collect())


def reasons(result: Exited) -> Counter[str]:
    assert result.collected is not None
    return Counter(item.code for item in result.collected.left_out)


async def test_new_changed_and_deleted_files_come_back_and_the_others_do_not(backend: Backend) -> None:
    program = """
import os, pathlib, shutil
pathlib.Path('deep/er').mkdir(parents=True)
pathlib.Path('deep/er/new.bin').write_bytes(bytes(range(256)) * 2000)
pathlib.Path('empty').touch()
open('old.txt', 'a').write('more')
os.rename('from.txt', 'to.txt')
shutil.rmtree('folder')
pathlib.Path('touched').touch()
pathlib.Path('rewritten').write_bytes(pathlib.Path('rewritten').read_bytes())
import helper
"""
    laid = {
        "old.txt": b"old ",
        "from.txt": b"moved",
        "folder/x": b"",
        "touched": b"t",
        "rewritten": b"r",
        "same": b"s",
        "helper.py": b"",
    }
    files, result = await collected(backend, spec(program, files=laid))
    assert files == {
        "deep/er/new.bin": bytes(range(256)) * 2000,
        "empty": b"",
        "old.txt": b"old more",
        "to.txt": b"moved",
        "from.txt": None,
        "folder/x": None,
    }
    assert result.collected is not None
    assert result.collected.complete
    assert result.collected.count == 0


async def test_a_change_that_no_time_shows_is_found(backend: Backend) -> None:
    program = """
import mmap, os
before = os.stat('data')
with open('data', 'r+b') as file, mmap.mmap(file.fileno(), 0) as pages:
    pages[0:3] = b'new'
os.utime('data', ns=(before.st_atime_ns, before.st_mtime_ns))
assert os.stat('data').st_mtime_ns == before.st_mtime_ns and os.stat('data').st_size == before.st_size
"""
    files, _ = await collected(backend, spec(program, files={"data": b"old" * 9}))
    assert files == {"data": b"new" + b"old" * 8}


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("open('kept', 'w').write('x')\nwhile True: pass", Reason.CPU_TIME),
        ("open('kept', 'w').write('x')\nimport time; time.sleep(60)", Reason.WALL_TIME),
        ("open('kept', 'w').write('x')\nwhile True: print('y' * 999)", Reason.OUTPUT),
        ("open('kept', 'w').write('x')\nimport os; os.abort()", Reason.SIGNALLED),
        ("open('kept', 'w').write('x')\n1 / 0", Reason.EXITED),
    ],
)
async def test_they_come_also_after_a_limit_or_an_error(
    backend: Backend, program: str, reason: Reason
) -> None:
    limits = Limits(1.5 if reason is Reason.WALL_TIME else 15, 0.7, 96, 24, 8, 10_000)
    for attempt in range(3):  # on a machine with much to do the agent may not get to it in time
        begun = time.monotonic()
        files, result = await collected(backend, spec(program, limits=limits))
        assert result.reason is reason
        assert time.monotonic() - begun < limits.wall_seconds + 2
        if result.collected is not None or attempt == 2:
            break
    assert files == {"kept": b"x"}


async def test_what_a_cancelled_run_wrote_comes_back_and_it_is_dead_at_once(backend: Backend) -> None:
    program = "import os, time\nopen('kept', 'w').write('x')\nfor _ in range(3): os.fork()\nprint(1, flush=True)\ntime.sleep(60)"
    for attempt in range(3):  # as above
        run = await backend.start(spec(program))
        files: dict[str, bytes | None] = {}
        async for event in backend.events(run):
            if isinstance(event, Output):
                await backend.cancel(run)
                begun = time.monotonic()
            elif isinstance(event, Changed):
                files[event.path] = event.data
        assert isinstance(event, Exited)
        assert event.reason is Reason.CANCELLED
        assert time.monotonic() - begun < 2
        if event.collected is not None or attempt == 2:
            break
    assert files == {"kept": b"x"}


async def test_who_leaves_gets_no_files_and_holds_nothing_up(backend: Backend) -> None:
    run = await backend.start(spec("open('x', 'w')\nprint(1, flush=True)\nimport time; time.sleep(60)"))
    events = backend.events(run)
    async for event in events:
        if isinstance(event, Output):
            break
    await events.aclose()  # type: ignore[attr-defined]
    begun = time.monotonic()
    files, _ = await collected(backend, spec("open('y', 'w')"))
    assert files == {"y": b""}
    assert time.monotonic() - begun < 3


async def test_what_was_not_compiled_hands_nothing_back(backend: Backend) -> None:
    files, result = await collected(backend, spec("int main( {", language="c"))
    assert (files, result.collected) == ({}, None)


ATTACKS = {
    "links to what lies outside": (
        "import os\nos.symlink('/etc/passwd', 'a'); os.symlink('/proc/1/environ', 'b'); os.symlink('/', 'c'); os.symlink('nowhere', 'd')",
        {"link": 4},
    ),
    "magic links": (
        "import os\nos.symlink('/proc/self/fd/0', 'a'); os.symlink('/proc/self/root', 'b'); os.symlink('/proc/1/cwd/main.py', 'c')",
        {"link": 3},
    ),
    "the entry becomes a link": (
        "import os\nos.unlink('main.py'); os.symlink('/etc/passwd', 'main.py')",
        {"link": 1},
    ),
    "a folder becomes a link": (
        "import os, shutil\nshutil.rmtree('folder'); os.symlink('/usr', 'folder')",
        {"link": 1},
    ),
    "pipes and sockets": (
        "import os, socket\nos.mkfifo('a'); socket.socket(socket.AF_UNIX).bind('s')\nos.mkfifo('b', 0)",
        {"special": 3},
    ),
    "hard links": ("import os\nopen('a', 'w').write('x'); os.link('a', 'b')", {"hard_link": 2}),
    "names that are not UTF-8": (
        "import os\nopen(b'\\xff\\xfe', 'w'); os.mkdir(b'd\\xff'); open(b'd\\xff/x', 'w')",
        {"name": 2},
    ),
    "names that are too long": (
        "import os\nfor _ in range(8):\n    os.mkdir('n' * 200); os.chdir('n' * 200)\nopen('x', 'w')",
        {"name": 1},
    ),
    "sparse giants": ("for i in range(40): open(f's{i}', 'wb').truncate(15 << 20)", {"too_large": 40}),
    "deep nesting": ("import os\nfor _ in range(400):\n    os.mkdir('d'); os.chdir('d')\nopen('x', 'w')", {"too_deep": 1}),
    "a file that lies about nothing but is too large": (
        "open('a', 'wb').write(bytes(3 << 20)); open('b', 'wb').truncate(9 << 20)",
        {"too_large": 2},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(ATTACKS))
async def test_each_is_left_out_and_counted(backend: Backend, name: str) -> None:
    program, expected = ATTACKS[name]
    wanted = Collect(file_bytes=2 << 20)
    laid = {"folder/passwd": b"mine"}
    files, result = await collected(backend, spec(program, files=laid, collect=wanted))
    assert result.collected is not None, result
    assert result.collected.complete
    assert reasons(result) == expected
    assert set(files) <= {"folder/passwd"}, "nothing of it came"
    assert files.get("folder/passwd") is None


async def test_what_was_locked_away_comes_all_the_same(backend: Backend) -> None:
    program = """
import os
os.makedirs('a/b')
open('a/b/x', 'w').write('found')
open('y', 'w').write('too')
for path in ('a/b/x', 'a/b', 'a', 'y', '.'):
    os.chmod(path, 0)
"""
    files, result = await collected(backend, spec(program))
    assert files == {"a/b/x": b"found", "y": b"too"}
    assert reasons(result) == {}


async def test_what_tools_leave_behind_is_ignored(backend: Backend) -> None:
    program = """
import os
for folder in ('__pycache__', '.git', 'node_modules/deep', 'pkg/__pycache__'):
    os.makedirs(folder)
    open(folder + '/x', 'w').write('x')
open('a.pyc', 'w')
os.remove('node_modules/laid')
"""
    files, result = await collected(
        backend, spec(program.replace("os.makedirs(folder)", "os.makedirs(folder, exist_ok=True)"), files={"node_modules/laid": b""})
    )  # fmt: skip
    assert files == {}
    assert reasons(result) == {}


async def test_a_hundred_thousand_files_and_too_much_together_end_at_the_bounds(
    backend: Backend,
) -> None:
    program = "import os\nos.mkdir('many')\nfor i in range(100_000):\n    os.close(os.open(f'many/{i}', os.O_CREAT | os.O_WRONLY))\nprint('made')"
    limits = Limits(20, 15, 512, 24, 64, 100_000)
    wanted = Collect(files=50, entries=2_000)
    begun = time.monotonic()
    files, result = await collected(backend, spec(program, limits=limits, collect=wanted))
    assert len(files) == 50
    assert result.collected is not None
    assert result.collected.complete
    assert set(reasons(result)) == {"too_many"}
    assert 1_500 < result.collected.count < 2_100
    assert len(result.collected.left_out) == 50
    assert time.monotonic() - begun < 20
    program = "for i in range(6): open(f'f{i}', 'wb').write(bytes(1 << 20))"
    files, result = await collected(backend, spec(program, collect=Collect(total_bytes=4 << 20)))
    assert (len(files), reasons(result)) == (4, {"too_much": 2})


async def test_a_daemon_that_swaps_folders_is_dead_before_anything_is_looked_at(
    backend: Backend,
) -> None:
    program = """
import os, time
os.mkdir('d'); open('d/passwd', 'w').write('mine')
for _ in range(3):
    if not os.fork():
        os.setsid()
        while True:
            try:
                os.rename('d', 'e'); os.symlink('/etc', 'd'); os.unlink('d'); os.rename('e', 'd')
            except OSError:
                pass
            try:
                open('d/passwd', 'a').write('.')
            except OSError:
                pass
time.sleep(0.2)
"""
    files, result = await collected(backend, spec(program))
    assert result.reason is Reason.EXITED
    assert result.collected is not None
    assert result.collected.complete
    for path, data in files.items():
        assert path in {"d/passwd", "e/passwd"}
        assert data is not None
        assert data.startswith(b"mine")


async def test_the_walk_follows_no_link_even_while_folders_are_swapped(tmp_path: Path) -> None:
    """As if the daemon had survived: the walk itself must not leave its folder."""
    outside, work = tmp_path / "outside", tmp_path / "work"
    for folder in (outside, work / "d"):
        folder.mkdir(parents=True)
    (outside / "x").write_text("SECRET")
    (work / "d" / "x").write_text("mine")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(work / "d", work / "e")
            os.symlink(outside, work / "d")
            os.unlink(work / "d")
            os.rename(work / "e", work / "d")
            os.rename(work / "d" / "x", tmp_path / "x")
            os.symlink(outside / "x", work / "d" / "x")
            os.unlink(work / "d" / "x")
            os.rename(tmp_path / "x", work / "d" / "x")

    wanted = {"files": 9, "file_bytes": 99, "total_bytes": 999, "entries": 99, "ignored": []}
    sent: list[bytes] = []
    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for _ in range(500):
            agent_side.collect(str(work), wanted, agent_side.Laid(), lambda _, payload: sent.append(payload))
    finally:
        stop.set()
        swapping.join()
    assert any(b"mine" in payload for payload in sent)
    assert not any(b"SECRET" in payload for payload in sent)
    assert all(json.loads(payload) for payload in sent if payload.startswith(b"{"))


async def test_a_reader_that_takes_no_files_holds_nothing_up(backend: Backend) -> None:
    program = "for i in range(8): open(f'f{i}', 'wb').write(bytes(1 << 20))"
    run = await backend.start(spec(program, collect=Collect(seconds=0.5)))
    seen = [event async for event in backend.events(await backend.start(spec("print(1)")))]
    assert isinstance(seen[-1], Exited)
    events = []
    async for event in backend.events(run):
        events.append(event)
        if len(events) == 2:
            await asyncio.sleep(0.7)  # longer than the collection may take
    last = events[-1]
    assert isinstance(last, Exited)
    assert (last.reason, last.code) == (Reason.EXITED, 0)
    assert last.collected is not None
    assert not last.collected.complete
