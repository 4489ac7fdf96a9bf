"""Liveness, readiness, metrics."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from atelier import __version__
from atelier.deps import ServicesDep

router = APIRouter(tags=["health"])


@router.get("/healthz", operation_id="health")
async def health() -> dict[str, str]:
    """Say that the process answers."""
    return {"status": "ok", "version": __version__}


@router.get("/readyz", operation_id="ready")
async def ready(services: ServicesDep) -> dict[str, str]:
    """Say that the storage answers too; 503 with the part that does not."""
    await services.db.ping()
    await services.log.read("readiness:check")
    return {"status": "ready"}


@router.get("/metrics", operation_id="metrics", response_class=Response)
async def metrics() -> Response:
    """Show the counters in Prometheus' text format."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
