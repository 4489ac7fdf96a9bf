"""`atelier serve` that cannot start: one line that says why and what to do, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .hub.clients import live_server

BIN = Path(sys.executable).parent / "atelier"


def refused(data: Path, **settings: str) -> str:
    """Run a server that must not start; returns what it says."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ATELIER_")}
    done = subprocess.run(
        [BIN, "serve", "--port", "0", "--data", data],
        capture_output=True,
        env=environ | {f"ATELIER_{name}": value for name, value in settings.items()},
        timeout=60,
        text=True,
    )
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert line.startswith("atelier: "), done.stderr
    return line


async def test_two_servers_on_one_folder(tmp_path: Path) -> None:
    async with live_server(tmp_path):
        assert "already open in another Atelier server" in refused(tmp_path)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"LOG_URL": "redis://127.0.0.1:1/0"}, "ATELIER_BUS_URL is memory://"),
        ({"LOG_URL": "ftp://somewhere"}, "ftp"),
        (
            {"DB_URL": "postgresql://nobody:secret@127.0.0.1:1/none"},
            "ATELIER_DB_URL postgresql://nobody:***@127.0.0.1:1/none does not open",
        ),
        ({"PROT": "1"}, "ATELIER_PROT is not a setting"),
    ],
)
def test_settings_that_cannot_work(tmp_path: Path, settings: dict[str, str], words: str) -> None:
    assert words in refused(tmp_path, **settings)
