"""The hub: live documents over WebSockets, in two dialects over one core."""

from atelier.hub.line import LineProtocol
from atelier.hub.rooms import Rooms
from atelier.hub.routes import routes

__all__ = ["LineProtocol", "Rooms", "routes"]
