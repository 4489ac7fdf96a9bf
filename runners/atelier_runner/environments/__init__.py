"""Environments: folders of installed packages, built once in a sandbox, then read-only for every run.

`Environments` is what a backend asks; `store` keeps them on disk, `build` lets uv or npm make one, `archive` takes it out
of its sandbox, `preparing` is a run that waits for one. `install.py` is never imported here: it runs inside the sandbox.
"""

from __future__ import annotations

from atelier_runner.environments.options import EnvironmentOptions
from atelier_runner.environments.preparing import Preparing
from atelier_runner.environments.service import Environments, Held
from atelier_runner.environments.store import Store, open_store

__all__ = ["EnvironmentOptions", "Environments", "Held", "Preparing", "Store", "open_store"]
