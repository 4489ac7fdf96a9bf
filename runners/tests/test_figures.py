"""`plt.show()` and `fig.show()` leave figures, whichever way Python is started; the libraries are the sandbox's business.

Where the sandbox's Python has no matplotlib or plotly, their own tests are left out; what both rest on is tried always.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from atelier_runner import Backend, Collect, Limits, Spec, open_local
from atelier_runner.languages import find_tools

from .finished import collected
from .kept import Kept

LIMITS = Limits(wall_seconds=30, cpu_seconds=20, memory_mb=512, processes=64, disk_mb=64)
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend() -> AsyncIterator[Backend]:
    """The local backend of this machine."""
    async with open_local(limits=LIMITS) as opened:
        yield opened


def needs(module: str) -> pytest.MarkDecorator:
    python = find_tools()["python3"].here
    missing = subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode != 0
    assert not missing or os.environ.get("CI") != "true", f"{module} is missing"
    return pytest.mark.skipif(missing, reason=f"{python} has no {module}")


def spec(program: str, language: str = "python", files: dict[str, bytes] | None = None) -> Spec:
    entry = {"python": "main.py", "bash": "main.sh"}[language]
    laid = {**(files or {}), entry: program.encode()}
    return Spec(language, entry, laid, LIMITS, stdin=b"", collect=Collect())


# A package of plotly's shape: the hook must find it where plotly has its renderers, and load it as it is.
RENDERERS = b"""
class ExternalRenderer: pass
class Renderers(dict): default = 'browser'
renderers = Renderers()
"""
IO = b"""
from plotly.io._renderers import renderers
def to_html(figure, include_plotlyjs, **_): return f'<p>{figure} {include_plotlyjs}</p>'
"""
SHOW = "import os; os.chdir('/tmp')\nimport plotly.io\nfor x in (1, 2): plotly.io.renderers[plotly.io.renderers.default].render(x)"


@pytest.mark.parametrize("language", ["python", "bash"])
async def test_the_renderer_is_there_in_a_fork_and_in_a_new_interpreter(
    backend: Backend, language: str
) -> None:
    program = SHOW if language == "python" else "python3 main.py"
    laid = {"plotly/__init__.py": b"", "plotly/io/__init__.py": IO, "plotly/io/_renderers.py": RENDERERS}
    files, result = await collected(backend, spec(program, language, {**laid, "main.py": SHOW.encode()}))
    assert result.code == 0
    assert list(files) == [".atelier/figures/001.html"]
    page = (files[".atelier/figures/001.html"] or b"").decode()
    assert page.endswith("<p>1 True</p>\n<p>2 False</p>\n")


async def test_a_program_that_shows_nothing_leaves_nothing(backend: Backend) -> None:
    program = "import sys, os; print(os.environ['MPLBACKEND'], 'atelier_figures' in sys.modules)"
    files, result = await collected(backend, spec(program))
    assert (files, result.code) == ({}, 0)


@needs("matplotlib")
async def test_matplotlib_shows_each_open_figure_once(backend: Backend) -> None:
    program = """
import matplotlib.pyplot as plt
plt.plot([1, 2]); plt.figure(); plt.plot([2, 1]); plt.show()
plt.show()
fig, axes = plt.subplots(); fig.show(); plt.close(fig)
"""
    files, result = await collected(backend, spec(program))
    assert result.code == 0
    assert list(files) == [f".atelier/figures/00{number}.png" for number in (1, 2, 3)]
    assert all((data or b"").startswith(b"\x89PNG") for data in files.values())


@needs("plotly")
async def test_plotly_shows_a_page_that_needs_nothing_else(backend: Backend) -> None:
    program = "import plotly.graph_objects as go\nfor _ in range(2): go.Figure(go.Bar(x=['a'], y=[1])).show()"
    files, result = await collected(backend, spec(program))
    assert result.code == 0
    page = files[".atelier/figures/001.html"] or b""
    assert len(page) > 1_000_000
    assert len(re.findall(rb'Plotly\.newPlot\(\s*"', page)) == 2


async def test_each_cell_shows_a_page_that_is_whole(backend: Backend) -> None:
    laid = {"plotly/__init__.py": b"", "plotly/io/__init__.py": IO, "plotly/io/_renderers.py": RENDERERS}
    kept = await Kept.begin(backend, limits=LIMITS, files=laid)
    for _ in range(2):
        shown = kept.values[(await kept.cell(SHOW)).cell]
        assert [(value.role, value.media_type) for value in shown] == [("display", "text/html")]
        assert shown[0].data.endswith(b"<p>1 True</p>\n<p>2 False</p>\n")
    await kept.close()


@needs("matplotlib")
async def test_a_cell_shows_its_open_figures_at_its_end_once(backend: Backend) -> None:
    kept = await Kept.begin(backend, limits=LIMITS)
    for code, texts in (
        ("import matplotlib.pyplot as plt\nfig, axes = plt.subplots()\naxes.plot([1, 2])\nfig", 1),
        ("plt.plot([1, 2])\nplt.show();", 0),
        ("from matplotlib.figure import Figure\nalone = Figure()\nalone.subplots().plot([2, 1])\nalone", 1),
    ):
        shown = kept.values[(await kept.cell(code, seconds=40)).cell]
        pictures = [value.data for value in shown if value.media_type == "image/png"]
        assert len(pictures) == 1, shown
        assert pictures[0].startswith(b"\x89PNG")
        assert len(shown) == 1 + texts
    assert not kept.values[(await kept.cell("None")).cell]
    await kept.close()
