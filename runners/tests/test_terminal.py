"""A program in a terminal: one pseudo-terminal for its streams, with a size, keys and job control."""

from __future__ import annotations

import asyncio
import signal

import pytest

from atelier_runner import (
    Backend,
    Changed,
    Collect,
    Exited,
    LanguageUnknown,
    Limits,
    Looked,
    Output,
    Reason,
    Spec,
    SpecInvalid,
    Window,
    open_local,
)

LIMITS = Limits(wall_seconds=20, cpu_seconds=10, output_bytes=1 << 40)
FILES = {"hello.py": b"name = input('Who? ')\nprint(f'Hello {name}')\n", "notes.txt": b"x\n"}


# Says when it is there, and then waits to be interrupted.
WAITING = b"""python3 -c 'import time; print("u" + "p", flush=True); time.sleep(90)'"""
pytestmark = pytest.mark.asyncio(loop_scope="module")


class Screen:
    """What one terminal has shown."""

    def __init__(self, backend: Backend, run: str) -> None:
        self.backend, self.run = backend, run
        self.shown = b""
        self.end: Exited | None = None
        self._more = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for event in self.backend.events(self.run):
            if isinstance(event, Output):
                assert event.stream == "terminal"
                self.shown += event.data
            elif isinstance(event, Exited):
                self.end = event
            self._more.set()

    async def until(self, text: bytes, seconds: float = 10) -> None:
        """Wait until `text` has come, and take all up to it away."""
        try:
            async with asyncio.timeout(seconds):
                while text not in self.shown:
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            raise AssertionError(f"{text!r} never came; there is {self.shown!r}") from None
        self.shown = self.shown.split(text, 1)[1]

    async def type(self, keys: bytes) -> None:
        await self.backend.write(self.run, keys)

    async def ended(self) -> Exited:
        await asyncio.wait_for(self._reading, 10)
        assert self.end is not None
        return self.end


async def opened(backend: Backend, entry: str = "", language: str = "bash", **changes: object) -> Screen:
    spec = Spec(language, entry, FILES, LIMITS, terminal=Window(80, 24), **changes)  # type: ignore[arg-type]
    return Screen(backend, await backend.start(spec))


async def test_a_shell_has_a_terminal_a_size_and_the_files(backend: Backend) -> None:
    screen = await opened(backend)
    await screen.type(
        b"tty; stty size; cat notes.txt; echo $TERM; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo a''ll\n"
    )
    await screen.until(b"/dev/pts/")
    await screen.until(b"24 80\r\nx\r\nxterm-256color\r\nall\r\n")
    await screen.type(b"exit 3\n")
    end = await screen.ended()
    assert (end.reason, end.code) == (Reason.EXITED, 3)


async def test_what_is_typed_is_echoed_and_a_password_is_not(backend: Backend) -> None:
    screen = await opened(backend)
    await screen.type(b"read -s word; echo got $word\n")
    await screen.until(b"read -s word; echo got $word\r\n")
    await screen.type("geheim äö\n".encode())
    await screen.until("got geheim äö\r\n".encode())
    assert b"geheim" not in screen.shown


async def test_ctrl_c_interrupts_the_program_and_not_the_shell(backend: Backend) -> None:
    screen = await opened(backend)
    await screen.type(WAITING + b"; echo after $?\n")
    await screen.until(b"up\r\n")
    await screen.type(b"\x03")
    await screen.until(b"^C")
    await screen.until(b"$ ")
    await screen.type(b"echo still he''re\n")
    await screen.until(b"still here")


async def test_signals_work_also_where_the_server_ignores_them() -> None:
    ignored = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTSTP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
    try:
        async with open_local(limits=LIMITS) as backend:
            await backend.warm()
            screen = await opened(backend)
            await screen.type(WAITING + b"; echo after $?\n")
            await screen.until(b"up\r\n")
            await screen.type(b"\x03")
            await screen.until(b"^C")
            await screen.type(WAITING + b"\n")
            await screen.until(b"up\r\n")
            await screen.type(b"\x1a")
            await screen.until(b"Stopped")
            program = b"import time\ntry: print('on', flush=True); time.sleep(60)\nexcept KeyboardInterrupt: print('caught')"
            run = await backend.start(Spec("python", "m.py", {"m.py": program}, LIMITS))
            printed = b""
            async for event in backend.events(run):
                if isinstance(event, Output):
                    printed += event.data
                    if printed == b"on\n":
                        await backend.signal(run, "INT")
            assert printed == b"on\ncaught\n"
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def test_jobs_stop_and_go_on(backend: Backend) -> None:
    screen = await opened(backend)
    await screen.type(WAITING + b"\n")
    await screen.until(b"up\r\n")
    await screen.type(b"\x1a")
    await screen.until(b"Stopped")
    await screen.type(b"kill %1; wait; echo en''d\n")
    await screen.until(b"end\r\n")


async def test_a_new_size_reaches_the_program(backend: Backend) -> None:
    screen = await opened(backend)
    await screen.type(b"trap 'echo si''ze $(stty size)' WINCH; echo re''ady\n")
    await screen.until(b"ready")
    await backend.resize(screen.run, Window(133, 51))
    await screen.type(b"\n")
    await screen.until(b"size 51 133")
    with pytest.raises(SpecInvalid):
        await backend.resize(screen.run, Window(0, 24))


async def test_an_entry_runs_in_a_terminal(backend: Backend) -> None:
    screen = await opened(backend, "hello.py", "python")
    await screen.until(b"Who? ")
    await screen.type(b"Ada\n")
    await screen.until(b"Hello Ada\r\n")
    assert (await screen.ended()).code == 0


async def test_python_and_node_have_prompts(backend: Backend) -> None:
    ready = {name for name, language in (await backend.languages()).items() if language.info.version}
    prompts = {"python": b">>> ", "javascript": b"> "}
    assert "python" in ready
    for language, prompt in ((name, prompts[name]) for name in ready & prompts.keys()):
        screen = await opened(backend, "", language)
        await screen.until(prompt)
        await screen.type(b"6 * 7\n")
        await screen.until(b"42")
        await screen.until(prompt)  # between two reads a terminal takes the end of input for a character
        await backend.write(screen.run, b"", close=True)
        assert (await screen.ended()).reason is Reason.EXITED


async def test_the_end_of_input_ends_the_shell(backend: Backend) -> None:
    screen = await opened(backend)
    await screen.until(b"$ ")
    await backend.write(screen.run, b"", close=True)
    assert (await screen.ended()).code == 0


async def test_a_paste_larger_than_any_buffer_arrives_whole(backend: Backend) -> None:
    screen = await opened(backend)
    await screen.type(b"stty raw -echo; echo rea''dy; head -c 300000 | cksum; stty sane; echo do''ne\n")
    await screen.until(b"ready")
    await screen.type(b"a" * 300_000)
    await screen.until(b"300000")
    await screen.until(b"done")


async def test_what_outlives_the_shell_ends_with_it(backend: Backend) -> None:
    screen = await opened(backend)
    await screen.type(b"setsid sleep 77 </dev/null >/dev/null 2>&1 & disown; exit\n")
    end = await screen.ended()
    assert end.reason is Reason.EXITED


async def test_a_flood_waits_for_its_reader_and_can_be_interrupted(backend: Backend) -> None:
    screen = await opened(backend)
    await screen.type(b"yes flood\n")
    await screen.until(b"flood\r\nflood\r\n")
    await screen.type(b"\x03")
    await screen.type(b"echo ov''er\n")
    await screen.until(b"over\r\n", 15)


async def test_stop_ends_it(backend: Backend) -> None:
    screen = await opened(backend)
    await screen.until(b"$ ")
    await backend.cancel(screen.run)
    assert (await screen.ended()).reason is Reason.CANCELLED


async def test_files_come_and_go_while_it_runs(backend: Backend) -> None:
    screen = await opened(backend)
    large = b"0123456789" * 70_000
    await backend.bring(
        screen.run,
        {"new/deep/file.txt": b"fresh\n", "notes.txt": None, "hello.py": b"changed\n", "large": large},
    )
    await screen.type(b"cat new/deep/file.txt hello.py; ls -A; wc -c large\n")
    await screen.until(b"fresh\r\nchanged\r\n")
    await screen.until(b"700000 large")
    assert b"notes.txt" not in screen.shown
    assert b".atelier" not in screen.shown


async def test_a_file_that_comes_replaces_what_lies_in_its_way(backend: Backend) -> None:
    screen = await opened(backend)
    await screen.type(
        b"rm notes.txt hello.py; mkfifo notes.txt; ln -s /dev/full hello.py; mkdir locked; chmod 0 locked; echo re''ady\n"
    )
    await screen.until(b"ready")
    await backend.bring(
        screen.run, {"notes.txt": b"a\n", "hello.py": b"b\n", "locked/x": b"", "after": b"c\n"}
    )
    await screen.until(b"could not be brought here: Permission denied")
    await screen.type(b"cat notes.txt hello.py after\n")
    await screen.until(b"a\r\nb\r\nc\r\n")
    with pytest.raises(SpecInvalid):
        await backend.bring(screen.run, {"../out": b""})


async def test_a_full_disk_is_said_and_what_was_there_stays(backend: Backend) -> None:
    screen = await opened(backend)
    await screen.type(b"head -c 60M /dev/zero > filler; echo fi''lled\n")
    await screen.until(b"filled")
    await backend.bring(screen.run, {"notes.txt": b"y" * (8 << 20), "small": b"ok\n"})
    await screen.until(b"No space left")
    await screen.type(b"cat small notes.txt\n")
    await screen.until(b"ok\r\nx\r\n")


@pytest.mark.parametrize("window", [Window(0, 24), Window(80, 0), Window(1001, 24), Window(80, -1)])
async def test_a_size_that_no_terminal_has_is_refused(backend: Backend, window: Window) -> None:
    with pytest.raises(SpecInvalid) as refused:
        await backend.start(Spec("bash", "", {}, LIMITS, terminal=window))
    assert refused.value.code == "window_invalid"


async def test_without_an_entry_there_must_be_a_terminal_and_a_prompt(backend: Backend) -> None:
    with pytest.raises(SpecInvalid):
        await backend.start(Spec("bash", "", {}, LIMITS))
    with pytest.raises(LanguageUnknown):
        await backend.start(Spec("c", "", {}, LIMITS, terminal=Window(80, 24)))


async def test_what_it_writes_comes_back_while_it_runs(backend: Backend) -> None:
    spec = Spec("bash", "", FILES, LIMITS, terminal=Window(80, 24), collect=Collect())
    run = await backend.start(spec)
    changes: list[tuple[str, bytes | None]] = []
    printed = b""
    steps = [
        b"echo new > made.txt; rm hello.py; echo st''ep1\n",
        b"echo more >> made.txt; touch notes.txt; echo st''ep2\n",
        b"head -c 300000 /dev/zero > big; mv made.txt moved.txt; echo st''ep3\n",
        b"echo last > last.txt; exit\n",
    ]
    looked = 0
    await backend.write(run, steps[0])
    async for event in backend.events(run):
        if isinstance(event, Output):
            printed += event.data
            if b"step%d\r\n" % (looked + 1) in printed:
                printed = b""
                await backend.look(run)
        elif isinstance(event, Changed):
            changes.append((event.path, event.data))
        elif isinstance(event, Looked):
            looked += 1
            if looked == 1:
                assert sorted(changes) == [("hello.py", None), ("made.txt", b"new\n")]
                await backend.bring(run, {"placed.txt": b"from outside\n", "moved.txt": b"in the way\n"})
            elif looked == 2:
                assert changes == [("made.txt", b"new\nmore\n")]
            else:
                assert sorted(changes, key=lambda change: change[0]) == [
                    ("big", bytes(300_000)),
                    ("made.txt", None),
                    ("moved.txt", b"new\nmore\n"),
                ]
            changes.clear()
            await backend.write(run, steps[looked])
        elif isinstance(event, Exited):
            assert changes == [("last.txt", b"last\n")]
            assert event.collected is not None
            assert event.collected.complete
    assert looked == 3


async def test_looks_while_files_change_all_the_time_end_with_what_is_there(backend: Backend) -> None:
    program = b"""
import os, random
end = 0
for n in range(3000):
    name = f"f{random.randrange(20)}"
    what = random.random()
    if what < 0.2 and os.path.exists(name):
        os.remove(name)
    elif what < 0.3:
        os.replace(name, f"f{random.randrange(20)}") if os.path.exists(name) else None
    else:
        with open(name, random.choice("wa")) as file:
            file.write("x" * random.randrange(300_000) if what < 0.5 else str(n))
print("over", flush=True)
input()
"""
    spec = Spec("python", "m.py", {"m.py": program}, LIMITS, terminal=Window(80, 24), collect=Collect())
    run = await backend.start(spec)
    here: dict[str, bytes | None] = {}
    looks = 0
    over = False
    await backend.look(run)
    async for event in backend.events(run):
        if isinstance(event, Output):
            over = over or b"over" in event.data
        elif isinstance(event, Changed):
            here[event.path] = event.data
        elif isinstance(event, Looked):
            looks += 1
            if not over:
                await backend.look(run)
            elif over:
                seen = dict(here)
                await backend.write(run, b"\n")
        elif isinstance(event, Exited):
            assert (event.reason, event.code) == (Reason.EXITED, 0), event
    assert looks > 3
    assert here.keys() == seen.keys()
