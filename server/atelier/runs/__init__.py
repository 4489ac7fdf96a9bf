"""Runs of a session's programs."""

from atelier.runs.routes import router
from atelier.runs.service import Runs, build_limits, find_entry, find_language

__all__ = ["Runs", "build_limits", "find_entry", "find_language", "router"]
