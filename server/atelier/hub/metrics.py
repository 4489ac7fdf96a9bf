"""What the hub counts, for /metrics."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

CONNECTIONS = Gauge("atelier_hub_connections", "Open document sockets", ["dialect"])
ROOMS = Gauge("atelier_hub_rooms", "Documents with live connections")
APPENDED = Counter("atelier_hub_appended_total", "Edits handed to the log")
DELIVERED = Counter("atelier_hub_delivered_total", "Edits queued for a client")
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

appended = APPENDED.inc
delivered = DELIVERED.inc
acknowledged = ACKNOWLEDGED.observe
