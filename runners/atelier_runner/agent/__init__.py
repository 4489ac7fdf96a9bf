"""The agent, standard library only, is the first process inside every sandbox: `agent.py`, with its parts beside it.

`library/` is what every Python of a sandbox finds on its path. Nothing here is ever imported by the host.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = "/opt/atelier"
"""Where all of it is inside a sandbox."""
AGENT = f"{FOLDER}/agent.py"
COMPILED = f"{FOLDER}/agent.pyc"
"""The same, where a carrier can have it compiled before."""
LIBRARY = f"{FOLDER}/library"


def inside(agent: bytes | None = None) -> dict[str, bytes]:
    """Return what a sandbox needs, by its path inside; `agent` replaces the agent's own source."""
    here = Path(__file__).parent
    paths = [path for path in here.rglob("*.py") if path != here / "__init__.py"]
    found = {f"{FOLDER}/{path.relative_to(here)}": path.read_bytes() for path in paths}
    return found if agent is None else {**found, AGENT: agent}
