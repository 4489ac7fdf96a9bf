"""`atelier doctor`: tries every part on this machine and says what works, what is missing and how to get it."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from atelier.errors import AtelierError
from atelier.sandbox import open_sandbox
from atelier.settings import Settings
from atelier.wiring import open_services


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried. `state`: ok, partial or missing."""

    name: str
    state: str
    detail: str


async def examine(settings: Settings, *, as_json: bool) -> int:
    """Print what was found; returns 0 when everything that the product needs works, 1 otherwise."""
    findings = [*await _storage(settings), *_editor(), *await _sandbox(settings)]
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        marks = {"ok": "ok     ", "partial": "partial", "missing": "MISSING"}
        for finding in findings:
            print(f"{marks[finding.state]}  {finding.name:<22}  {finding.detail}")
    return 1 if any(finding.state == "missing" for finding in findings) else 0


async def _storage(settings: Settings) -> list[Finding]:
    """Open the real adapters on a scratch folder, so that a running server is not disturbed."""
    found = [Finding("data folder", *_writable(settings.data))]
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch)
        embedded = replace(
            settings, data=data, db_url="", log_url="", blobs_url="", environments=Path()
        ).with_defaults()
        try:
            async with open_services(embedded) as services:
                await services.db.ping()
        except (AtelierError, OSError, RuntimeError) as error:
            return [*found, Finding("storage", "missing", str(error))]
    return [*found, Finding("storage", "ok", "database, document log and blobs open and answer")]


def _writable(folder: Path) -> tuple[str, str]:
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            return "ok", str(folder)
    except OSError as error:
        return "missing", f"{nearest} is not writable ({error.strerror}); choose another with --data"


def _editor() -> list[Finding]:
    manifest = Path(__file__).parent / "static" / "editor" / ".vite" / "manifest.json"
    if manifest.exists():
        return [Finding("editor", "ok", "built")]
    return [Finding("editor", "missing", "not built; `make run` builds it")]


async def _sandbox(settings: Settings) -> list[Finding]:
    async with open_sandbox(settings.sandbox_url, settings.runner_secret) as sandbox:
        capabilities = await sandbox.capabilities()
    found = [
        Finding(
            "sandbox", "ok" if capabilities.available else "missing", capabilities.hint or "programs can run"
        )
    ]
    states = {"enforced": "ok", "partial": "partial", "absent": "missing"}
    found += [Finding(f"  {c.name}", states[c.state], c.detail) for c in capabilities.controls]
    found += [
        Finding(f"  {lang.title}", "ok" if lang.version else "partial", lang.version or lang.hint)
        for lang in capabilities.languages
    ]
    return found
