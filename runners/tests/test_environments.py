"""Packages are installed by the real uv and npm, once, in a sandbox that reaches an index of this test and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import pytest_asyncio
from deploy.package_index import Index, package_index

from atelier_runner import (
    Backend,
    EnvironmentOptions,
    Exited,
    Limits,
    Output,
    Packages,
    Reason,
    Spec,
    Started,
    Window,
)

from .finished import finished
from .hostile_packages import filled

LIMITS = Limits(
    wall_seconds=20, cpu_seconds=10, memory_mb=256, processes=64, disk_mb=16, output_bytes=400_000
)
CARRIERS = ["local", pytest.param("docker", marks=pytest.mark.docker)]
Open = Callable[..., AbstractAsyncContextManager[Backend]]
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def secret() -> Iterator[Index]:
    """A service beside the index that nobody here may reach."""
    with package_index() as served:
        yield served


@pytest.fixture(scope="module")
def index(secret: Index) -> Iterator[Index]:
    with package_index() as served:
        filled(served, int(secret.url.rpartition(":")[2]))
        yield served


def options(index: Index, folder: Path | None, **bounds: float) -> EnvironmentOptions:
    return EnvironmentOptions(folder, f"{index.url}/simple", index.url, **{"seconds": 60, **bounds})  # type: ignore[arg-type]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=CARRIERS)
async def backend(request: pytest.FixtureRequest, index: Index, folder: Path) -> AsyncIterator[Backend]:
    async with opening(request, index, folder / request.param) as opened:
        yield opened


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that other users can get to; pytest's own are closed to them."""
    place = Path(tempfile.mkdtemp(prefix="atelier-test-"))
    place.chmod(0o711)
    yield place
    shutil.rmtree(place)


def opening(
    request: pytest.FixtureRequest, index: Index, folder: Path, **bounds: float
) -> AbstractAsyncContextManager[Backend]:
    from atelier_runner import open_docker, open_local

    kept = options(index, folder, **bounds)
    if request.param == "local":
        return open_local(limits=LIMITS, environments=kept)
    return open_docker(request.getfixturevalue("docker_socket"), limits=LIMITS, environments=kept)


def python(program: str, *wanted: str) -> Spec:
    packages = (Packages("python", wanted),) if wanted else ()
    return Spec(
        "python",
        "main.py",
        {"main.py": textwrap.dedent(program).encode()},
        LIMITS,
        stdin=b"",
        packages=packages,
    )


def script(name: str, program: str, *wanted: str, language: str = "javascript") -> Spec:
    return Spec(
        language, name, {name: program.encode()}, LIMITS, stdin=b"", packages=(Packages("node", wanted),)
    )


async def ran(backend: Backend, spec: Spec) -> tuple[str, str, Exited]:
    """Return what was said of the installation, what the program printed, and the result."""
    said = {"install": b"", "stdout": b"", "stderr": b"", "terminal": b""}
    async for event in backend.events(await backend.start(spec)):
        if isinstance(event, Output):
            said[event.stream] += event.data
        elif isinstance(event, Exited):
            return (
                said["install"].decode(errors="replace"),
                (said["stdout"] + said["stderr"] + said["terminal"]).decode(),
                event,
            )
    raise AssertionError("no result")


# --- what people do


async def test_the_first_run_installs_and_the_next_begins_at_once(backend: Backend, index: Index) -> None:
    program = "import needs_moo, moo, sys; moo.say(); print(sys.prefix != sys.base_prefix)"
    said, out, result = await ran(backend, python(program, "needs-moo", "moo>=1"))
    assert (out, result.code) == ("moo 1\nTrue\n", 0), said
    assert said.startswith("Installing 2 packages…\n")
    assert "moo==1.0" in said
    assert "the next run finds it there" in said
    asked = len(index.asked)
    said, out, result = await ran(backend, python(program, "moo>=1", "needs-moo"))  # in another order
    assert (said, out, result.code) == ("", "moo 1\nTrue\n", 0)
    assert len(index.asked) == asked


async def test_events_are_numbered_through_and_the_program_starts_after_the_installation(
    backend: Backend,
) -> None:
    run = await backend.start(python("print('out')", "moo==2"))
    events = [event async for event in backend.events(run)]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    at = next(number for number, event in enumerate(events) if isinstance(event, Started))
    assert {event.stream for event in events[:at] if isinstance(event, Output)} == {"install"}
    assert {event.stream for event in events[at:] if isinstance(event, Output)} == {"stdout"}


async def test_other_versions_are_another_environment(backend: Backend) -> None:
    for version in ("1.0", "2.0", "1.0"):
        _, out, _ = await ran(backend, python("import moo; moo.say()", f"moo=={version}"))
        assert out == f"moo {version[0]}\n"


async def test_a_new_interpreter_finds_what_a_fork_of_the_agent_finds(backend: Backend) -> None:
    program = """
        import json, subprocess, sys
        show = "import json, sys; print(json.dumps([sys.path[1:], sys.prefix, sys.exec_prefix, sys.base_prefix]))"
        here = json.dumps([sys.path[1:], sys.prefix, sys.exec_prefix, sys.base_prefix])
        for python in (sys.executable, "python", "python3"):
            there = subprocess.run([python, "-c", show], capture_output=True, text=True).stdout.strip()
            print(here == there or (here, there))
        print(subprocess.run(["moo"], capture_output=True).returncode)
        import moo
        print(moo.__cached__.endswith(".pyc") and __import__("os").path.exists(moo.__cached__))
    """
    _, out, _ = await ran(backend, python(program, "moo==1.0"))
    assert out == "True\nTrue\nTrue\n0\nTrue\n"


async def test_the_standard_library_comes_before_a_package_of_its_name(backend: Backend) -> None:
    _, out, _ = await ran(backend, python("import json, shadow; print(json.dumps([1]))", "shadow"))
    assert out == "[1]\n"


@pytest.mark.language("javascript")
@pytest.mark.parametrize(
    ("name", "language", "program"),
    [
        ("main.mjs", "javascript", "import calf from '@herd/calf'; console.log(calf())"),
        ("main.cjs", "javascript", "console.log(require('cow')() + '!')"),
        (
            "deep/er/main.ts",
            "typescript",
            "import cow from 'cow'; const said: string = cow(); console.log(said + '!')",
        ),
    ],
)
async def test_javascript_and_typescript_find_their_packages(
    backend: Backend, name: str, language: str, program: str
) -> None:
    said, out, result = await ran(
        backend, script(name, program, "@herd/calf@^2.0.0", "cow@1.x", language=language)
    )
    assert (out, result.code) == ("moo!\n", 0), said


@pytest.mark.parametrize("backend", ["local"], indirect=True)  # an image has one language
async def test_a_shell_has_both_and_their_commands(backend: Backend) -> None:
    packages = (Packages("python", ("moo==1.0",)), Packages("node", ("cow@1.x",)))
    spec = Spec(
        "bash",
        "main.sh",
        {"main.sh": b"moo\ncow\npython -c 'import moo; moo.say()'\nls -A"},
        LIMITS,
        packages=packages,
    )
    _, out, _ = await ran(backend, spec)
    assert out == "moo 1\ncli moo\nmoo 1\nmain.sh\nnode_modules\n"


async def test_a_run_that_needs_nothing_notices_nothing(backend: Backend, index: Index) -> None:
    asked = len(index.asked)
    said, out, _ = await ran(
        backend, python("import sys, os; print(sys.prefix == sys.base_prefix, 'VIRTUAL_ENV' in os.environ)")
    )
    assert (said, out) == ("", "True False\n")
    assert len(index.asked) == asked


@pytest.mark.language("javascript")
async def test_a_session_that_has_its_own_node_modules_keeps_it(backend: Backend) -> None:
    files = {
        "main.cjs": b"console.log(require('cow'))",
        "node_modules/cow/index.js": b"module.exports = 'mine'",
    }
    spec = Spec("javascript", "main.cjs", files, LIMITS, packages=(Packages("node", ("cow@1.x",)),))
    _, out, _ = await ran(backend, spec)
    assert out == "mine\n"


# --- what goes wrong


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (("no-such-package",), "no-such-package was not found"),
        (("needs-moo", "moo>=2"), "moo>=2"),
        (("moo==7",), "there is no version of moo==7"),
    ],
)
async def test_what_cannot_be_installed_is_said_in_the_tools_words(
    backend: Backend, wanted: tuple[str, ...], words: str
) -> None:
    said, out, result = await ran(backend, python("print('never')", *wanted))
    assert (result.reason, result.code, out) == (Reason.ENVIRONMENT, None, "")
    assert words in " ".join(said.split())
    assert "uv could not install the packages" in result.detail


@pytest.mark.language("javascript")
@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("no-such-package@1", "404"),
        ("cow@^9.0.0", "No matching version"),
        ("broken@1", "this cannot be built"),
    ],
)
async def test_what_npm_cannot_install_is_said_in_its_words(
    backend: Backend, wanted: str, words: str
) -> None:
    said, _, result = await ran(backend, script("m.js", "", wanted))
    assert result.reason is Reason.ENVIRONMENT
    assert words in said
    assert "npm could not install the packages" in result.detail


@pytest.mark.parametrize("opened", CARRIERS, indirect=True)
async def test_what_is_too_large_or_too_slow_is_said(opened: tuple[Index, Open]) -> None:
    index, open_with = opened
    async with open_with(each_mb=2) as backend:
        said, _, result = await ran(backend, python("", "large"))
        assert result.reason is Reason.ENVIRONMENT
        assert "larger than 2 MiB" in result.detail or "2." in said, (said, result)
    index.silent.add("sleepy")
    async with open_with(seconds=3) as backend:
        said, _, result = await ran(backend, python("", "sleepy"))
        assert "longer than 3 s" in result.detail
    async with open_with() as backend:
        said, out, result = await ran(backend, python("import moo; moo.say()", "moo==1.0"))
        assert out == "moo 1\n", said


@pytest.fixture
def opened(request: pytest.FixtureRequest, index: Index, folder: Path) -> tuple[Index, Open]:
    """The index, and how to open a backend of one's own over it."""
    place = folder / f"own-{len(list(folder.iterdir()))}"
    return index, lambda **bounds: opening(request, index, place, **bounds)


# --- attacks


async def test_a_build_script_reaches_the_index_and_nothing_else(backend: Backend, secret: Index) -> None:
    said, out, result = await ran(backend, python("import curious; print(curious.TRIED)", "curious"))
    assert result.code == 0, said
    tried = eval(out)
    assert all(tried[name] != "reached" for name in ("secret", "public", "metadata"))
    assert all("403" in str(tried[name]) for name in ("proxied", "named", "other")), tried
    assert not {"main.py", "requirements"} & set(tried["files"])
    assert (tried["environments"], tried["listed"], tried["written"]) == (True, False, False)
    assert secret.asked == []


@pytest.mark.language("javascript")
async def test_postinstall_runs_in_the_sandbox_alone(backend: Backend, secret: Index) -> None:
    said, out, _ = await ran(
        backend, script("m.cjs", "console.log(JSON.stringify(require('after')))", "after@1")
    )
    assert '"secret":"reached"' not in out, said
    assert '"written":false' in out
    assert secret.asked == []


@pytest.mark.parametrize("opened", CARRIERS, indirect=True)
@pytest.mark.parametrize("name", ["forking", "flooding"])
async def test_a_build_script_that_takes_everything_is_ended(opened: tuple[Index, Open], name: str) -> None:
    _, open_with = opened
    async with open_with(each_mb=24, seconds=6) as backend:
        _, _, result = await ran(backend, python("", name))
        assert result.reason is Reason.ENVIRONMENT
    async with open_with() as backend:
        said, out, _ = await ran(backend, python("import moo; moo.say()", "moo==1.0"))
        assert out == "moo 1\n", said


async def test_what_a_build_script_shouts_is_cut(backend: Backend) -> None:
    said, _, result = await ran(backend, python("", "shouting"))
    assert result.reason is Reason.ENVIRONMENT
    assert len(said) < 80_000


async def test_a_build_script_that_writes_in_the_archives_place_harms_itself(backend: Backend) -> None:
    _, out, result = await ran(backend, python("import forging; print(forging.TRIED)", "forging"))
    if result.reason is Reason.ENVIRONMENT:  # the host met nonsense
        assert out == ""
    _, out, _ = await ran(backend, python("import moo; moo.say()", "moo==1.0"))
    assert out == "moo 1\n"


async def test_a_daemon_of_a_build_script_ends_with_it(backend: Backend) -> None:
    _, out, _ = await ran(backend, python("import lasting; print(lasting.TRIED)", "lasting"))
    assert out == "left a daemon\n"
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            assert b"sleep\x001000\x00" != (process / "cmdline").read_bytes()


@pytest.mark.parametrize("name", ["climbing", "rooted"])
async def test_a_wheel_whose_files_leave_its_folder_leaves_nothing_there(backend: Backend, name: str) -> None:
    _, out, _ = await ran(
        backend,
        python("import os; print(os.path.exists('/tmp/climbed') or os.path.exists('/tmp/rooted'))", name),
    )
    assert "True" not in out
    assert not Path("/tmp/climbed").exists()
    assert not Path("/tmp/rooted").exists()


async def test_links_in_a_wheel_lead_nowhere(backend: Backend) -> None:
    program = """
        import linked, os
        folder = os.path.dirname(linked.__file__)
        for name in ("shadow", "up"):
            try: print(open(f"{folder}/{name}").read()[:30])
            except OSError as error: print(type(error).__name__)
    """
    _, out, _ = await ran(backend, python(program, "linked"))
    assert "root:" not in out


async def test_lines_of_pth_files_run_in_the_programs_process_under_its_limits(backend: Backend) -> None:
    said, out, _ = await ran(
        backend, python("import os; print(os.environ['PATHY'] == str(os.getpid()))", "pathy")
    )
    assert out == "True\n", said
    spec = python("print('never')", "loopy")
    loops = Spec(
        spec.language,
        spec.entry,
        spec.files,
        Limits(wall_seconds=1.5, cpu_seconds=1),
        stdin=b"",
        packages=spec.packages,
    )
    said, out, result = await ran(backend, loops)
    assert out == ""
    assert result.reason in (Reason.WALL_TIME, Reason.CPU_TIME, Reason.ENVIRONMENT), said
    _, out, _ = await ran(backend, python("print('well')"))
    assert out == "well\n"


async def test_a_program_cannot_change_list_or_guess_environments(backend: Backend) -> None:
    program = """
        import moo, os
        place = os.path.dirname(moo.__file__)
        for attempt in (
            lambda: open(f"{place}/__init__.py", "a"), lambda: os.unlink(f"{place}/__init__.py"), lambda: os.chmod("/environments", 0o777),
            lambda: os.listdir("/environments"), lambda: os.mkdir("/environments/x"), lambda: open("/environments/../key"),
        ):
            try: attempt(); print("done")
            except OSError as error: print(type(error).__name__)
    """
    _, out, _ = await ran(backend, python(program, "moo==1.0"))
    assert "done" not in out
    assert len(out.splitlines()) == 6


# --- several at once, and what is stopped


async def test_runs_that_need_the_same_wait_for_one_installation(backend: Backend, index: Index) -> None:
    index.wheel("fresh", "1.0", {"fresh.py": ""})
    asked = index.asked.count("/simple/fresh/")
    found = await asyncio.gather(
        *(ran(backend, python("import fresh; print('ok')", "fresh")) for _ in range(3))
    )
    assert [out for _, out, _ in found] == ["ok\n"] * 3
    assert all(said.startswith("Installing 1 package…") for said, _, _ in found)
    assert index.asked.count("/simple/fresh/") == asked + 1


async def test_stop_ends_the_installation_unless_somebody_else_waits_for_it(
    backend: Backend, index: Index
) -> None:
    index.silent.add("slowly")
    index.wheel("slowly", "1.0", {"slowly.py": ""})
    assert backend._environments is not None

    async def until_installing(run: str) -> tuple[AsyncIterator[object], str]:
        events = backend.events(run)
        first = await anext(aiter(events))
        assert isinstance(first, Output)
        return events, run

    first, one = await until_installing(await backend.start(python("", "slowly")))
    second, two = await until_installing(await backend.start(python("", "slowly")))
    await backend.cancel(one)
    ends = [event async for event in first if isinstance(event, Exited)]
    assert ends[0].reason is Reason.CANCELLED
    assert len(backend._environments._builds) == 1
    await backend.signal(two, "INT")
    ends = [event async for event in second if isinstance(event, Exited)]
    assert ends[0].reason is Reason.CANCELLED
    assert backend._environments._builds == {}


async def test_a_terminal_opens_also_when_packages_cannot_be_installed(
    backend: Backend, index: Index
) -> None:
    spec = Spec(
        "python",
        "",
        {},
        LIMITS,
        terminal=Window(80, 24),
        packages=(Packages("python", ("no-such-package",)),),
    )
    run = await backend.start(spec)
    shown = b""
    async for event in backend.events(run):
        if isinstance(event, Output):
            shown += event.data
            if shown.endswith(b">>> "):
                await backend.write(run, b"exit()\r")
    assert b"no-such-package was not found" in shown
    assert b"\n" not in shown.replace(b"\r\n", b"")


async def test_ctrl_c_in_a_terminal_begins_without_the_packages(backend: Backend, index: Index) -> None:
    index.silent.add("unhurried")
    packages = (Packages("python", ("unhurried",)),)
    run = await backend.start(Spec("python", "", {}, LIMITS, terminal=Window(80, 24), packages=packages))
    shown = b""
    async for event in backend.events(run):
        if isinstance(event, Output):
            shown += event.data
            if shown.endswith("Installing 1 package…\r\n".encode()):
                await backend.resize(run, Window(100, 30))
                await backend.write(run, b"\3")
            elif shown.endswith(b">>> "):
                await backend.write(run, b"import os; exit(os.get_terminal_size().columns)\r")
        elif isinstance(event, Exited):
            assert event.code == 100
    assert b"Nothing was installed." in shown


async def test_what_is_typed_and_brought_meanwhile_is_the_programs(backend: Backend, index: Index) -> None:
    index.wheel("typed", "1.0", {"typed.py": ""})
    run = await backend.start(
        Spec(
            "python",
            "main.py",
            {"main.py": b"import typed; print(input(), open('late').read())"},
            LIMITS,
            packages=(Packages("python", ("typed",)),),
        )
    )
    writing = asyncio.create_task(backend.write(run, b"hello\n"))
    await backend.bring(run, {"late": b"brought"})
    out = b"".join(
        [
            event.data
            async for event in backend.events(run)
            if isinstance(event, Output) and event.stream == "stdout"
        ]
    )
    await writing
    assert out == b"hello brought\n"


@pytest.mark.parametrize("opened", CARRIERS, indirect=True)
async def test_an_environment_that_is_used_is_not_removed(opened: tuple[Index, Open]) -> None:
    index, open_with = opened
    for name in ("bulky-a", "bulky-b"):
        stem = name.replace("-", "_")
        index.wheel(
            name,
            "1.0",
            {f"{stem}.py": "", f"{stem}.bin": os.urandom(700_000), f"{stem}_late.py": "SAID = 'still here'"},
        )
    async with open_with(each_mb=1, all_mb=1) as backend:
        spec = python(
            "import bulky_a, sys; print('in', flush=True); input(); import bulky_a_late; print(bulky_a_late.SAID)",
            "bulky-a",
        )
        held = Spec(spec.language, spec.entry, spec.files, LIMITS, packages=spec.packages)
        run = await backend.start(held)
        out = b""
        async for event in backend.events(run):
            if isinstance(event, Output) and event.stream == "stdout":
                out += event.data
                if out == b"in\n":
                    _, other, _ = await ran(backend, python("import bulky_b; print('b')", "bulky-b"))
                    assert other == "b\n"
                    await backend.write(run, b"\n")
        assert out == b"in\nstill here\n"
        said, _, _ = await ran(backend, python("import bulky_b", "bulky-b"))
        said_again, _, _ = await ran(backend, python("import bulky_a", "bulky-a"))
        assert said == "" or said_again == ""  # one of them fits


async def test_a_server_that_is_killed_while_it_builds_leaves_nothing(index: Index, folder: Path) -> None:
    from atelier_runner import open_local

    index.silent.add("killed")
    folder = folder / "killed"
    program = f"""
import asyncio
from pathlib import Path
from atelier_runner import *
async def main():
    kept = EnvironmentOptions(Path({str(folder)!r}), {index.url + "/simple"!r})
    async with open_local(environments=kept) as backend:
        run = await backend.start(Spec("python", "m.py", {{"m.py": b""}}, packages=(Packages("python", ("killed",)),)))
        async for event in backend.events(run):
            print(event, flush=True)
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert b"Installing" in await process.stdout.readline()
    while not os.listdir(folder / "staging"):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    process._transport.close()  # type: ignore[attr-defined]
    async with open_local(limits=LIMITS, environments=options(index, folder)) as backend:
        assert os.listdir(folder / "staging") == []
        _, out, _ = await ran(backend, python("import moo; moo.say()", "moo==1.0"))
        assert out == "moo 1\n"
    async with open_local(limits=LIMITS, environments=options(index, folder)) as backend:
        said, out, _ = await ran(backend, python("import moo; moo.say()", "moo==1.0"))
        assert (said, out) == ("", "moo 1\n")
        out_, _, _ = await finished(backend, python("print(1)"))
        assert out_ == b"1\n"
