"""What happened in a session, numbered, live and resumable."""

from atelier.events.routes import router
from atelier.events.service import forget_old, publish, publish_transient

__all__ = ["forget_old", "publish", "publish_transient", "router"]
