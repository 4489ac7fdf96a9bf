"""Control groups in every arrangement: what is read from /proc, and what is written where."""

from __future__ import annotations

from pathlib import Path

import pytest

from atelier_runner.cgroups import Group, Groups, Hierarchy, hierarchies

HYBRID_MOUNTS = """\
tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0
cgroup /sys/fs/cgroup/devices cgroup rw,devices 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
"""
HYBRID_GROUPS = "4:memory:/app\n3:devices:/\n2:cpu,cpuacct:/app/inner\n0::/\n"
V2_MOUNTS = "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n"


def folders(root: Path, *names: str) -> None:
    for name in names:
        (root / "sys/fs/cgroup" / name).mkdir(parents=True)


def test_a_hybrid_machine(tmp_path: Path) -> None:
    folders(tmp_path, "cpu,cpuacct/app/inner", "memory/app", "devices", "unified")
    (tmp_path / "sys/fs/cgroup/unified/cgroup.controllers").write_text("hugetlb\n")
    found = hierarchies(HYBRID_MOUNTS, HYBRID_GROUPS, root=tmp_path)
    shown = [
        (h.version, str(h.own.relative_to(tmp_path / "sys/fs/cgroup")), set(h.controllers)) for h in found
    ]
    assert shown == [(1, "cpu,cpuacct/app/inner", {"cpu", "cpuacct"}), (1, "memory/app", {"memory"})]


def test_a_v2_machine(tmp_path: Path) -> None:
    folders(tmp_path, "system.slice/atelier.service")
    own = tmp_path / "sys/fs/cgroup/system.slice/atelier.service"
    (own / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    (found,) = hierarchies(V2_MOUNTS, "0::/system.slice/atelier.service\n", root=tmp_path)
    assert (found.version, found.own, set(found.controllers)) == (2, own, {"cpu", "memory", "pids"})


def test_a_container_that_sees_only_its_own_part(tmp_path: Path) -> None:
    folders(tmp_path, "memory")
    (found,) = hierarchies(
        "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n", "1:memory:/docker/ab12\n", root=tmp_path
    )
    assert found.own == tmp_path / "sys/fs/cgroup/memory"


def test_no_control_groups_at_all() -> None:
    groups = Groups(hierarchies("proc /proc proc rw 0 0\n", ""))
    assert groups.controllers == {}
    assert set(groups.missing) == {"cpu", "cpuacct", "memory", "pids"}
    group = groups.make("s1")
    group.attach(1)
    group.limit(memory_bytes=1, processes=1)
    group.begin()
    usage = group.usage()
    assert (usage.cpu_seconds, usage.peak_memory_bytes, usage.oom_kills) == (None, None, None)
    assert group.remove()
    groups.close()


def test_what_may_not_be_written_is_named_as_missing(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    groups = Groups([Hierarchy(1, gone, frozenset({"memory"}))])
    assert groups.controllers == {}
    assert str(gone) in groups.missing["memory"]


@pytest.fixture
def v2(tmp_path: Path) -> tuple[Group, Path]:
    """A group whose files the test made in place of the kernel."""
    contents = {
        "cgroup.procs": "", "cgroup.kill": "", "memory.max": "max", "memory.swap.max": "max", "memory.oom.group": "0",
        "memory.peak": "4096", "memory.events": "low 0\noom 2\noom_kill 1\n", "pids.max": "max",
        "cpu.stat": "usage_usec 2500000\nuser_usec 1\n",
    }  # fmt: skip
    for name, text in contents.items():
        (tmp_path / name).write_text(text)
    return Group(dict.fromkeys(("cpu", "cpuacct", "memory", "pids"), (2, tmp_path))), tmp_path


def test_v2_limits_and_counts(v2: tuple[Group, Path]) -> None:
    group, folder = v2
    assert group.usage().oom_kills == 1
    assert group.usage().peak_memory_bytes == 4096
    assert group.usage().cpu_seconds == 2.5
    group.begin()
    (folder / "cpu.stat").write_text("usage_usec 3000000\n")
    assert group.cpu_seconds() == pytest.approx(0.5)
    for name in ("memory.max", "pids.max", "cgroup.procs", "cgroup.kill", "memory.swap.max"):
        (folder / name).write_text("")
    group.limit(memory_bytes=64 << 20, processes=9)
    group.attach(4321)
    group.kill()
    texts = {
        name: (folder / name).read_text()
        for name in ("memory.max", "memory.swap.max", "pids.max", "cgroup.procs", "cgroup.kill")
    }
    assert texts == {
        "memory.max": str(64 << 20),
        "memory.swap.max": "0",
        "pids.max": "9",
        "cgroup.procs": "4321",
        "cgroup.kill": "1",
    }


def test_v1_limits_and_counts(tmp_path: Path) -> None:
    contents = {
        "memory.limit_in_bytes": "", "memory.memsw.limit_in_bytes": "", "memory.max_usage_in_bytes": "8192",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "cpuacct.usage": "1500000000", "pids.max": "",
    }  # fmt: skip
    for name, text in contents.items():
        (tmp_path / name).write_text(text)
    group = Group(dict.fromkeys(("cpu", "cpuacct", "memory", "pids"), (1, tmp_path)))
    usage = group.usage()
    assert (usage.cpu_seconds, usage.peak_memory_bytes, usage.oom_kills) == (1.5, 8192, 3)
    group.limit(memory_bytes=1 << 20, processes=5)
    assert (tmp_path / "memory.memsw.limit_in_bytes").read_text() == str(1 << 20)
    assert (tmp_path / "pids.max").read_text() == "5"


def test_what_a_killed_server_left_is_swept_and_what_a_live_one_has_is_not(tmp_path: Path) -> None:
    dead = tmp_path / "atelier-4194305-ab12"  # above the highest pid that Linux gives
    (dead / "s1").mkdir(parents=True)
    alive = tmp_path / "atelier-1-ab12"
    alive.mkdir()
    groups = Groups([Hierarchy(1, tmp_path, frozenset({"memory"}))], name="mine")
    assert not dead.exists()
    assert alive.exists()
    assert (tmp_path / "mine").exists()
    groups.close()
    assert not (tmp_path / "mine").exists()


def test_priming_moves_this_process_nowhere() -> None:
    before = Path("/proc/self/cgroup").read_text()
    groups = Groups.of_this_process()
    try:
        there = Path("/proc/self/cgroup").read_text()  # in v2 it may have gone one down, once
        groups.prime()
        assert Path("/proc/self/cgroup").read_text() == there
        assert len(there.splitlines()) == len(before.splitlines())
    finally:
        groups.close()
    Groups([]).prime()
