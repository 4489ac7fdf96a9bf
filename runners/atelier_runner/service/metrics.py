"""The service's figures, in Prometheus' format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from atelier_runner.service.options import Options
    from atelier_runner.service.runs import HostedRuns

RUNNING = Gauge("atelier_runner_running", "Runs that go on")
CAPACITY = Gauge("atelier_runner_capacity", "Runs that may go on at once")
WAITING = Gauge("atelier_runner_waiting", "Runs in the queue that this runner takes from")
ENDED = Counter("atelier_runner_ended_total", "Runs that ended", ["reason"])
START = Histogram(
    "atelier_runner_start_seconds",
    "From a run's request, its files received, to its program's start",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
NETWORK_OPEN = Gauge(
    "atelier_runner_network_connections", "Connections of programs that are carried at present"
)
NETWORK_BYTES = Gauge("atelier_runner_network_bytes", "Bytes carried for programs since the start, both ways")
NETWORK_REFUSED = Gauge(
    "atelier_runner_network_refused", "Connections of programs that were refused since the start", ["why"]
)
ENVIRONMENTS = Gauge("atelier_runner_environments", "Environments of installed packages that are kept")
ENVIRONMENTS_BYTES = Gauge("atelier_runner_environments_bytes", "Bytes of the environments that are kept")
POOL = Gauge("atelier_runner_pool_sandboxes", "Sandboxes that wait, started")
POOL_WANTED = Gauge("atelier_runner_pool_wanted", "Sandboxes that are meant to wait, by what is asked for")
POOL_MEMORY = Gauge(
    "atelier_runner_pool_memory_bytes", "Memory of the sandboxes that wait, shared pages in part"
)
TAKEN = Gauge("atelier_runner_taken_sandboxes", "Runs so far by whether a sandbox waited for them", ["how"])


async def collect(runs: HostedRuns, options: Options) -> None:
    """Look at what is only known by looking."""
    RUNNING.set(runs.running)
    CAPACITY.set(options.runs)
    outward = runs.backend.outward
    NETWORK_OPEN.set(outward.open)
    NETWORK_BYTES.set(outward.carried)
    for why, count in outward.refused.items():
        NETWORK_REFUSED.labels(why).set(count)
    kept, size = runs.backend.kept()
    ENVIRONMENTS.set(kept)
    ENVIRONMENTS_BYTES.set(size)
    idle = await runs.backend.idle()
    POOL.set(idle.sandboxes)
    POOL_WANTED.set(idle.wanted)
    POOL_MEMORY.set(idle.memory_bytes)
    TAKEN.labels("warm").set(idle.warm)
    TAKEN.labels("cold").set(idle.cold)
