"""What the hub counts, for /metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.metrics_core import CounterMetricFamily

CONNECTIONS = Gauge("atelier_hub_connections", "Open document sockets", ["dialect"])
ROOMS = Gauge("atelier_hub_rooms", "Documents with live connections")
REFUSED = Counter("atelier_hub_refused_total", "Edits refused", ["code"])
ACKNOWLEDGED = Histogram(
    "atelier_hub_acknowledge_seconds",
    "From an edit's arrival to its durable acknowledgement",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0),
)
QUARANTINED = Gauge("atelier_hub_quarantined", "Documents that cannot be served just now")
THROTTLED = Gauge("atelier_hub_throttled", "Connections that are read slower because of a quota")
SHED = Counter("atelier_hub_shed_total", "Connections turned away because the event loop was late")
COMPACTIONS = Counter("atelier_hub_compactions_total", "Snapshots made")
LOOP_DELAY = Gauge(
    "atelier_hub_loop_delay_seconds", "How late the event loop was, at worst in the last two seconds"
)
TASKS = Gauge("atelier_hub_tasks", "Tasks of the event loop")
WAITING = Gauge("atelier_hub_waiting_bytes", "Bytes that slow clients have not taken yet")

acknowledged = ACKNOWLEDGED.observe


class Edits:
    """What is counted with every edit, as plain numbers that /metrics reads: a Counter costs more than the addition."""

    appended = 0
    delivered = 0

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Say both; called by whoever asks for /metrics."""
        yield CounterMetricFamily("atelier_hub_appended", "Edits handed to the log", self.appended)
        yield CounterMetricFamily("atelier_hub_delivered", "Edits queued for a client", self.delivered)


edits = Edits()
REGISTRY.register(edits)
