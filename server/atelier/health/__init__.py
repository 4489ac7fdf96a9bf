"""Whether the server is alive, ready, and what it counts."""

from atelier.health.routes import router

__all__ = ["router"]
