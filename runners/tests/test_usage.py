"""What an agent counts for a host that cannot see it: both versions of control groups, and /proc where there is neither."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from types import ModuleType

import pytest

import atelier_runner.agent

STAT_2 = "anon 1000\nfile 70\ninactive_file 40\nactive_file 20\n"
STAT_1 = "cache 70\nrss 1000\ntotal_inactive_file 40\ntotal_active_file 20\n"


@pytest.fixture
def usage(tmp_path: Path) -> ModuleType:
    """The agent's module, which looks for its group in a scratch folder."""
    path = Path(atelier_runner.agent.__file__).with_name("usage.py")
    spec = importlib.util.spec_from_file_location("agent_usage", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.GROUP = str(tmp_path)  # type: ignore[attr-defined]
    return module


def lay(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def test_version_2(usage: ModuleType, tmp_path: Path) -> None:
    lay(tmp_path, {
        "cpu.stat": "usage_usec 1500000\nuser_usec 1\n", "memory.stat": STAT_2, "memory.current": "1070\n",
        "memory.events": "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n",
    })  # fmt: skip
    assert usage.used() == {"cpu": 1.5, "memory": 1010, "kills": 1}


def test_version_1(usage: ModuleType, tmp_path: Path) -> None:
    lay(tmp_path, {
        "cpuacct/cpuacct.usage": "1500000000\n", "memory/memory.stat": STAT_1, "memory/memory.usage_in_bytes": "1070\n",
        "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    })  # fmt: skip
    assert usage.used() == {"cpu": 1.5, "memory": 1010, "kills": 2}


@pytest.mark.parametrize(
    "files", [{}, {"cpu.stat": "usage_usec 1\n"}, {"cpu.stat": "no\n", "memory.stat": STAT_2}]
)
def test_what_is_not_shown_is_added_up_from_processes(
    usage: ModuleType, tmp_path: Path, files: dict[str, str]
) -> None:
    lay(tmp_path, files)
    before = usage.used()
    held = bytearray(64 << 20)
    end = time.process_time() + 0.2
    while time.process_time() < end:
        held[0] = 1
    after = usage.used()
    assert after["cpu"] - before["cpu"] >= 0.1
    assert after["memory"] > 64 << 20
    assert after["kills"] == 0
