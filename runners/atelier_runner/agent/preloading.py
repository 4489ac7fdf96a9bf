"""Modules that are imported before a program comes. Standard library only, like the agent, beside which it lies."""

from __future__ import annotations

import os
import sys


def preload(module: str) -> set[str] | None:
    """Import a module as a program's first line would; returns the names of all that came with it, None if it failed.

    The working folder, which may yet get anything, is not looked at: what it holds then is seen for the first time.
    """
    before = set(sys.modules)
    first = sys.path.pop(0)
    try:
        __import__(module)
    except BaseException:
        return None
    finally:
        sys.path.insert(0, first)
    return set(sys.modules) - before


def is_as_new(loaded: set[str] | None, folder: str) -> bool:
    """Say whether a program in this folder would have imported just what has been imported for it."""
    if not loaded:
        return loaded is not None
    names = {name.partition(".")[0] for name in loaded}
    return not any(found.partition(".")[0] in names for found in os.listdir(folder))
