"""Terminals: a program in a sandbox with a pseudo-terminal, shared by everyone in the session."""

from atelier.terminals.routes import router
from atelier.terminals.service import Terminals

__all__ = ["Terminals", "router"]
