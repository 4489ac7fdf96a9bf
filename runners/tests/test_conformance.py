"""What every carrier does alike: streams, input, exits and their reasons, limits, the end of a run, what is refused."""

from __future__ import annotations

import asyncio
import platform
import time
from dataclasses import replace

import pytest

from atelier_runner import (
    Backend,
    BuildLimits,
    Exited,
    LanguageUnknown,
    Limits,
    Output,
    Reason,
    RunUnknown,
    Spec,
    Started,
)
from atelier_runner.model import MIB

from .finished import finished

LIMITS = Limits(wall_seconds=5, cpu_seconds=2, memory_mb=128, processes=32, disk_mb=16, output_bytes=400_000)
pytestmark = pytest.mark.asyncio(loop_scope="module")


def python(
    program: str, *, args: tuple[str, ...] = (), stdin: bytes | None = b"", limits: Limits = LIMITS
) -> Spec:
    return Spec("python", "main.py", {"main.py": program.encode()}, limits, args=args, stdin=stdin)


async def test_events_are_numbered_from_started_to_exited(backend: Backend) -> None:
    program = "import sys, time\nprint('out', flush=True); time.sleep(0.05); print('err', file=sys.stderr)"
    events = [event async for event in backend.events(await backend.start(python(program)))]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert isinstance(events[0], Started)
    assert events[0].version.startswith("Python 3.")
    assert isinstance(events[-1], Exited)
    assert next(e.stream for e in events if isinstance(e, Output)) == "stdout"
    assert b"".join(e.data for e in events if isinstance(e, Output)) == b"out\nerr\n"


async def test_what_was_used_is_said(backend: Backend) -> None:
    program = "import time\nx = bytearray(40 << 20)\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    _, _, result = await finished(backend, python(program))
    assert result.reason is Reason.EXITED
    assert 0.3 <= result.cpu_seconds < 1
    assert result.wall_seconds >= 0.3
    assert 40 << 20 <= result.peak_memory_bytes < 128 << 20


@pytest.mark.parametrize(
    ("program", "reason", "code", "signal"),
    [
        ("pass", Reason.EXITED, 0, None),
        ("import sys; sys.exit(7)", Reason.EXITED, 7, None),
        ("raise SystemExit('no')", Reason.EXITED, 1, None),
        ("import os; os._exit(255)", Reason.EXITED, 255, None),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", Reason.SIGNALLED, None, "SIGSEGV"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", Reason.SIGNALLED, None, "SIGKILL"),
        ("import os; os.abort()", Reason.SIGNALLED, None, "SIGABRT"),
        ("raise KeyboardInterrupt", Reason.SIGNALLED, None, "SIGINT"),
    ],
)
async def test_how_it_ended(
    backend: Backend, program: str, reason: Reason, code: int | None, signal: str | None
) -> None:
    _, _, result = await finished(backend, python(program))
    assert (result.reason, result.code, result.signal) == (reason, code, signal)


@pytest.mark.parametrize(
    ("program", "limits", "reason"),
    [
        ("import time; time.sleep(9)", {"wall_seconds": 0.3}, Reason.WALL_TIME),
        (
            "import os\nfor _ in range(3): os.fork()\nwhile True: pass",
            {"cpu_seconds": 0.4, "wall_seconds": 30},
            Reason.CPU_TIME,
        ),
        ("x = []\nwhile True: x.append(bytearray(1 << 20))", {}, Reason.MEMORY),
        ("x = bytearray(70 << 20)", {"memory_mb": 48}, Reason.MEMORY),
        ("open('x', 'wb').write(bytes(17 << 20))", {}, Reason.DISK),
        ("open('/tmp/x', 'wb').write(bytes(9 << 20))", {"disk_mb": 8}, Reason.DISK),
        ("while True: print('x' * 999)", {}, Reason.OUTPUT),
    ],
)
async def test_each_limit_ends_it_for_its_reason(
    backend: Backend, program: str, limits: dict[str, float], reason: Reason
) -> None:
    spec = python(program, limits=replace(LIMITS, **limits))  # type: ignore[arg-type]
    _, _, result = await finished(backend, spec)
    assert result.reason is reason, result
    assert result.detail


async def test_limits_other_than_those_that_a_sandbox_was_made_with_are_held_too(backend: Backend) -> None:
    program = "import os, time\nn = 0\ntry:\n    while n < 60:\n        if not os.fork(): time.sleep(9)\n        n += 1\nexcept OSError: pass\nprint(n)"
    out, _, _ = await finished(backend, python(program, limits=replace(LIMITS, processes=7)))
    assert int(out) <= 7
    out, _, _ = await finished(backend, python(program, limits=replace(LIMITS, processes=62)))
    assert int(out) == 60


async def test_output_is_bytes_and_cut_exactly(backend: Backend) -> None:
    noise = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 8 + b'\\xff\\xfe\\x00\\x1b[2J')"
    out, _, result = await finished(backend, python(noise))
    assert (out, result.code) == (bytes(range(256)) * 8 + b"\xff\xfe\x00\x1b[2J", 0)
    out, err, result = await finished(backend, python("print('x' * 999_999)"))
    assert (len(out), err, result.reason) == (LIMITS.output_bytes, b"", Reason.OUTPUT)


async def test_more_than_any_buffer_goes_in_and_out(backend: Backend) -> None:
    data = bytes(range(256)) * 12_000
    program = "import sys; d = sys.stdin.buffer.read(); sys.stdout.buffer.write(d)"
    limits = replace(LIMITS, output_bytes=4_000_000)
    out, _, result = await finished(backend, python(program, stdin=data, limits=limits))
    assert result.reason is Reason.EXITED
    assert out == data


async def test_input_can_be_written_while_it_runs(backend: Backend) -> None:
    program = "import sys\nfor line in sys.stdin: print('got', line.strip(), flush=True)\nprint('end')"
    run = await backend.start(python(program, stdin=None))
    got = bytearray()
    async for event in backend.events(run):
        if isinstance(event, Started):
            await backend.write(run, b"one\n")
        elif isinstance(event, Output):
            got += event.data
            if got == b"got one\n":
                await backend.write(run, b"two\n", close=True)
        elif isinstance(event, Exited):
            assert event.code == 0
    assert got == b"got one\ngot two\nend\n"


async def test_several_files_arguments_and_variables(backend: Backend) -> None:
    files = {
        "src/main.py": b"import os, sys, shelf.box\nprint(shelf.box.WORD, sys.argv[1:], os.environ['A'], open('data/x.bin', 'rb').read())",
        "src/shelf/box.py": b"WORD = 'inside'",
        "data/x.bin": b"\x00\xff",
    }
    spec = Spec("python", "src/main.py", files, LIMITS, args=("a b", "-c", "ä"), stdin=b"", env={"A": "é=1"})
    out, err, _ = await finished(backend, spec)
    assert out.decode() == "inside ['a b', '-c', 'ä'] é=1 b'\\x00\\xff'\n", err


async def test_files_up_to_the_disk_arrive_whole(backend: Backend) -> None:
    big = bytes(range(256)) * 40_000
    files = {
        "main.py": b"d = open('big', 'rb').read(); print(len(d), d == bytes(range(256)) * 40_000)",
        "big": big,
    }
    out, _, _ = await finished(backend, Spec("python", "main.py", files, LIMITS, stdin=b""))
    assert out == f"{len(big)} True\n".encode()


async def test_what_cannot_be_compiled_is_called_so_and_what_can_runs(backend: Backend) -> None:
    broken = Spec("c", "main.c", {"main.c": b"int main() { return x; }"}, LIMITS, stdin=b"")
    out, err, result = await finished(backend, broken)
    assert (out, result.reason, result.detail) == (b"", Reason.EXITED, "It could not be compiled.")
    assert b"main.c:1:21: error" in err
    source = b'#include <stdio.h>\nint main(int n, char **a) { printf("%s\\n", a[1]); return 3; }'
    out, _, result = await finished(
        backend, Spec("c", "main.c", {"main.c": source}, LIMITS, args=("x",), stdin=b"")
    )
    assert (out, result.code, result.detail) == (b"x\n", 3, "")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="it is about x86's other call gates")
@pytest.mark.parametrize(
    "call", ['__asm__("int $0x80" : "=a"(r) : "a"(20));', "r = syscall(0x40000000 | 39);"]
)
async def test_calls_through_a_foreign_gate_end_it(backend: Backend, call: str) -> None:
    source = f'#include <stdio.h>\n#include <unistd.h>\nint main() {{ long r = 0; {call} printf("ESCAPED %ld\\n", r); }}'
    out, _, result = await finished(
        backend, Spec("c", "main.c", {"main.c": source.encode()}, LIMITS, stdin=b"")
    )
    assert (out, result.reason) == (b"", Reason.SIGNALLED), result


async def test_cancel_ends_it_at_once(backend: Backend) -> None:
    run = await backend.start(python("import time\nprint('up', flush=True)\ntime.sleep(60)"))
    begun = 0.0
    async for event in backend.events(run):
        if isinstance(event, Output):
            begun = time.monotonic()
            await backend.cancel(run)
        elif isinstance(event, Exited):
            assert event.reason is Reason.CANCELLED
    assert time.monotonic() - begun < 1


async def test_cancel_reaches_one_that_is_stopped_or_floods(backend: Backend) -> None:
    for program in ("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", "while True: print('x')"):
        run = await backend.start(python(program, limits=replace(LIMITS, output_bytes=1 << 40)))
        await asyncio.sleep(0.1)  # so that its pipes are full
        await backend.cancel(run)
        last = [event async for event in backend.events(run)][-1]
        assert isinstance(last, Exited)
        assert last.reason is Reason.CANCELLED


async def test_many_at_once_do_not_mix(backend: Backend) -> None:
    async def one(n: int) -> bytes:
        return (await finished(backend, python(f"print({n})")))[0]

    assert await asyncio.gather(*(one(n) for n in range(6))) == [f"{n}\n".encode() for n in range(6)]


async def test_what_there_is_not_is_refused_by_name(backend: Backend) -> None:
    with pytest.raises(LanguageUnknown):
        await backend.start(Spec("cobol", "a", {"a": b""}, LIMITS))
    with pytest.raises(RunUnknown):
        _ = [event async for event in backend.events("nothing")]


# What a cluster can hold for one pod only from within it, and says so.
INSIDE = {"memory", "processes", "cpu time"}


async def test_every_control_is_tried_and_none_is_absent(
    backend: Backend, request: pytest.FixtureRequest
) -> None:
    found = await backend.capabilities()
    assert found.available
    states = {control.name: control.state for control in found.controls}
    assert {"namespaces", "files", "identity"} <= states.keys()
    exact = ("network", "system calls", "memory", "processes", "cpu time", "disk", "wall time", "output")
    inside = INSIDE if request.node.callspec.params["backend"] == "kubernetes" else set()
    expected = {name: "partial" if name in inside else "enforced" for name in exact}
    assert {name: states[name] for name in exact} == expected, found.controls
    assert "absent" not in states.values(), found.controls


# What takes a compiler's time and memory without any program's.
HEAVY = b"int a[] = {" + b"1," * 400_000 + b"};\n"
HELLO = b'#include <stdio.h>\nint main(void) { puts("hello"); return sizeof a == 0; }\n'


def c(program: bytes, limits: Limits, build: BuildLimits | None) -> Spec:
    return Spec("c", "main.c", {"main.c": program}, limits, stdin=b"", build=build)


async def test_compiling_and_running_have_limits_of_their_own(backend: Backend) -> None:
    small = replace(LIMITS, memory_mb=32, cpu_seconds=0.2)
    out, _, result = await finished(backend, c(HEAVY + HELLO, small, BuildLimits()))
    assert (out, result.reason, result.code) == (b"hello\n", Reason.EXITED, 0), result
    assert result.cpu_seconds < 0.2
    assert result.peak_memory_bytes < 32 * MIB
    _, _, together = await finished(backend, c(HEAVY + HELLO, small, None))
    assert together.reason in (Reason.MEMORY, Reason.CPU_TIME), together


async def test_what_takes_too_long_to_compile_says_so(backend: Backend) -> None:
    for build, reason in (
        (BuildLimits(wall_seconds=0.05), Reason.WALL_TIME),
        (BuildLimits(cpu_seconds=0.05), Reason.CPU_TIME),
        (BuildLimits(memory_mb=28), Reason.MEMORY),
    ):
        out, _, result = await finished(backend, c(HEAVY + HELLO, LIMITS, build))
        assert (out, result.reason) == (b"", reason), result
        assert result.detail.startswith("Compiling it ")


async def test_the_program_s_limits_hold_from_its_first_moment(
    backend: Backend, request: pytest.FixtureRequest
) -> None:
    greedy = b"""#include <stdlib.h>
#include <string.h>
int main(void) { for (;;) memset(malloc(1 << 20), 1, 1 << 20); }
"""
    _, _, result = await finished(
        backend, c(greedy, replace(LIMITS, memory_mb=48), BuildLimits(memory_mb=900))
    )
    assert result.reason is Reason.MEMORY
    watched = (
        request.node.callspec.params["backend"] == "kubernetes"
    )  # not held by the kernel, which is exact
    assert result.peak_memory_bytes <= (128 if watched else 64) * MIB
    assert not result.detail.startswith("Compiling")
    endless = b"int main(void) { for (;;); }"
    _, _, result = await finished(backend, c(endless, replace(LIMITS, wall_seconds=0.4), BuildLimits()))
    assert result.reason is Reason.WALL_TIME
    assert 0.4 <= result.wall_seconds < 1.5
