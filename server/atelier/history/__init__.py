"""The past of documents: who wrote what when, going back, named versions of a session."""

from atelier.history.routes import router

__all__ = ["router"]
