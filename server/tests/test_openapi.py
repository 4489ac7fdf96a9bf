"""The committed description of the API is the one that the code gives; operation ids are there and unique."""

from __future__ import annotations

import json
from pathlib import Path

from atelier.app import create_app
from atelier.settings import Settings

COMMITTED = Path(__file__).parents[1] / "openapi.json"


def test_the_description_is_fresh_and_its_operations_are_named(settings: Settings) -> None:
    described = create_app(settings).openapi()
    assert json.loads(COMMITTED.read_text()) == described, "run `make types`"
    ids = [operation["operationId"] for path in described["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))
    assert all(name.islower() and " " not in name for name in ids)


def test_the_paths_that_clients_rely_on_are_there(settings: Settings) -> None:
    paths = create_app(settings).openapi()["paths"]
    for method, path in (
        ("post", "/api/v1/guests"), ("post", "/api/v1/users"), ("post", "/api/v1/tokens"), ("get", "/api/v1/me"),
        ("post", "/api/v1/sessions"), ("get", "/api/v1/sessions/{session_id}"), ("patch", "/api/v1/sessions/{session_id}"),
        ("delete", "/api/v1/sessions/{session_id}"), ("get", "/api/v1/sessions/{session_id}/files"),
        ("put", "/api/v1/sessions/{session_id}/files/{path}"), ("post", "/api/v1/sessions/{session_id}/links"),
        ("post", "/api/v1/links/{token}/join"), ("delete", "/api/v1/sessions/{session_id}/links/{link_id}"),
        ("post", "/api/v1/sessions/{session_id}/runs"), ("get", "/api/v1/sessions/{session_id}/runs/{run_id}/events"),
        ("post", "/api/v1/sessions/{session_id}/runs/{run_id}/stdin"), ("delete", "/api/v1/sessions/{session_id}/runs/{run_id}"),
        ("get", "/healthz"), ("get", "/readyz"), ("get", "/metrics"),
    ):  # fmt: skip
        assert method in paths[path], path
