"""What every sandbox promises to the server."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest
import pytest_asyncio
from deploy.stores import Redis

from atelier.errors import AtelierError
from atelier.sandbox import (
    BuildLimits,
    CellEnded,
    CellLimits,
    CellValue,
    Changed,
    Collect,
    Collected,
    Event,
    Exited,
    LeftOut,
    Outcome,
    Output,
    Reason,
    RunLimits,
    RunSpec,
    Sandbox,
    Started,
    Turn,
    Window,
    open_sandbox,
)

from ..runner_service import SECRET, RunnerService, runner_service

LIMITS = RunLimits(
    wall_seconds=10, cpu_seconds=5, memory_mb=128, processes=16, disk_mb=8, output_bytes=100_000
)


@pytest.fixture(scope="module")
def service() -> Iterator[RunnerService]:
    """A runner service."""
    with runner_service() as running:
        yield running


@pytest.fixture(scope="module")
def fleet(redis_server: Redis) -> Iterator[str]:
    """Two runners that have registered; returns where."""
    joined = ("--join", redis_server.url, "--runs", "32")
    with runner_service(*joined), runner_service(*joined):
        yield redis_server.url


@pytest_asyncio.fixture(params=["embedded://", "http://", "redis://"])
async def sandbox(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    """An open sandbox of each kind."""
    match request.param:
        case "http://":
            url = request.getfixturevalue("service").url
        case "redis://":
            url = request.getfixturevalue("fleet")
        case _:
            url = request.param
    async with open_sandbox(url, SECRET) as opened:
        yield opened


async def start(sandbox: Sandbox, run: RunSpec) -> str:
    """Begin a run when it has its turn."""
    await sandbox.turns.put(Turn(f"run-{secrets.token_hex(8)}", "ada", language="python"))
    turn = await sandbox.turns.take()
    try:
        return await sandbox.start(run, turn.place)
    finally:
        await sandbox.turns.done(turn)


def spec(program: str, stdin: bytes | None = b"", limits: RunLimits = LIMITS) -> RunSpec:
    return RunSpec(
        "python",
        "main.py",
        {"main.py": program.encode(), "pkg/mod.py": b"x = 42"},
        limits,
        ("a b", "$HOME"),
        stdin,
    )


async def play(sandbox: Sandbox, run: RunSpec) -> list[Event]:
    return [event async for event in sandbox.events(await start(sandbox, run))]


async def test_events_are_numbered_start_with_started_and_end_with_exited_once(sandbox: Sandbox) -> None:
    events = await play(sandbox, spec("import sys, pkg.mod; print(pkg.mod.x, sys.argv[1:]); sys.exit(3)"))
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert isinstance(events[0], Started)
    assert [event for event in events if isinstance(event, Exited)] == [events[-1]]
    last = events[-1]
    assert isinstance(last, Exited)
    assert (last.reason, last.code) == (Reason.EXITED, 3)
    printed = b"".join(event.data for event in events if isinstance(event, Output))
    assert printed == b"42 ['a b', '$HOME']\n"


async def test_input_can_be_written_and_closed_while_it_runs(sandbox: Sandbox) -> None:
    run = await start(sandbox, spec("import sys; print(sys.stdin.read().upper())", stdin=None))
    await sandbox.write(run, b"hel")
    await sandbox.write(run, b"lo", close=True)
    events = [event async for event in sandbox.events(run)]
    assert b"".join(e.data for e in events if isinstance(e, Output)) == b"HELLO\n"
    await sandbox.write(run, b"too late")


async def test_cancel_ends_all_of_its_processes(sandbox: Sandbox) -> None:
    program = "import os, time\nfor _ in range(3): os.fork()\nprint('on', flush=True)\ntime.sleep(60)"
    run = await start(sandbox, spec(program, stdin=None))
    seen: list[Event] = []
    async for event in sandbox.events(run):
        seen.append(event)
        if isinstance(event, Output):
            await sandbox.cancel(run)
    last = seen[-1]
    assert isinstance(last, Exited)
    assert last.reason is Reason.CANCELLED
    await sandbox.cancel(run)


async def test_files_come_back_whole_after_the_output_and_within_their_bounds(sandbox: Sandbox) -> None:
    program = """
import os
open('big', 'wb').write(bytes(300_000)); open('pkg/mod.py', 'a').write('# more')
os.remove('gone'); os.symlink('/etc/passwd', 'link'); open('larger', 'wb').write(bytes(500_000))
print('written')
"""
    files = {"main.py": program.encode(), "pkg/mod.py": b"x = 1", "gone": b"", "same": b"s"}
    run = RunSpec("python", "main.py", files, LIMITS, stdin=b"", collect=Collect(10, 400_000, 1_000_000))
    events = await play(sandbox, run)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    others = [type(event) for event in events if not isinstance(event, Output)]
    assert others == [Started, Changed, Changed, Changed, Exited]
    assert not any(isinstance(event, Output) for event in events[-4:])
    changed = {event.path: event.data for event in events if isinstance(event, Changed)}
    assert changed == {"big": bytes(300_000), "pkg/mod.py": b"x = 1# more", "gone": None}
    last = events[-1]
    assert isinstance(last, Exited)
    left_out = (LeftOut("larger", "too_large"), LeftOut("link", "link"))
    assert last.collected == Collected(complete=True, left_out=left_out, count=2)


async def test_no_files_come_back_that_nobody_asked_for(sandbox: Sandbox) -> None:
    events = await play(sandbox, spec("open('new', 'w').write('x')"))
    assert [type(event) for event in events] == [Started, Exited]
    assert isinstance(events[-1], Exited)
    assert events[-1].collected is None


async def test_a_signal_reaches_the_program_and_what_it_started(sandbox: Sandbox) -> None:
    program = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGINT, lambda *_: (os.write(1, b'caught\\n'), os._exit(7)))\n"
        "os.write(1, b'on\\n')\nsys.stdin.read()"
    )
    run = await start(sandbox, spec(program, stdin=None))
    printed = b""
    last: Event | None = None
    async for event in sandbox.events(run):
        if isinstance(event, Output):
            printed += event.data
            if b"on" in event.data:
                await sandbox.signal(run, "INT")
        last = event
    assert isinstance(last, Exited)
    assert (printed, last.reason, last.code) == (b"on\ncaught\n", Reason.EXITED, 7)
    await sandbox.signal(run, "INT")


async def test_a_signal_that_ends_it_is_its_reason_and_an_unknown_one_is_refused(sandbox: Sandbox) -> None:
    run = await start(sandbox, spec("import os, time; os.write(1, b'on'); time.sleep(60)", stdin=None))
    last: Event | None = None
    async for event in sandbox.events(run):
        if isinstance(event, Output):  # one, as it is one write
            with pytest.raises(AtelierError) as refused:
                await sandbox.signal(run, "RTMIN")
            assert refused.value.code == "signal_unknown"
            await sandbox.signal(run, "TERM")
        last = event
    assert isinstance(last, Exited)
    assert (last.reason, last.signal) == (Reason.SIGNALLED, "SIGTERM")


async def test_large_files_and_any_bytes_arrive_whole(sandbox: Sandbox) -> None:
    large = bytes(range(256)) * 4096 * 6
    program = b"import hashlib; print(hashlib.sha256(open('d\xc3\xbcr/large','rb').read()).hexdigest())"
    asked = RunSpec("python", "m.py", {"m.py": program, "d\u00fcr/large": large}, LIMITS, stdin=b"\0\xff")
    printed = b"".join(e.data for e in await play(sandbox, asked) if isinstance(e, Output))
    assert printed.decode().strip() == hashlib.sha256(large).hexdigest()


async def test_input_of_any_bytes_arrives_in_order_while_the_program_reads_slowly(sandbox: Sandbox) -> None:
    program = (
        "import hashlib, sys, time\nh = hashlib.sha256()\n"
        "while data := sys.stdin.buffer.read1(100_000):\n    h.update(data); time.sleep(0.001)\n"
        "print(h.hexdigest())"
    )
    data = os.urandom(3_000_000)
    run = await start(sandbox, spec(program, stdin=None))

    async def type_it() -> None:
        for start in range(0, len(data), 300_000):
            await sandbox.write(run, data[start : start + 300_000], close=start + 300_000 >= len(data))

    typing = asyncio.create_task(type_it())
    printed = b"".join([e.data async for e in sandbox.events(run) if isinstance(e, Output)])
    await typing
    assert printed.decode().strip() == hashlib.sha256(data).hexdigest()


async def test_a_reader_who_does_not_read_holds_the_program_up(sandbox: Sandbox) -> None:
    roomy = replace(LIMITS, output_bytes=64 << 20, wall_seconds=20)
    program = "import sys\nfor n in range(3000): sys.stdout.write('x' * 9_999 + '\\n')\nopen('done', 'w')"
    run = await start(sandbox, spec(program, limits=roomy))
    events = sandbox.events(run)
    first = [await anext(events), await anext(events)]
    await asyncio.sleep(1)
    size, last = sum(len(e.data) for e in first if isinstance(e, Output)), first[-1]
    async for event in events:
        last = event
        size += len(event.data) if isinstance(event, Output) else 0
    assert isinstance(last, Exited)
    assert (last.code, size) == (0, 30_000_000)
    assert last.wall_seconds > 1


async def test_runs_side_by_side_see_nothing_of_each_other(sandbox: Sandbox) -> None:
    program = "import os; open('/tmp/mark', 'x'); open('mark', 'x'); print(sorted(os.listdir('/tmp')), len([p for p in os.listdir('/proc') if p.isdigit()]) < 6)"
    outcomes = await asyncio.gather(*(play(sandbox, spec(program)) for _ in range(4)))
    for events in outcomes:
        assert b"".join(e.data for e in events if isinstance(e, Output)) == b"['mark'] True\n"


@pytest.mark.parametrize(
    ("run", "code"),
    [
        (RunSpec("cobol", "x", {"x": b""}, LIMITS), "language_unknown"),
        (RunSpec("python", "../x", {"../x": b""}, LIMITS), "path_invalid"),
        (RunSpec("python", "none", {}, LIMITS), "entry_not_found"),
        (RunSpec("python", "x", {"x": b""}, RunLimits(float("nan"), 1, 1, 1, 1, 1)), "limit_invalid"),
    ],
)
async def test_bad_runs_are_refused_by_name(sandbox: Sandbox, run: RunSpec, code: str) -> None:
    with pytest.raises(AtelierError) as refused:
        await start(sandbox, run)
    assert refused.value.code == code


async def test_capabilities_name_every_control_and_language(sandbox: Sandbox) -> None:
    found = await sandbox.capabilities()
    assert found.available, found.hint
    assert {control.state for control in found.controls} <= {"enforced", "partial", "absent"}
    assert {"python", "javascript", "typescript", "bash"} <= {
        language.name for language in found.languages if language.version
    }


async def test_a_terminal_takes_keys_a_size_and_new_files(sandbox: Sandbox) -> None:
    shell = RunSpec("bash", "", {"notes": b"old\n"}, LIMITS, terminal=Window(80, 24))
    run = await sandbox.start(shell)
    await sandbox.resize(run, Window(100, 30))
    await sandbox.bring(run, {"notes": b"new\n", "more/here": b"also\n"})
    await sandbox.write(run, b"stty size; cat notes more/here; exit 4\n")
    printed, last = b"", None
    async for last in sandbox.events(run):
        if isinstance(last, Output):
            assert last.stream == "terminal"
            printed += last.data
    assert b"30 100\r\nnew\r\nalso\r\n" in printed
    assert isinstance(last, Exited)
    assert last.code == 4


@pytest.mark.parametrize("window", [Window(0, 1), Window(1, 0), Window(10**6, 1)])
async def test_a_size_that_no_terminal_has_is_refused(sandbox: Sandbox, window: Window) -> None:
    with pytest.raises(AtelierError) as refused:
        await sandbox.start(RunSpec("bash", "", {}, LIMITS, terminal=window))
    assert refused.value.code == "window_invalid"


async def test_compiling_has_limits_of_its_own(sandbox: Sandbox) -> None:
    program = (
        b"#include <stdio.h>\nint a[] = {" + b"1," * 300_000 + b'};\nint main(void) { puts("built"); }\n'
    )
    small = replace(LIMITS, memory_mb=32)
    for build, printed in ((BuildLimits(30, 30, 1024, 64), b"built\n"), (None, b"")):
        run = RunSpec("c", "main.c", {"main.c": program}, small, stdin=b"", build=build)
        events = await play(sandbox, run)
        assert b"".join(e.data for e in events if isinstance(e, Output) and e.stream == "stdout") == printed


async def test_an_interpreter_runs_cells_in_order_and_is_interrupted(sandbox: Sandbox) -> None:
    bounds = CellLimits(wall_seconds=8, output_bytes=100_000, value_bytes=1 << 20)
    run = await start(
        sandbox,
        RunSpec(
            "python", "", {"mod.py": b"word = 'first'"}, LIMITS, collect=Collect(9, 999, 999), cells=bounds
        ),
    )
    await sandbox.cell(run, 1, "", "import mod\nprint(mod.word)\nx = 6")
    await sandbox.cell(run, 1, "", "print('asked twice')")
    await sandbox.cell(run, 2, "", "x / 0")
    await sandbox.cell(run, 3, "", "print('up')\nwhile True: pass")
    await sandbox.cell(run, 4, "", "name = input()\n(name, x * 7, open('new.txt').read())")
    await sandbox.cell(run, 5, "", "class T:\n    def _repr_html_(self): return '<b>é</b>' * 50_000\nT()")
    printed: dict[int, bytes] = {}
    values, ended, last = [], [], None
    async for last in sandbox.events(run):
        match last:
            case Output():
                printed[last.cell] = printed.get(last.cell, b"") + last.data
                if printed[last.cell] == b"up\n":
                    await sandbox.bring(run, {"new.txt": b"brought"})
                    await sandbox.interrupt(run, 3)
            case CellValue():
                values.append(last)
            case CellEnded():
                ended.append((last.cell, last.outcome))
                if last.cell == 3:
                    await sandbox.write(run, b"Ada\n")
                if last.cell == 2:
                    assert last.error is not None
                    assert (last.error.name, last.error.place) == ("ZeroDivisionError", (2, 1))
                if last.cell == 5:
                    await sandbox.cell(run, 6, "", "exit(4)")
    done = Outcome.DONE
    assert ended == [(1, done), (2, Outcome.ERROR), (3, Outcome.INTERRUPTED), (4, done), (5, done)]
    assert printed == {1: b"first\n", 3: b"up\n"}
    assert values[0].data == b"('Ada', 42, 'brought')"
    assert (values[2].media_type, values[2].data) == ("text/html", "<b>é</b>".encode() * 50_000)
    assert isinstance(last, Exited)
    assert (last.reason, last.code) == (Reason.EXITED, 4)


@pytest.mark.parametrize(("number", "code"), [(2, "x = 1"), (1, "#" * 200_000)])
async def test_a_cell_that_cannot_be_is_refused(sandbox: Sandbox, number: int, code: str) -> None:
    run = await start(sandbox, RunSpec("python", "", {}, LIMITS, cells=CellLimits(5, 1000, 1000)))
    with pytest.raises(AtelierError) as refused:
        await sandbox.cell(run, number, "", code)
    assert refused.value.code == "cell_invalid"
    await sandbox.cancel(run)
    _ = [event async for event in sandbox.events(run)]
