"""What every sandbox promises to the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from atelier.errors import AtelierError
from atelier.sandbox import (
    Changed,
    Collect,
    Collected,
    Event,
    Exited,
    LeftOut,
    Output,
    Reason,
    RunLimits,
    RunSpec,
    Sandbox,
    Started,
    Window,
    open_sandbox,
)

LIMITS = RunLimits(
    wall_seconds=10, cpu_seconds=5, memory_mb=128, processes=16, disk_mb=8, output_bytes=100_000
)


@pytest_asyncio.fixture(params=["embedded://"])
async def sandbox(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    """An open sandbox of each kind."""
    async with open_sandbox(request.param) as opened:
        yield opened


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
    return [event async for event in sandbox.events(await sandbox.start(run))]


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
    run = await sandbox.start(spec("import sys; print(sys.stdin.read().upper())", stdin=None))
    await sandbox.write(run, b"hel")
    await sandbox.write(run, b"lo", close=True)
    events = [event async for event in sandbox.events(run)]
    assert b"".join(e.data for e in events if isinstance(e, Output)) == b"HELLO\n"
    await sandbox.write(run, b"too late")


async def test_cancel_ends_all_of_its_processes(sandbox: Sandbox) -> None:
    program = "import os, time\nfor _ in range(3): os.fork()\nprint('on', flush=True)\ntime.sleep(60)"
    run = await sandbox.start(spec(program, stdin=None))
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
        await sandbox.start(run)
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
    await sandbox.place(run, {"notes": b"new\n", "more/here": b"also\n"})
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
