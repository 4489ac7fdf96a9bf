"""Runs of a session's programs."""

from atelier.runs.exchange import Exchange
from atelier.runs.recorder import Recorder
from atelier.runs.routes import router
from atelier.runs.service import Runs, build_limits, find_entry, find_language
from atelier.runs.showing import shown

__all__ = [
    "Exchange",
    "Recorder",
    "Runs",
    "build_limits",
    "find_entry",
    "find_language",
    "router",
    "shown",
]
