"""The runner as a service: sandboxes for others, over HTTP and WebSockets. `PROTOCOL.md` has the conversation."""

from atelier_runner.service.app import create_app
from atelier_runner.service.options import Options
from atelier_runner.service.runs import HostedRuns

__all__ = ["HostedRuns", "Options", "create_app"]
