"""A kept interpreter over every carrier: cells in order, values, errors, input, interrupts, bounds, its end; and attacks on it."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial

import pytest
import pytest_asyncio

from atelier_runner import Backend, CellLimits, Collect, LanguageUnknown, Outcome, Reason, Spec, SpecInvalid
from atelier_runner.model import CELL_BYTES, MOST_CELLS
from atelier_runner.run import Run

from .kept import LIFE, Kept

LIMITS = LIFE
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def kept(backend: Backend) -> AsyncIterator[Kept]:
    """An interpreter that lives as long as a test."""
    opened = await Kept.begin(backend)
    yield opened
    await opened.close()


# --- what it is for


async def test_cells_share_one_namespace_and_the_last_expression_is_the_value(kept: Kept) -> None:
    assert await kept.out("x = 20\nprint('set')") == "set\n"
    assert await kept.out("def double(n):\n    return 2 * n\ndouble(x) + 2") == "42"
    assert await kept.out("_ + 1") == "43"
    assert await kept.out("x;") == ""
    assert await kept.out("None") == ""
    assert await kept.out("") == ""
    assert await kept.out("__name__, open('notes.txt').read()") == "('__main__', 'first\\n')"
    assert kept.began == list(range(1, 8))


async def test_an_error_names_the_cell_and_the_line_and_ends_nothing(kept: Kept) -> None:
    await kept.cell("y = 7\n\ndef broken(n):\n    return n / 0")
    failed = await kept.cell("y += 1\nbroken(y)")
    assert (failed.outcome, failed.error is not None) == (Outcome.ERROR, True)
    assert failed.error is not None
    assert (failed.error.name, failed.error.place) == ("ZeroDivisionError", (1, 4))
    assert "Cell [2], line 2, in <module>\n    broken(y)" in failed.error.text
    assert "Cell [1], line 4, in broken\n    return n / 0" in failed.error.text
    assert "/opt/atelier" not in failed.error.text
    assert await kept.out("y") == "8"
    wrong = (await kept.cell("1 +\n(")).error
    assert wrong is not None
    assert (wrong.name, wrong.place) == ("SyntaxError", (4, 1))
    group = (await kept.cell("raise ValueError('a') from KeyError('b')")).error
    assert group is not None
    assert "direct cause" in group.text


async def test_it_may_await_at_the_top_and_tasks_go_on_with_the_next_cell_that_does(kept: Kept) -> None:
    assert (
        await kept.out("import asyncio\nawait asyncio.sleep(0.01)\nawait asyncio.sleep(0, 'slept')")
        == "'slept'"
    )
    await kept.cell("async def later():\n    await asyncio.sleep(0.05)\n    print('from two')\n")
    begun = await kept.cell("task = asyncio.create_task(later()); await asyncio.sleep(0)")
    assert await kept.out("await task\nprint('from four')") == "from four\n"
    await kept.until(lambda: kept.text(begun.cell) == "from two\n")
    number = await kept.send(
        "import sys\ntry:\n    print('up', file=sys.stderr)\n    await asyncio.sleep(60)\nfinally:\n    print('cleaned')"
    )
    await kept.until(lambda: kept.printed[number, "stderr"] == b"up\n")
    await kept.backend.interrupt(kept.run, number)
    await kept.until(lambda: number in kept.ended)
    assert (kept.ended[number].outcome, kept.text(number)) == (Outcome.INTERRUPTED, "cleaned\n")
    assert await kept.out("await asyncio.sleep(0, 5)") == "5"


async def test_input_reaches_the_cell_that_asks_and_no_other(kept: Kept) -> None:
    number = await kept.send("name = input('Who? ')\nf'Hello {name}'")
    await kept.until(lambda: kept.printed[number, "stdout"] == b"Who? ")
    await kept.backend.write(kept.run, "Ädä\nnobody asked\n".encode())
    await kept.until(lambda: number in kept.ended)
    assert kept.text(number) == "Who? 'Hello Ädä'"
    number = await kept.send("import sys\nsys.stdin.readline()")
    await kept.until(lambda: number in kept.began)
    await kept.backend.write(kept.run, b"second\n")
    await kept.until(lambda: number in kept.ended)
    assert kept.text(number) == "'second\\n'"


async def test_an_interrupt_ends_the_cell_and_keeps_the_variables(kept: Kept) -> None:
    number = await kept.send("n = 1\nprint('up')\nprint(input())\nwhile True:\n    pass")
    waiting = await kept.send("n + 1")
    await kept.until(lambda: b"up" in kept.printed[number, "stdout"])
    await kept.backend.interrupt(kept.run, waiting)  # it does not run
    await kept.backend.write(kept.run, b"after it\n")
    await kept.until(lambda: b"after it" in kept.printed[number, "stdout"])
    assert number not in kept.ended
    await kept.backend.interrupt(kept.run, number)
    await kept.until(lambda: waiting in kept.ended)
    interrupted = kept.ended[number]
    assert interrupted.outcome is Outcome.INTERRUPTED
    assert interrupted.error is not None
    assert interrupted.error.text.endswith("\nKeyboardInterrupt")
    assert kept.text(waiting) == "2"
    await kept.backend.interrupt(kept.run, number)  # it is over
    assert await kept.out("import subprocess; n") == "1"
    number = await kept.send("subprocess.run('echo up; exec sleep 60', shell=True)")
    await kept.until(lambda: kept.printed[number, "stdout"] == b"up\n")
    await kept.backend.interrupt(kept.run, number)
    await kept.until(lambda: number in kept.ended, 3)


async def test_values_come_in_their_richest_form(kept: Kept) -> None:
    await kept.cell(
        "class Table:\n    def __repr__(self): return 'plain'\n    def _repr_html_(self): return '<b>rich</b>'\n"
        "class Picture:\n    def _repr_svg_(self): return '<svg/>'\n    def _repr_png_(self): return b'no'\n"
        "class Broken(Table):\n    def _repr_html_(self): raise ValueError('oh')"
    )
    table = (await kept.cell("Table()")).cell
    assert [(v.role, v.media_type, v.data, v.instead) for v in kept.values[table]] == [
        ("value", "text/plain", b"plain", True),
        ("value", "text/html", b"<b>rich</b>", False),
    ]
    shown = (await kept.cell("display('a text', Picture(), 5)\n'end'")).cell
    assert [(v.role, v.media_type) for v in kept.values[shown]] == [
        ("display", "text/plain"),
        ("display", "text/plain"),
        ("display", "image/svg+xml"),
        ("display", "text/plain"),
        ("value", "text/plain"),
    ]
    broken = (await kept.cell("Broken()")).cell
    assert [v.media_type for v in kept.values[broken]] == ["text/plain"]
    assert b"_repr_html_ failed: ValueError: oh" in kept.printed[broken, "stderr"]
    large = (
        await kept.cell("class Large:\n    def _repr_png_(self): return bytes(range(256)) * 8000\nLarge()")
    ).cell
    assert kept.values[large][-1].data == bytes(range(256)) * 8000
    long = (await kept.cell("'x' * 1_000_000")).cell
    assert len(kept.values[long][0].data) < 70_000
    assert b"characters are left out" in kept.values[long][0].data


async def test_figures_are_shown_by_the_cell_that_makes_them(kept: Kept) -> None:
    figures = "import os\nf = os.environ['ATELIER_FIGURES']\nos.makedirs(f, exist_ok=True)\nfor n in (2, 1):\n    open(f'{f}/{n:03}.svg', 'w').write(f'<svg>{n}</svg>')"
    shown = (await kept.cell(figures)).cell
    assert [v.data for v in kept.values[shown]] == [b"<svg>1</svg>", b"<svg>2</svg>"]
    after = (await kept.cell("os.listdir(f)")).cell
    assert kept.text(after) == "[]"


async def test_what_outlives_its_cell_prints_to_it(kept: Kept) -> None:
    process = (
        await kept.cell(
            "import subprocess, threading, time\np = subprocess.Popen('sleep 0.3; echo sub; echo err >&2', shell=True)"
        )
    ).cell
    thread = (
        await kept.cell("t = threading.Thread(target=lambda: (time.sleep(0.2), print('thread')))\nt.start()")
    ).cell
    assert await kept.out("p.wait(); t.join(); print('mine')") == "mine\n"
    await kept.until(lambda: bool(kept.text(process) and kept.text(thread)))
    assert (kept.text(process), kept.text(thread)) == ("sub\n", "thread\n")
    assert kept.printed[process, "stderr"] == b"err\n"


async def test_files_come_and_go_between_cells(backend: Backend) -> None:
    kept = await Kept.begin(backend, collect=Collect())
    assert await kept.out("open('notes.txt').read()") == "'first\\n'"
    await backend.bring(kept.run, {"notes.txt": b"second\n", "pkg/mod.py": b"word = 'imported'\n"})
    assert await kept.out("open('notes.txt').read()") == "'second\\n'"
    assert await kept.out("import mod; mod.word", "pkg/main.py") == "'imported'"
    assert await kept.out("__file__", "pkg/main.py") == "'/work/pkg/main.py'"
    await kept.cell("open('made.txt', 'w').write('by a cell')")
    await backend.look(kept.run)
    await kept.until(lambda: kept.looks == 1)
    assert kept.changed == {"made.txt": b"by a cell"}
    await kept.close()


async def test_a_cell_has_its_own_time_and_output(backend: Backend) -> None:
    kept = await Kept.begin(backend, CellLimits(wall_seconds=0.5, output_bytes=5_000, value_bytes=1_000))
    begun = time.monotonic()
    slow = await kept.cell("kept = 1\nwhile True: pass")
    assert slow.outcome is Outcome.WALL_TIME
    assert 0.5 <= time.monotonic() - begun < 3
    flood = await kept.cell("while True: print('x' * 100)")
    assert flood.outcome is Outcome.OUTPUT
    assert len(kept.printed[flood.cell, "stdout"]) == 5_000
    assert await kept.out("kept") == "1"
    much = (await kept.cell("display('y' * 900)\ndisplay('z' * 900)")).cell
    assert len(kept.values[much][0].data) == 900
    assert b"is not shown" in kept.values[much][1].data
    stubborn = (
        "import time\nwhile True:\n    try:\n        time.sleep(60)\n    except KeyboardInterrupt: pass"
    )
    await kept.send(stubborn)
    end = await kept.over()
    assert (end.reason, "could not be interrupted" in end.detail) == (Reason.WALL_TIME, True)


@pytest.mark.parametrize(
    ("code", "reason", "exit_code"),
    [
        ("x = []\nwhile True: x.append(bytearray(1 << 20))", Reason.MEMORY, None),
        ("import sys; sys.exit(3)", Reason.EXITED, 3),
        ("exit()", Reason.EXITED, 0),
        ("import os; os._exit(4)", Reason.EXITED, 4),
        ("import os; os.kill(os.getpid(), 9)", Reason.SIGNALLED, None),
        ("import os; os.abort()", Reason.SIGNALLED, None),
        ("import os; os.closerange(3, 200)", Reason.LOST, None),
    ],
)
async def test_its_death_has_a_reason(
    backend: Backend, code: str, reason: Reason, exit_code: int | None
) -> None:
    kept = await Kept.begin(backend)
    await kept.cell("print('before')")
    number = await kept.send(f"print('last words')\n{code}")
    end = await kept.over()
    assert (end.reason, end.code) == (reason, exit_code), end
    assert number not in kept.ended
    assert kept.text(number) == "last words\n"


async def test_what_cannot_be_is_refused_by_name(backend: Backend, kept: Kept) -> None:
    with pytest.raises(SpecInvalid) as refused:
        await backend.cell(kept.run, 3, "", "1")
    assert refused.value.code == "cell_invalid"
    with pytest.raises(SpecInvalid) as refused:
        await kept.backend.cell(kept.run, 1, "", "x" * (CELL_BYTES + 1))
    assert refused.value.code == "cell_invalid"
    with pytest.raises(SpecInvalid):
        await backend.cell(kept.run, 1, "../x.py", "1")
    assert await kept.out("1") == "1"
    await backend.cell(kept.run, 1, "", "print('twice')")  # it came before
    await kept.send("import time; time.sleep(60)")
    with pytest.raises(SpecInvalid) as refused:
        for _ in range(MOST_CELLS + 1):
            await kept.send("1")
    assert refused.value.code == "cells_full"
    with pytest.raises(LanguageUnknown):
        await backend.start(Spec("bash", "", {}, LIFE, cells=CellLimits()))
    with pytest.raises(SpecInvalid) as refused:
        await backend.start(Spec("python", "m.py", {"m.py": b""}, LIFE, cells=CellLimits()))
    assert refused.value.code == "cells_invalid"
    program = await backend.start(Spec("python", "m.py", {"m.py": b""}, LIFE))
    with pytest.raises(SpecInvalid) as refused:
        await backend.cell(program, 1, "", "1")
    assert refused.value.code == "no_cells"
    _ = [event async for event in backend.events(program)]


async def test_the_largest_cell_runs(kept: Kept) -> None:
    code = "x = '" + "é" * 65_000 + "'\nlen(x)"
    assert await kept.out(code) == "65000"


# --- attacks

ATTACKS = {
    "writes into every descriptor": "import os\nfor n in range(3, 64):\n    for text in (b'', b'x' * 16, b'Z' * 200, b'\\0' * 60_000):\n        try: os.write(n, text) if text else None\n        except OSError: pass",
    "closes its streams": "import os\nfor n in (0, 1, 2): os.close(n)",
    "replaces its streams": "import sys, io\nsys.stdout = sys.stderr = io.StringIO(); sys.stdin = None; sys.__stdout__ = None",
    "closes sys.stdout": "import sys\nsys.stdout.close(); sys.stderr.close()",
    "takes the builtins away": "import builtins\nvars(builtins).clear()",
    "breaks the builtins": "import builtins\nbuiltins.len = builtins.str = builtins.isinstance = None\n1 / 0",
    "a low recursion limit": "import sys\nsys.setrecursionlimit(40)\n1 / 0",
    "recurses": "def f(): f()\nf()",
    "ignores interrupts": "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)",
    "an exception that cannot be shown": "class E(Exception):\n    def __str__(self): raise self\n    __repr__ = __str__\nraise E()",
    "a value that cannot be shown": "class V:\n    def __repr__(self): raise MemoryError\nV()",
    "a value whose form is no text": "class V:\n    def _repr_html_(self): return 5\nV()",
    "bytes that are no text": "import os\nos.write(1, bytes(range(256)))\nprint('\\udc80\\ud800', flush=True)",
    "surrogates": "'\\ud800'",
    "forks, and both go on": "import os\nchild = os.fork()",
    "forks and raises": "import os\nif not os.fork(): raise ValueError('child')",
    "raises what is no exception": "raise BaseException('hm')",
    "a traceback of our frames": "import sys\nfor m in list(sys.modules):\n    if 'interp' in m: del sys.modules[m]",
    "leaves the working folder": "import os\nos.chdir('/'); os.environ.clear()",
    "a trace function": "import sys\nsys.settrace(lambda *a: None); sys.setprofile(lambda *a: None)",
    "no imports": "import sys\nsys.meta_path.clear(); sys.path.clear(); sys.path.append('')",
    "linecache": "import linecache\nlinecache.cache = None\nlinecache.getlines = None\n1/0",
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_whatever_a_cell_does_the_next_one_runs(kept: Kept, name: str) -> None:
    await kept.cell("x = 41")
    attack = await kept.cell(ATTACKS[name])
    assert await kept.out("print('next')\nx + 1") == "next\n42", kept.printed
    assert kept.began == sorted(kept.ended)
    assert all(cell <= 3 for cell, _ in kept.printed)
    assert attack.cell == 2


async def test_a_flood_of_threads_and_a_reader_that_never_reads(backend: Backend) -> None:
    kept = await Kept.begin(backend, CellLimits(wall_seconds=5, output_bytes=200_000))
    threads = "import threading\ngo = True\ndef flood(n):\n    while go: print(f'{n}' * 50)\nfor n in range(8): threading.Thread(target=flood, args=(n,), daemon=True).start()"
    flooding = (await kept.cell(threads)).cell
    assert await kept.out("print('through'); go = False") == "through\n"
    assert len(kept.printed[flooding, "stdout"]) <= 200_000
    await kept.close()


async def test_a_forked_child_that_goes_on_says_nothing_as_the_interpreter(kept: Kept) -> None:
    code = "import os, time\nif os.fork() == 0:\n    time.sleep(0.3)\n    print('child')\n    display(5)\nelse:\n    print('parent')"
    forking = (await kept.cell(code)).cell
    assert await kept.out("time.sleep(0.8); print('second')") == "second\n"
    assert kept.printed[forking, "stdout"] == b"parent\nchild\n"
    assert not kept.values[forking]


async def test_the_agent_killed_in_a_cell_ends_it_as_lost(backend: Backend, kept: Kept) -> None:
    number = await kept.send("import time; print('up'); time.sleep(60)")
    await kept.until(lambda: kept.printed[number, "stdout"] == b"up\n")
    run = backend._runs[kept.run]
    assert isinstance(run, Run)
    run._sandbox.kill()
    end = await kept.over(5)
    assert end.reason is Reason.LOST
    other = await Kept.begin(backend)
    assert await other.out("1 + 1") == "2"
    await other.close()


async def test_the_whole_life_has_limits_too(backend: Backend) -> None:
    kept = await Kept.begin(backend, limits=replace(LIFE, cpu_seconds=0.5))
    await kept.send("while True: pass")
    assert (await kept.over()).reason is Reason.CPU_TIME


# --- any order of cells, interrupts and restarts, beside a plain model


@pytest.mark.parametrize("seed", range(4))
async def test_any_schedule_is_as_a_plain_model_has_it(backend: Backend, seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(2):
        await one_life(backend, dice)


async def one_life(backend: Backend, dice: random.Random) -> None:
    kept = await Kept.begin(backend)
    state, expected, outcomes, late = 0, {}, {}, set()
    await kept.cell("import os, subprocess, sys, threading, time\ns = 0")
    for _ in range(dice.randrange(8, 20)):
        kind = dice.choice(
            ("print", "set", "value", "error", "thread", "process", "interrupt", "bytes", "async")
        )
        number, n = kept.sent + 1, dice.randrange(1000)
        expected[number], outcomes[number] = "", Outcome.DONE
        match kind:
            case "print":
                lines = dice.randrange(1, 400)
                await kept.send(f"for i in range({lines}): print({n}, i, s)")
                expected[number] = "".join(f"{n} {i} {state}\n" for i in range(lines))
            case "set":
                await kept.send(f"s += {n}")
                state += n
            case "value":
                await kept.send(f"s * {n}")
                expected[number] = str(state * n)
            case "error":
                await kept.send(f"s += 1\nprint({n})\nraise ValueError(s)")
                state += 1
                expected[number], outcomes[number] = f"{n}\n", Outcome.ERROR
            case "thread":
                await kept.send(
                    f"threading.Thread(target=lambda: (time.sleep(0.0{n % 10}), print('thread', {n}))).start()"
                )
                expected[number] = f"thread {n}\n"
                late.add(number)
            case "process":
                await kept.send(f"p = subprocess.Popen(['sh', '-c', 'sleep 0.0{n % 10}; echo process {n}'])")
                expected[number] = f"process {n}\n"
                late.add(number)
            case "bytes":
                await kept.send(f"os.write(1, b'raw {n}' * 9_000) and None")
                expected[number] = f"raw {n}" * 9_000
            case "async":
                await kept.send(
                    f"import asyncio\nawait asyncio.sleep(0.00{n % 10})\nprint(await asyncio.sleep(0, {n}))"
                )
                expected[number] = f"{n}\n"
            case "interrupt":
                await kept.send(f"s += {n}\nprint({n})\ntime.sleep(60)\ns = -1")
                state += n
                expected[number], outcomes[number] = f"{n}\n", Outcome.INTERRUPTED
                await kept.until(partial(kept.has_printed, number, f"{n}\n"))
                await backend.interrupt(kept.run, number)
        if dice.random() < 0.3:
            await backend.interrupt(kept.run, dice.choice([99, *kept.ended]))  # none that runs
            await kept.until(partial(kept.ended.__contains__, number))
            if kept.ended[number].outcome is not outcomes[number]:
                raise AssertionError((kind, kept.ended[number]))
    last = await kept.cell("time.sleep(0.3); s")
    expected[last.cell] = str(state)
    await kept.until(lambda: all(kept.text(n) == expected[n] for n in late), 10)
    assert {n: kept.text(n) for n in expected} == expected
    assert {n: kept.ended[n].outcome for n in outcomes} == outcomes
    assert kept.began == list(range(1, last.cell + 1))
    assert list(kept.ended) == kept.began
    await kept.close()
