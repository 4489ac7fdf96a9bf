"""Programs that begin with their modules imported cannot tell, and are only those that cannot; strict mode never does it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from atelier_runner import Backend, Limits, Reason, Spec, open_local
from atelier_runner.local import LocalCarrier
from atelier_runner.model import Window
from atelier_runner.preloading import imported, module_for

from .finished import finished

LIMITS = Limits(wall_seconds=20, cpu_seconds=10, memory_mb=256, processes=32, disk_mb=8)
OFFERED = ("numpy", "pandas")
MODULE = "unittest"
"""It brings many others along, and every Python has it."""
with_backend = pytest.mark.asyncio(loop_scope="module")


def program(source: str, files: dict[str, bytes] | None = None, limits: Limits = LIMITS) -> Spec:
    return Spec("python", "main.py", {"main.py": source.encode(), **(files or {})}, limits, stdin=b"")


@pytest.mark.parametrize(
    ("source", "names"),
    [
        (b"import numpy", {"numpy"}),
        (b"import numpy as np, os.path\n", {"numpy", "os"}),
        (b"from pandas.core import frame", {"pandas"}),
        (b"def f():\n    import pandas as pd # why\n", {"pandas"}),
        (b"from . import numpy\n#import pandas\nx = 'import json'\nimportant = 1", {""}),
        (b"\xff\xfe import", set()),
        (b"import numpy\r\nimport pandas\r\n", {"numpy", "pandas"}),
    ],
)
def test_import_lines_are_read(source: bytes, names: set[str]) -> None:
    assert imported(source) == names


def test_the_last_module_that_is_imported_is_the_one() -> None:
    assert module_for(program("import numpy"), OFFERED) == "numpy"
    assert module_for(program("import pandas, numpy"), OFFERED) == "pandas"
    assert module_for(program("print(1)"), OFFERED) == ""
    assert module_for(program("import pandas"), ()) == ""
    assert module_for(program("import pandas"), ("numpy",)) == ""


@pytest.mark.parametrize(
    "line",
    [
        "import sys; sys.path.insert(0, 'lib')", "from sys import modules", "import os; os.environ['OMP_NUM_THREADS'] = '1'",
        "import importlib", "__import__('x')", "import sys; print(sys . modules)",
    ],
)  # fmt: skip
def test_who_could_tell_gets_an_interpreter_like_any_other(line: str) -> None:
    assert module_for(program(f"{line}\nimport numpy"), OFFERED) == ""
    assert module_for(program("import own, numpy", {"own.py": line.encode()}), OFFERED) == ""
    assert module_for(program("import numpy", {"notes.txt": line.encode()}), OFFERED) == "numpy"


def test_limits_variables_and_terminals_are_left_alone() -> None:
    spec = program("import numpy")
    for other in (
        replace(spec, limits=replace(LIMITS, memory_mb=64)),
        replace(spec, limits=replace(LIMITS, processes=4)),
        replace(spec, env={"NPY_DISABLE_CPU_FEATURES": "AVX2"}),
        replace(spec, terminal=Window(80, 24)),
        replace(spec, terminal=Window(80, 24), entry=""),
    ):
        assert module_for(other, OFFERED) == ""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend() -> AsyncIterator[Backend]:
    """A backend that can preload a module of the standard library, which every machine has."""
    async with open_local(limits=LIMITS, pool_size=1) as opened:
        languages = await opened.languages()
        languages["python"] = replace(languages["python"], preload=(MODULE, *languages["python"].preload))
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def strict() -> AsyncIterator[Backend]:
    """A strict one, of the same offers."""
    async with open_local(limits=LIMITS, pool_size=1, strict=True) as opened:
        languages = await opened.languages()
        languages["python"] = replace(languages["python"], preload=(MODULE, *languages["python"].preload))
        yield opened


async def warm(backend: Backend, module: str = MODULE) -> None:
    """Wait until a sandbox waits that has the module."""
    carrier = backend._carrier
    assert isinstance(carrier, LocalCarrier)
    if module not in carrier._preloaded:
        await finished(backend, program(f"import {module}"))
    async with asyncio.timeout(30):
        while not carrier._preloaded[module].waiting:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def found_warm(backend: Backend, module: str = MODULE) -> int:
    carrier = backend._carrier
    assert isinstance(carrier, LocalCarrier)
    return carrier._preloaded[module].warm if module in carrier._preloaded else 0


PROGRAMS = {
    "it is there": "import unittest\nprint(unittest.TestCase.__module__, unittest.__file__)",
    "what came along is the same thing": "import unittest, logging, re\nfrom unittest import _log\nprint(_log.logging is logging, re.compile('a').flags)",
    "tests of its own": "import unittest\nclass T(unittest.TestCase):\n    def test_a(self): self.assertEqual(1, 2)\nprint(unittest.defaultTestLoader.loadTestsFromTestCase(T).run(unittest.TestResult()))",
    "an error": "import unittest\ndef f(): return 1 / 0\nf()",
    "pickled classes": "import unittest, pickle\nclass A: x = 1\nprint(pickle.loads(pickle.dumps(A())).x)",
    "threads": "import unittest, threading\nt = threading.Thread(target=print, args=(threading.main_thread() is threading.current_thread(),)); t.start(); t.join()",
    "signals": "import unittest, signal\nprint([signal.getsignal(s) for s in (signal.SIGINT, signal.SIGPIPE, signal.SIGTERM)])",
    "processes": "import unittest, subprocess, sys\nprint(subprocess.run([sys.executable, '-c', 'print(6*7)'], capture_output=True, text=True).stdout)",
    "arguments and places": "import unittest, sys, os\nprint(sys.argv, os.getcwd(), __file__, sys.stdout.name)",
    "its environment": "import unittest, os\nprint(sorted(os.listdir('/work')), sorted(os.listdir('/tmp')))",
    "data classes": "import unittest\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\nprint(A(1))",
    "warnings": "import unittest, warnings\nwarnings.warn('careful')",
    "at exit": "import unittest, atexit\natexit.register(print, 'last')",
    "its own helper": "import unittest, helper\nprint(helper.x)",
}


@with_backend
@pytest.mark.parametrize("name", list(PROGRAMS))
async def test_no_program_can_tell(backend: Backend, strict: Backend, name: str) -> None:
    spec = program(PROGRAMS[name], {"helper.py": b"x = 42"})
    await warm(backend)
    before = found_warm(backend)
    out, err, result = await finished(backend, spec)
    assert found_warm(backend) == before + 1
    fresh_out, fresh_err, fresh = await finished(strict, spec)
    assert (out, err, result.reason, result.code) == (fresh_out, fresh_err, fresh.reason, fresh.code)


@with_backend
@pytest.mark.parametrize("path", ["unittest.py", "unittest/__init__.py", "random.py", "logging/__init__.py"])
async def test_a_file_of_its_own_comes_first(backend: Backend, strict: Backend, path: str) -> None:
    name = path.partition("/")[0].partition(".")[0]
    source = f"import unittest\nimport {name}\nprint({name}.MINE)"
    spec = program(source, {path: b"MINE = 'mine'\nclass Random: pass\n"})
    await warm(backend)
    out, _, result = await finished(backend, spec)
    fresh_out, _, fresh = await finished(strict, spec)
    assert (out, result.code) == (fresh_out, fresh.code)
    assert result.code != 0 or out == b"mine\n"


@with_backend
async def test_each_has_a_hash_seed_and_random_numbers_of_its_own(backend: Backend) -> None:
    seen = set()
    for _ in range(4):
        await warm(backend)
        out, _, _ = await finished(
            backend, program("import unittest, random\nprint(hash('x'), random.random())")
        )
        seen.update(out.split())
    assert len(seen) == 8


@with_backend
async def test_strict_has_nothing_imported_and_no_interpreter_that_was_there_before(strict: Backend) -> None:
    source = "import unittest, os\nprint(open('/proc/self/cmdline').read().split('\\0')[1:3])"
    out, _, _ = await finished(strict, program(source))
    assert out == b"['-u', 'main.py']\n"
    assert found_warm(strict) == 0


@with_backend
async def test_time_and_memory_of_the_import_are_not_the_program_s(backend: Backend) -> None:
    await warm(backend)
    _, _, result = await finished(
        backend, program("import unittest\nwhile True: pass", limits=replace(LIMITS, cpu_seconds=1))
    )
    assert result.reason is Reason.CPU_TIME
    assert result.cpu_seconds >= 1


@with_backend
async def test_numpy_and_pandas_where_they_are_installed(backend: Backend, strict: Backend) -> None:
    offered = (await backend.languages())["python"].preload
    if "pandas" not in offered:
        assert os.environ.get("CI") != "true", "the sandbox's Python has no pandas"
        pytest.skip("pandas is missing: apt-get install python3-pandas")
    source = (
        "import numpy as np\nimport pandas as pd\nframe = pd.DataFrame({'a': np.arange(5), 'b': list('vwxyz')})\n"
        "print(frame.groupby('b').a.sum().to_json(), np.linalg.norm(np.eye(9)))"
    )
    await warm(backend, "pandas")
    before = found_warm(backend, "pandas")
    out, err, result = await finished(backend, program(source))
    assert found_warm(backend, "pandas") == before + 1
    fresh = await finished(strict, program(source))
    assert (out, err, result.code) == (fresh[0], fresh[1], 0)
    numbers = set()
    for _ in range(2):
        await warm(backend, "numpy")
        out, _, _ = await finished(backend, program("import numpy\nprint(numpy.random.rand())"))
        numbers.add(out)
    assert len(numbers) == 2
