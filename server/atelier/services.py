"""Everything that is open while the server runs; built by `wiring`, read through `deps`."""

from __future__ import annotations

from dataclasses import dataclass

from atelier.blobs import Blobs
from atelier.bus import Bus
from atelier.db import Database
from atelier.egress import Egress
from atelier.limits import Limits
from atelier.log import Log
from atelier.mail import Mail
from atelier.sandbox import Sandbox
from atelier.tasks import TaskGroup


@dataclass(frozen=True, slots=True)
class Services:
    db: Database
    log: Log
    bus: Bus
    sandbox: Sandbox
    blobs: Blobs
    mail: Mail
    egress: Egress
    """The server's own way out."""
    program_egress: bool
    """Whether owners may let a session's programs reach the internet."""
    limits: Limits
    public_url: str
    """Without a trailing slash."""
    secret_key: str
    sign_up: bool
    """The setting's value; the admin's switch `sign_up` overrides it."""
    tasks: TaskGroup
    """Background work that ends with the server."""
