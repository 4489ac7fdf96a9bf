"""Python runs in a fork of the agent: every program must behave as in a new interpreter, which runs beside it here."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from atelier_runner import Backend, Exited, Limits, Output, Reason, Spec, open_local

from .finished import finished, sandbox_of

LIMITS = Limits(wall_seconds=10, cpu_seconds=8, memory_mb=256, processes=32, disk_mb=8)
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend() -> AsyncIterator[Backend]:
    """The local backend of this machine."""
    async with open_local(limits=LIMITS) as opened:
        yield opened


PROGRAMS = {
    "arguments and places": "import sys, os\nprint(sys.argv, sys.path, os.getcwd(), __file__, __name__, __package__, __spec__, sys.executable)",
    "its own namespace": "print(sorted(globals()))",
    "modules at the start": "import sys\nprint('json' in sys.modules, 'select' in sys.modules, 'struct' in sys.modules)",
    "a module that shadows the standard library": "import json\nprint(json.MINE)",
    "a package": "from pkg.mod import x\nprint(x)",
    "an error": "def f():\n    return 1 / 0\n\nprint('before')\nf()",
    "an error with a cause": "try:\n    {}['x']\nexcept KeyError as error:\n    raise ValueError('no') from error",
    "an error while handling one": "try:\n    {}['x']\nexcept KeyError:\n    int('y')",
    "an exception group": "raise ExceptionGroup('many', [ValueError(1), TypeError(2)])",
    "an error in an import": "import broken",
    "a syntax error": "def f(:\n    pass",
    "bad indentation": "if True:\n    x = 1\n  y = 2",
    "another encoding": "# -*- coding: latin-1 -*-\nprint('gr\u00fc\u00df')",
    "too deep": "def f(): f()\ntry:\n    f()\nexcept RecursionError as error:\n    print(error)",
    "exit with a number": "import sys\nsys.exit(7)",
    "exit with a text": "import sys\nsys.exit('farewell')",
    "exit with nothing": "raise SystemExit",
    "leaving at once": "import os\nos._exit(5)",
    "a signal": "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)",
    "an interrupt": "raise KeyboardInterrupt",
    "abort": "import os\nos.abort()",
    "at exit": "import atexit\natexit.register(print, 'last')\nprint('first')",
    "a thread that outlives the main one": "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.05), print('done'))).start()\nprint('main')",
    "an error in a thread": "import threading\nt = threading.Thread(target=lambda: 1 / 0, name='T')\nt.start(); t.join()",
    "an excepthook of its own": "import sys\nsys.excepthook = lambda *a: print('mine', a[0].__name__)\n1 / 0",
    "warnings": "import warnings\nwarnings.warn('careful')\nprint('on')",
    "input": "name = input('name? ')\nprint(name)\nimport sys\nprint(repr(sys.stdin.read()))",
    "no input left": "import sys\nsys.stdin.read()\ninput()",
    "streams": "import sys\nfor s in (sys.stdin, sys.stdout, sys.stderr):\n    print(s.name, s.encoding, s.errors, s.isatty(), s.fileno(), s.mode, s.line_buffering)\nprint(sys.stdout is sys.__stdout__)",
    "bytes and text in order": "import sys\nsys.stdout.write('a')\nsys.stdout.buffer.write(b'\\xff')\nprint('b', end='')",
    "surrogates": "print('\\udc80')",
    "pickle of a class of main": "import pickle\nclass A: x = 1\nprint(pickle.loads(pickle.dumps(A())).x)",
    "source of a function": "import inspect\ndef f():\n    return 1\nprint(inspect.getsource(f))",
    "data classes": "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\nprint(A(1))",
    "unit tests": "import unittest\nclass T(unittest.TestCase):\n    def test_a(self): self.assertEqual(1, 1)\nunittest.main(argv=['x'], verbosity=0, exit=False)",
    "processes by fork": "import multiprocessing as m\ndef f(x): return x * x\nif __name__ == '__main__':\n    with m.Pool(2) as p: print(p.map(f, range(4)))",
    "processes by spawn": "import multiprocessing as m\ndef f(q): q.put(3)\nif __name__ == '__main__':\n    m.set_start_method('spawn')\n    q = m.Queue(); p = m.Process(target=f, args=(q,)); p.start(); print(q.get()); p.join()",
    "a subprocess": "import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', 'print(6*7)'], capture_output=True, text=True).stdout)",
    "asyncio": "import asyncio\nasync def main():\n    p = await asyncio.create_subprocess_exec('echo', 'hi', stdout=-1)\n    print((await p.communicate())[0])\nasyncio.run(main())",
    "signals as they come": "import signal\nprint([signal.getsignal(s) for s in (signal.SIGINT, signal.SIGPIPE, signal.SIGCHLD, signal.SIGTERM, signal.SIGXFSZ)])",
    "an alarm": "import signal, time\nsignal.signal(signal.SIGALRM, lambda *a: print('ring'))\nsignal.setitimer(signal.ITIMER_REAL, 0.02)\nsignal.pause()",
    "open files": "import os\nprint(sorted(os.listdir('/proc/self/fd'))[:3], len(os.listdir('/proc/self/fd')))",
    "environment": "import os\nprint(sorted(k for k in os.environ if k not in ('_', 'OLDPWD', 'SHLVL', 'PWD')))",
    "a closed stdout": "import sys, os\nos.close(1)\nprint('x')",
    "a full device": "open('/dev/full', 'w').write('x')",
}
SHELL_SAYS = {b"Terminated"}  # of its own accord, when its child was ended by a signal
FILES = {
    "json.py": b"MINE = 'mine'",
    "broken.py": b"import nothing_of_this_name",
    "pkg/__init__.py": b"",
    "pkg/mod.py": b"x = 42",
}


@pytest.mark.parametrize("name", list(PROGRAMS))
async def test_a_fork_of_the_agent_is_as_good_as_a_new_interpreter(backend: Backend, name: str) -> None:
    source = PROGRAMS[name].encode("latin-1" if "latin-1" in PROGRAMS[name] else "utf-8")
    files = {"main.py": source, "new.sh": b'python3 -u main.py "$@"', **FILES}
    if "shadows" not in name and "modules" not in name:
        del files["json.py"]
    forked = await finished(backend, Spec("python", "main.py", files, LIMITS, ("a", "-b"), b"Ada\nrest"))
    fresh = await finished(backend, Spec("bash", "new.sh", files, LIMITS, ("a", "-b"), b"Ada\nrest"))
    assert forked[0] == fresh[0], (forked, fresh)
    shell = [
        line
        for line in fresh[1].splitlines()
        if line not in SHELL_SAYS and not line.startswith(b"new.sh: line")
    ]
    assert forked[1].splitlines() == shell
    code = fresh[2].code
    if forked[2].reason is Reason.SIGNALLED:
        assert code is not None and code > 128  # the shell's way to say a signal
    else:
        assert (forked[2].reason, forked[2].code) == (Reason.EXITED, code)


async def test_every_language_gets_input_arguments_and_binary_output(backend: Backend) -> None:
    programs = {
        "main.py": b"import sys\nsys.stdout.buffer.write(bytes(range(256)) + sys.stdin.buffer.read() + sys.argv[1].encode())",
        "main.js": b"const i = require('fs').readFileSync(0);\nprocess.stdout.write(Buffer.concat([Buffer.from([...Array(256).keys()]), i, Buffer.from(process.argv[2])]));",
        "main.ts": b"import { readFileSync } from 'node:fs';\nenum From { Zero = 0 }\nconst all: number[] = [...Array(256).keys()].map((x) => x + From.Zero);\nprocess.stdout.write(Buffer.concat([Buffer.from(all), readFileSync(0), Buffer.from(process.argv[2])]));",
        "main.sh": b'for i in {0..255}; do printf "\\\\x$(printf %x $i)"; done; cat; printf %s "$1"',
    }
    names = {".py": "python", ".js": "javascript", ".ts": "typescript", ".sh": "bash"}
    for entry, source in programs.items():
        spec = Spec(names[entry[4:]], entry, {entry: source}, Limits(disk_mb=8), ("\u00e4 b",), b"\0\xff in")
        out, err, result = await finished(backend, spec)
        assert out == bytes(range(256)) + b"\0\xff in" + "\u00e4 b".encode(), (entry, err)
        assert (result.reason, result.code) == (Reason.EXITED, 0)


async def test_more_than_any_buffer_goes_in_and_out_without_a_jam(backend: Backend) -> None:
    data = bytes(range(256)) * 12_000  # 3 MB both ways at once
    spec = Spec(
        "python",
        "main.py",
        {"main.py": b"import sys\nwhile d := sys.stdin.buffer.read1(5000): sys.stdout.buffer.write(d)"},
        Limits(disk_mb=8, output_bytes=len(data)),
        stdin=data,
    )
    out, _, result = await finished(backend, spec)
    assert out == data
    assert result.code == 0


async def test_large_files_arrive_whole_and_too_large_ones_are_refused_by_name(backend: Backend) -> None:
    files = {
        "main.py": b"import hashlib\nprint(hashlib.sha256(open('deep/er/big', 'rb').read()).hexdigest())",
        "deep/er/big": bytes(range(256)) * 20_000,
        "deep/er/empty": b"",
    }
    out, err, _ = await finished(backend, Spec("python", "main.py", files, LIMITS, stdin=b""))
    assert len(out) == 65, err
    clash = {"main.py": b"", "a": b"", "a/b": b""}
    _, _, result = await finished(backend, Spec("python", "main.py", clash, LIMITS, stdin=b""))
    assert result.reason is Reason.LOST
    assert result.detail


async def test_a_killed_agent_is_said_to_be_lost(backend: Backend) -> None:
    run_id = await backend.start(
        Spec("python", "main.py", {"main.py": b"import time; print(1); time.sleep(9)"}, LIMITS)
    )
    async for event in backend.events(run_id):
        if isinstance(event, Output):
            sandbox_of(backend, run_id).kill()
    assert isinstance(event, Exited)
    assert event.reason is Reason.LOST
