"""Templates, and the editor's built files by their hashed names."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

from atelier.auth import Caller

EDITOR = Path(__file__).parents[1] / "static" / "editor"
_ENTRY, _PAGES = "src/main.tsx", "src/styles/pages.css"
THEME_COOKIE = "atelier_theme"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["script_json"] = script_json
    return environment


def script_json(value: Any) -> Markup:
    """Return JSON that is safe inside a script element: nothing in it can end the element."""
    text = json.dumps(value, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def page(
    request: Request, template: str, *, status: int = 200, caller: Caller | None = None, **values: Any
) -> Response:
    """Render a template."""
    theme = request.cookies.get(THEME_COOKIE, "")
    body = (
        _environment()
        .get_template(template)
        .render(caller=caller, assets=assets(), theme=theme if theme in ("light", "dark") else "", **values)
    )
    return HTMLResponse(body, status, {"Cache-Control": "no-store"})


def problem_page(request: Request, status: int, title: str, detail: str, next_step: str) -> Response:
    """Render a problem for a person."""
    return page(request, "problem.html", status=status, title=title, detail=detail, next_step=next_step)


def assets() -> dict[str, Any]:
    """Return the addresses of the editor's script and styles, and of the pages' styles; empty when it is not built."""
    manifest = EDITOR / ".vite" / "manifest.json"
    if not manifest.exists():
        return {"script": "", "styles": [], "preload": [], "pages": ""}
    return _read_manifest(manifest.stat().st_mtime_ns)


@cache
def _read_manifest(_changed: int) -> dict[str, Any]:
    manifest = json.loads((EDITOR / ".vite" / "manifest.json").read_text())
    entry = manifest[_ENTRY]
    styles, preload, seen = list(entry.get("css", [])), [], {_ENTRY}
    waiting = list(entry.get("imports", []))
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            chunk = manifest[name]
            preload.append(chunk["file"])
            styles += chunk.get("css", [])
            waiting += chunk.get("imports", [])
    base = "/static/editor/"
    return {
        "script": base + entry["file"],
        "styles": [base + name for name in styles],
        "preload": [base + name for name in preload],
        "pages": base + manifest[_PAGES]["file"],
    }
