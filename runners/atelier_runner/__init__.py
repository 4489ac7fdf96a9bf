"""Runs untrusted programs in sandboxes and streams what they print. `open_backend` is the way in."""

from atelier_runner.backend import Backend
from atelier_runner.demand import MOST_WAITING, POOL_MEMORY_MB
from atelier_runner.docker_carrier import open_docker
from atelier_runner.environments import EnvironmentOptions
from atelier_runner.errors import LanguageUnknown, RunnerError, RunUnknown, SandboxUnavailable, SpecInvalid
from atelier_runner.kubernetes_carrier import open_kubernetes
from atelier_runner.local import open_local
from atelier_runner.model import (
    BuildLimits,
    Capabilities,
    CellBegan,
    CellEnded,
    CellError,
    CellLimits,
    CellValue,
    Changed,
    Collect,
    Collected,
    Control,
    Event,
    Exited,
    LanguageInfo,
    LeftOut,
    Limits,
    Looked,
    Network,
    Outcome,
    Output,
    Packages,
    Reason,
    Spec,
    Started,
    Window,
)
from atelier_runner.opening import open_backend
from atelier_runner.outward import Outward, read_ports

__all__ = [
    "MOST_WAITING",
    "POOL_MEMORY_MB",
    "Backend",
    "BuildLimits",
    "Capabilities",
    "CellBegan",
    "CellEnded",
    "CellError",
    "CellLimits",
    "CellValue",
    "Changed",
    "Collect",
    "Collected",
    "Control",
    "EnvironmentOptions",
    "Event",
    "Exited",
    "LanguageInfo",
    "LanguageUnknown",
    "LeftOut",
    "Limits",
    "Looked",
    "Network",
    "Outcome",
    "Output",
    "Outward",
    "Packages",
    "Reason",
    "RunUnknown",
    "RunnerError",
    "SandboxUnavailable",
    "Spec",
    "SpecInvalid",
    "Started",
    "Window",
    "open_backend",
    "open_docker",
    "open_kubernetes",
    "open_local",
    "read_ports",
]
