"""The past of documents: who wrote what when, going back, named versions of a session."""

from atelier.history.letting_go import disown, forget_older, forget_regularly
from atelier.history.routes import router

__all__ = ["disown", "forget_older", "forget_regularly", "router"]
