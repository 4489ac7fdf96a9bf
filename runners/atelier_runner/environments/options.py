"""What environments are kept, and what building one may use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from atelier_runner.model import MIB, Limits

# Where the tools look by themselves, and from where the files then come.
PYTHON_HOSTS = ("pypi.org:443", "files.pythonhosted.org:443")
NODE_HOSTS = ("registry.npmjs.org:443",)


@dataclass(frozen=True, slots=True)
class EnvironmentOptions:
    """Of one runner. An index is an address, and after commas further HOST:PORT from which its files come."""

    folder: Path | None = None
    """Where they are kept; one runner at a time uses it. None: a folder of this process, which goes with it."""
    python_index: str = ""
    """A PEP 503 index; empty: what uv takes by itself."""
    npm_registry: str = ""
    """Empty: what npm takes by itself."""
    each_mb: int = 512
    """MiB of one environment."""
    all_mb: int = 4096
    """MiB of all; beyond it those that were used least lately go."""
    seconds: float = 300.0
    """How long building one may take, and how much CPU time it may use."""
    at_once: int = 2
    """Builds at once; others wait."""

    def __post_init__(self) -> None:
        for address in (self.python_index, self.npm_registry):
            if address:
                _hosts(address)
        if min(self.each_mb, self.all_mb, self.seconds, self.at_once) <= 0:
            raise ValueError("bounds on environments are above zero")
        if self.each_mb > self.all_mb:
            raise ValueError("one environment cannot be larger than all together may be")

    def index(self, tool: str) -> str:
        """Return the address that a tool is told; empty: none."""
        return (self.python_index if tool == "python" else self.npm_registry).partition(",")[0]

    def hosts(self, tool: str) -> tuple[str, ...]:
        """Return what a build may reach, as `name:port`."""
        if tool == "python":
            return _hosts(self.python_index) if self.python_index else PYTHON_HOSTS
        return _hosts(self.npm_registry) if self.npm_registry else NODE_HOSTS

    @property
    def limits(self) -> Limits:
        """Return the bounds on building: the files are there once as they come and once installed, all in memory."""
        return Limits(
            wall_seconds=self.seconds,
            cpu_seconds=self.seconds,
            memory_mb=1024 + 2 * self.each_mb,
            processes=256,
            disk_mb=2 * self.each_mb,
            output_bytes=self.each_mb * MIB * 5 // 4 + 16 * MIB,
        )


def _hosts(address: str) -> tuple[str, ...]:
    """Return the hosts of an index. Raises ValueError."""
    url, *others = (part.strip() for part in address.split(","))
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"an index is http(s)://…, not {url!r}")
    for other in others:
        name, colon, port = other.rpartition(":")
        if not (name and colon and port.isdigit()):
            raise ValueError(f"after an index come HOST:PORT, not {other!r}")
    own = parts.port or (443 if parts.scheme == "https" else 80)
    return (f"{parts.hostname}:{own}", *(other.lower() for other in others))
