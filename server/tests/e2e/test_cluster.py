"""Two people through a proxy on two processes, PostgreSQL and Redis, as `deploy/cluster` starts them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from .conftest import Person
from .story import join, land, output, ready, run, share, status, text, type_at_end, type_at_start

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]
ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster: its address, and each process by its name."""

    url: str
    processes: dict[str, int]
    ports: dict[str, int]

    def kill(self, name: str) -> None:
        """End one process at once."""
        os.kill(self.processes[name], signal.SIGKILL)

    def answers(self, name: str) -> bool:
        """Say whether a hub takes people, as the proxy would ask it."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[name]}/readyz", timeout=2):
                return True
        except OSError:
            return False


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Everything that `deploy/cluster` starts."""
    if shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin") is None:
        assert os.environ.get("CI") != "true", "nginx is missing"
        pytest.skip("nginx is missing: apt-get install nginx-light")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    folder = tmp_path_factory.mktemp("cluster")
    for parent in (folder, *folder.parents[:3]):  # PostgreSQL runs as another user
        parent.chmod(parent.stat().st_mode | 0o011)
    started = subprocess.Popen(
        [sys.executable, ROOT / "deploy" / "cluster", "--port", str(port), "--data", folder],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    said = []
    for line in started.stdout:
        said.append(line)
        if "is ready" in line:
            break
    assert said and "is ready" in said[-1], said
    rows = [line.split() for line in said[:-1]]
    processes = {name: int(process) for name, _, process, _, _ in rows}
    ports = {name: int(port) for name, _, _, _, port in rows if port != "-"}
    try:
        yield Cluster(f"http://127.0.0.1:{port}", processes, ports)
    finally:
        started.terminate()
        started.wait(60)
        started.stdout.close()


def saved(page: Page) -> None:
    expect(status(page)).to_have_text(re.compile("Saved"), timeout=30_000)


def test_people_go_on_whichever_process_ends(cluster: Cluster, person: Person) -> None:
    ada, bob = person(), person()
    land(ada, cluster.url)
    join(bob, share(ada), "Bob")
    for number, name in enumerate(("hub1", "hub2")):
        cluster.kill(name)
        type_at_start(ada, f"# ada {number}\n")
        type_at_end(bob, f"\n# bob {number}")
        for page in (ada, bob):
            saved(page)
            expect(text(page)).to_contain_text(f"# ada {number}", timeout=20_000)
            expect(text(page)).to_contain_text(f"# bob {number}", timeout=20_000)
        end = time.monotonic() + 30
        while not cluster.answers(name):  # what was killed is started again
            assert time.monotonic() < end
            ada.wait_for_timeout(100)
    ada.reload()
    ready(ada)
    expect(text(ada)).to_contain_text("# bob 1")


def test_redis_may_be_killed_and_the_status_never_lies(cluster: Cluster, person: Person) -> None:
    ada, bob = person(), person()
    land(ada, cluster.url)
    join(bob, share(ada), "Bob")
    os.kill(cluster.processes["redis"], signal.SIGSTOP)
    type_at_start(ada, "# while redis hangs\n")
    expect(status(ada)).to_have_text(re.compile("Offline|Reconnecting|Saving"))
    for _ in range(30):
        assert "Saved" not in (status(ada).text_content() or "")
        ada.wait_for_timeout(100)
    cluster.kill("redis")
    for page in (ada, bob):
        saved(page)
        expect(text(page)).to_contain_text("# while redis hangs", timeout=20_000)


def test_a_run_is_seen_by_people_on_every_process(cluster: Cluster, person: Person) -> None:
    ada, bob = person(), person()
    land(ada, cluster.url)
    join(bob, share(ada), "Bob")
    run(bob)
    for page in (ada, bob):
        expect(output(page)).to_contain_text(
            re.compile("exited|Finished|Done", re.IGNORECASE), timeout=20_000
        )
