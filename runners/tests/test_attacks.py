"""Programs that mean harm: each ends for the right reason, leaves nothing behind, and the next run is clean."""

from __future__ import annotations

import asyncio
import os
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from atelier_runner import Backend, Exited, Limits, Output, Reason, Spec, SpecInvalid

LIMITS = Limits(wall_seconds=3, cpu_seconds=0.5, memory_mb=96, processes=24, disk_mb=8, output_bytes=200_000)


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def run(
    backend: Backend,
    program: str,
    *,
    language: str = "python",
    limits: Limits = LIMITS,
    files: dict[str, bytes] | None = None,
    args: tuple[str, ...] = (),
) -> tuple[str, Exited]:
    """Run a program to its end; returns what it printed on both streams, and its result."""
    entry = {"python": "main.py", "bash": "main.sh", "c": "main.c", "cpp": "main.cpp"}[language]
    spec = Spec(language, entry, {entry: program.encode(), **(files or {})}, limits, args, stdin=b"")
    printed = bytearray()
    async for event in backend.events(await backend.start(spec)):
        if isinstance(event, Output):
            printed += event.data
        elif isinstance(event, Exited):
            return printed.decode(errors="replace"), event
    raise AssertionError("no result")


async def clean(backend: Backend) -> None:
    """The next run works and finds nothing of the one before."""
    printed, result = await run(
        backend, "import os; print(sorted(os.listdir('/tmp')), sorted(os.listdir('.')))"
    )
    assert (printed, result.reason, result.code) == ("[] ['main.py']\n", Reason.EXITED, 0)


ENDINGS = {
    "fork bomb": (
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        # Whichever comes first: every process of it takes its own pages.
        {Reason.CPU_TIME, Reason.WALL_TIME, Reason.MEMORY},
    ),
    "thread bomb": (
        "import threading, time\nwhile True:\n    try: threading.Thread(target=time.sleep, args=(9,)).start()\n    except RuntimeError: time.sleep(0.01)",
        {Reason.CPU_TIME, Reason.WALL_TIME},
    ),
    "memory by one": ("x = []\nwhile True: x.append(bytearray(1 << 20))", {Reason.MEMORY}),
    "memory by children": (
        "import os, time\nfor _ in range(8):\n    if not os.fork():\n        x = bytearray(40 << 20); x[::4096] = b'x' * len(x[::4096]); time.sleep(9)\ntime.sleep(9)",
        {Reason.MEMORY},
    ),
    "endless loop": ("while True: pass", {Reason.CPU_TIME}),
    "sleep": ("import time; time.sleep(60)", {Reason.WALL_TIME}),
    "output flood": ("while True: print('x' * 4096)", {Reason.OUTPUT}),
    "output on both streams": (
        "import sys\nwhile True: print('x' * 999); print('y' * 999, file=sys.stderr)",
        {Reason.OUTPUT},
    ),
    "stopping itself": ("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", {Reason.WALL_TIME}),
}


@pytest.mark.parametrize("name", list(ENDINGS))
async def test_each_ends_for_its_reason(backend: Backend, name: str) -> None:
    program, reasons = ENDINGS[name]
    # A machine with much to do gives a busy program little: CPU time must have the time to run out.
    limits = replace(LIMITS, wall_seconds=20) if reasons == {Reason.CPU_TIME} else LIMITS
    begun = time.monotonic()
    _, result = await run(backend, program, limits=limits)
    assert result.reason in reasons, result
    assert time.monotonic() - begun < limits.wall_seconds + 2
    await clean(backend)


TEMPLATES = """
template<int N, int M> struct T { static const long v = T<N - 1, 2 * M>::v + T<N - 1, 2 * M + 1>::v; };
template<int M> struct T<0, M> { static const long v = M; };
long x = T<26, 1>::v;
int main() {}
"""
# What a compiler can be made to do: it stands in the same sandbox, under the same limits.
COMPILED = {
    "a source without end": ("c", '#include "/dev/zero"'),
    "a source of noise": ("c", '#include "/dev/urandom"'),
    "a file that includes itself": ("c", '#include "main.c"\n#include "main.c"'),
    "macros that double": ("c", "#define A0 x x\n" + "".join(f"#define A{n + 1} A{n} A{n}\n" for n in range(40)) + "A40"),
    "templates that double": ("cpp", TEMPLATES),
    "a program larger than the disk": ("c", "char x[1UL << 31] = {1}; int main() { return 0; }"),
    "what the machine knows": ("c", '__asm__(".incbin \\"/etc/shadow\\""); int main() { return 0; }'),
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.language(COMPILED[name][0])) for name in COMPILED]
)
async def test_a_compiler_that_is_made_to_harm_ends_like_any_program(backend: Backend, name: str) -> None:
    language, source = COMPILED[name]
    begun = time.monotonic()
    _, result = await run(backend, source, language=language)
    assert result.code != 0
    assert result.reason in {
        Reason.EXITED,
        Reason.MEMORY,
        Reason.CPU_TIME,
        Reason.WALL_TIME,
        Reason.DISK,
        Reason.OUTPUT,
    }
    if result.reason is Reason.EXITED:
        assert result.detail == "It could not be compiled."
    assert time.monotonic() - begun < LIMITS.wall_seconds + 2
    await clean(backend)


@pytest.mark.parametrize("entry", ["$(touch own).c", "a b;c'd\"e.c", "-fplugin=x.c", "d/-o.c"])
async def test_a_name_is_a_name_for_the_compiler_too(backend: Backend, entry: str) -> None:
    files = {entry: b'#include <stdio.h>\nint main() { puts("fine"); }'}
    spec = Spec("c", entry, files, Limits(), stdin=b"")
    said = [event async for event in backend.events(await backend.start(spec))]
    assert b"".join(event.data for event in said if isinstance(event, Output)) == b"fine\n"


REFUSALS = {
    "network": "import socket; s = socket.socket(); s.settimeout(1); s.connect(('1.1.1.1', 53))",
    "loopback services": "import socket; socket.create_connection(('127.0.0.1', 8080), 1)",
    "metadata address": "import socket; socket.create_connection(('169.254.169.254', 80), 1)",
    "names": "import socket; socket.getaddrinfo('example.org', 80)",
    "packet sockets": "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "AF_ALG": "import socket; socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET, 0)",
    "AF_VSOCK": "import socket; socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)",
    "netlink": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
    "new namespaces": "import os, ctypes; r = ctypes.CDLL(None, use_errno=True).unshare(0x10000000); assert r == 0",
    "ptrace": "import ctypes; assert ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0",
    "mount": "import ctypes; assert ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0",
    "bpf": "import ctypes; assert ctypes.CDLL(None).syscall(321, 0, 0, 0) >= 0",
    "io_uring": "import ctypes; assert ctypes.CDLL(None).syscall(425, 1, 0) >= 0",
    "keyctl": "import ctypes; assert ctypes.CDLL(None).syscall(250, 0, -3, 0) >= 0",
    "userfaultfd": "import ctypes; assert ctypes.CDLL(None).syscall(323, 0) >= 0",
    "perf": "import ctypes; assert ctypes.CDLL(None).syscall(298, 0, 0, -1, -1, 0) >= 0",
    "the host's passwords": "open('/etc/shadow').read()",
    "the host's homes": "import os; os.listdir('/root')",
    "writing to the system": "open('/usr/bin/evil', 'w')",
    "becoming root": "import os; os.setuid(0)",
    "a device": "import os, stat; os.mknod('/tmp/d', 0o600 | stat.S_IFBLK, os.makedev(8, 0))",
    "a container engine": "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/var/run/docker.sock')",
    "typing into the terminal": "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSTI, b'x')",
}


@pytest.mark.parametrize("name", list(REFUSALS))
async def test_each_is_refused_inside(backend: Backend, name: str) -> None:
    printed, result = await run(backend, REFUSALS[name] + "\nprint('ESCAPED')")
    assert "ESCAPED" not in printed
    assert (result.reason, result.code) == (Reason.EXITED, 1), printed
    assert "rror" in printed


async def test_disk_and_inode_floods_stop_at_the_limit(backend: Backend) -> None:
    program = """
import os
for folder in ('.', '/tmp'):
    size = 0
    try:
        with open(folder + '/big', 'wb') as file:
            while size < 1 << 30:
                size += file.write(bytes(1 << 16)); file.flush()
    except OSError as error:
        print(folder, size <= 9 << 20, error.strerror in ("No space left on device", "File too large"))
    os.unlink(folder + '/big')
"""
    printed, _ = await run(backend, program)
    assert printed == ". True True\n/tmp True True\n"
    await clean(backend)


async def test_a_sparse_giant_takes_no_room(backend: Backend) -> None:
    _, result = await run(backend, "f = open('x', 'wb'); f.truncate(1 << 40)")
    assert result.reason in {Reason.EXITED, Reason.SIGNALLED, Reason.DISK}
    await clean(backend)


async def test_a_daemon_that_outlives_its_parent_is_ended_with_the_run(backend: Backend) -> None:
    program = "import os, time\nif not os.fork():\n    os.setsid()\n    if not os.fork():\n        while True: time.sleep(0.01)\n    os._exit(0)\nprint('parent gone')"
    await backend.warm()  # it is not about starting one
    begun = time.monotonic()
    printed, result = await run(backend, program)
    assert printed == "parent gone\n"
    assert result.reason is Reason.EXITED
    assert time.monotonic() - begun < 2
    await clean(backend)


async def test_killing_everybody_reaches_only_itself(backend: Backend) -> None:
    _, result = await run(backend, "import os, signal; os.kill(-1, signal.SIGKILL)")
    assert result.reason in {Reason.SIGNALLED, Reason.EXITED, Reason.LOST}
    await clean(backend)


async def test_it_sees_no_processes_files_or_environment_of_the_host(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOST_SECRET", "hidden")
    program = "import os, sys\nprint(len([p for p in os.listdir('/proc') if p.isdigit()]) <= 3, 'SECRET' in str(os.environ), sorted(os.listdir('/proc/self/fd'))[:4], os.path.exists(sys.argv[1]), os.getuid() != 0)"
    printed, _ = await run(backend, program, args=(__file__,))
    assert printed == "True False ['0', '1', '2', '3'] False True\n"


async def test_runs_share_no_hash_seed_or_random_state(backend: Backend) -> None:
    program = "import random; print(hash('x'), random.random())"
    outputs = {(await run(backend, program))[0] for _ in range(4)}
    assert len(outputs) == 4


async def test_shell_characters_in_names_and_arguments_are_only_characters(backend: Backend) -> None:
    name = "a b;$(touch x)`id`'\".py"
    spec = Spec(
        "python",
        name,
        {name: b"import sys; print(sys.argv)"},
        LIMITS,
        args=("$(id)", "; rm -rf /", "a\nb"),
        stdin=b"",
    )
    printed = b"".join(
        [e.data async for e in backend.events(await backend.start(spec)) if isinstance(e, Output)]
    )
    assert printed.decode() == f"{[name, '$(id)', '; rm -rf /', chr(97) + chr(10) + 'b']}\n"


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a//b", "a/../../b", "", "x\0y", "a/" + "b" * 300])
async def test_files_stay_beneath_their_folder(backend: Backend, path: str) -> None:
    with pytest.raises(SpecInvalid):
        await backend.start(Spec("python", "main.py", {"main.py": b"", path: b"x"}, LIMITS))


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True])
@pytest.mark.parametrize(
    "field", ["wall_seconds", "cpu_seconds", "memory_mb", "processes", "disk_mb", "output_bytes"]
)
async def test_limits_that_are_no_limits_are_refused(backend: Backend, field: str, value: float) -> None:
    with pytest.raises(SpecInvalid):
        await backend.start(Spec("python", "main.py", {"main.py": b""}, Limits(**{field: value})))  # type: ignore[arg-type]


async def test_a_reader_that_never_reads_holds_nothing_up(backend: Backend) -> None:
    spec = Spec("python", "main.py", {"main.py": b"while True: print('x' * 4096)"}, LIMITS, stdin=b"")
    idle = await backend.start(spec)
    printed, _ = await run(backend, "print('neighbour')")
    assert printed == "neighbour\n"
    await backend.cancel(idle)
    ends = [event async for event in backend.events(idle) if isinstance(event, Exited)]
    assert len(ends) == 1


@pytest.mark.parametrize("backend", ["local"], indirect=True)  # of containers: test_docker.py
async def test_nothing_is_left_behind(backend: Backend) -> None:
    def groups() -> int:
        # `os.walk` takes it well when a folder goes away while it looks.
        return sum(
            bool(re.match(r"s\d", name))
            for top in Path("/sys/fs/cgroup").glob(f"*/atelier-{os.getpid()}-*")
            for _, names, _ in os.walk(top)
            for name in names
        )

    await backend.warm()
    before = groups()
    await asyncio.gather(*(run(backend, "import os\nfor _ in range(3): os.fork()") for _ in range(6)))
    await backend.warm()
    deadline = time.monotonic() + 5
    while groups() > before:
        assert time.monotonic() < deadline, "control groups stay"
        await asyncio.sleep(0.05)
