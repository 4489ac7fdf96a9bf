"""Runs of a session's programs."""

from atelier.runs.routes import router
from atelier.runs.service import Runs

__all__ = ["Runs", "router"]
