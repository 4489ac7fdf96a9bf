"""The interpreter of a session: kept alive, sent cells in order, seen and shared by everyone in it."""

from atelier.interpreters.routes import router
from atelier.interpreters.service import Interpreters

__all__ = ["Interpreters", "router"]
