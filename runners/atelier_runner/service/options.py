"""What a runner service is told when it starts, and the bounds on everything that reaches it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from atelier_runner.demand import MOST_WAITING, POOL_MEMORY_MB
from atelier_runner.environments import EnvironmentOptions
from atelier_runner.model import Limits


@dataclass(frozen=True, slots=True)
class Options:
    """Built once from the command line; the secret comes from ATELIER_RUNNER_SECRET."""

    host: str = "127.0.0.1"
    port: int = 7700
    secret: str = field(default="", repr=False)
    """What whoever asks must know; may be empty on loopback alone."""
    untrusted: bool = False
    """Refuse to run anything while a control is absent."""
    join: str = ""
    """redis://…: where this runner registers and claims runs; empty: runs come over HTTP alone."""
    address: str = ""
    """How servers reach this runner when it has registered; empty: where it listens."""
    carrier: str = "embedded://"
    """Where programs run; see `open_backend`."""
    strict: bool = False
    """Start a new interpreter for every program."""
    pool: int = 2
    """Sandboxes that wait, started, at least."""
    pool_most: int = MOST_WAITING
    """And at most, when many are asked for."""
    pool_memory_mb: int = POOL_MEMORY_MB
    """MiB that those which wait may hold together."""
    runs: int = max(4, 2 * (os.cpu_count() or 1))
    """Runs at once."""
    highest: Limits = field(
        default_factory=lambda: Limits(
            wall_seconds=24 * 3600.0,
            cpu_seconds=24 * 3600.0,
            memory_mb=4096,
            processes=512,
            disk_mb=256,
            output_bytes=1 << 50,  # what is kept of it is bounded, whatever comes
        )
    )
    """What a run may ask for at most."""
    environments: EnvironmentOptions = field(default_factory=EnvironmentOptions)
    """Where installed packages are kept and come from, and how much of them there may be."""
    head_seconds: float = 10.0
    """How long a connection may say nothing before its first request."""
    body_seconds: float = 60.0
    """How long a request's body may take."""
    held_mb: int = 1024
    """MiB of the files of all runs together, which are held in memory until they end."""
    connections: int = 512
    """Connections at once."""
    grace_seconds: float = 30.0
    """Without a word from its reader a run goes on so long, unless it says otherwise."""
    longest_grace_seconds: float = 600.0
    keep_seconds: float = 60.0
    """How long the events of a run that has ended are kept for a reader."""
