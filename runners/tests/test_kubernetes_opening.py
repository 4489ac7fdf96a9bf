"""The ways into a cluster, the doctor's look at it, and what is said where parts miss.

Against the cluster of `cluster.py`, which says what that proves and what it does not.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from atelier_runner import (
    Reason,
    SandboxUnavailable,
    kubernetes_api,
    open_backend,
    open_kubernetes,
)
from atelier_runner.kubernetes_api import Where
from atelier_runner.kubernetes_pod import Recipe
from atelier_runner.kubernetes_pod import manifest as pod_of
from atelier_runner.kubernetes_watch import broken, fate, lingering
from atelier_runner.service.command import main
from tests.cluster import NAMESPACE, Cluster

from .finished import finished
from .over_cluster import LIMITS, options, python, url, where

pytestmark = [pytest.mark.docker, pytest.mark.kubernetes]


async def test_where_the_network_is_open_the_doctor_says_so_and_untrusted_mode_refuses(
    there: Cluster,
) -> None:
    there.policies = []
    async with open_kubernetes(where(there), options(there), pool_size=0, untrusted=True) as backend:
        controls = {control.name: control for control in (await backend.capabilities()).controls}
        assert controls["network"].state == "absent"
        assert "connected to 127.0.0.1" in controls["network"].detail
        with pytest.raises(SandboxUnavailable, match="network"):
            await backend.start(python("print('hi')"))


async def test_the_doctor_s_command_tries_a_cluster(
    there: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    status = await asyncio.to_thread(main, ["doctor", "--carrier", url(there)])
    found = json.loads(capsys.readouterr().out)
    assert (status, found["available"]) == (0, True)
    assert {"memory", "network", "system calls"} <= {control["name"] for control in found["controls"]}


async def test_the_service_runs_over_a_cluster_and_leaves_nothing_when_it_is_told_to_end(
    there: Cluster,
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "atelier_runner", "serve", "--listen", "127.0.0.1:0", "--pool", "1", "--carrier", url(there),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    ready = (await process.stdout.readline()).decode()
    address = ready.removeprefix("The runner is ready: ").strip()
    with await asyncio.to_thread(urllib.request.urlopen, f"{address}/v1/doctor") as answer:
        found = json.load(answer)
    assert found["available"]
    assert {language["name"] for language in found["languages"] if language["version"]} >= {
        "python",
        "bash",
        "c",
    }
    assert there.leases()
    process.terminate()
    assert await process.wait() == 0
    assert there.pods() == []
    assert there.leases() == {}


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("kubernetes://x/y", "address is"),
        ("kubernetes://x?speed=9", "does not take speed"),
    ],
)
async def test_an_address_that_makes_no_sense_is_refused(address: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        async with open_backend(address):
            pass


async def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes_asyncio.config", None)
    with pytest.raises(SandboxUnavailable) as refused:
        async with open_backend("kubernetes://"):
            pass
    assert "atelier-runner[kubernetes]" in refused.value.hint


async def test_without_a_way_in_or_an_answer_it_says_so(there: Cluster, tmp_path: Path) -> None:
    with pytest.raises(SandboxUnavailable, match="no way into") as refused:
        async with open_backend(f"kubernetes://?kubeconfig={tmp_path}/none"):
            pass
    assert "kubeconfig=" in refused.value.hint
    elsewhere = tmp_path / "kubeconfig"
    elsewhere.write_text(there.kubeconfig.read_text().replace(f":{there.port}", ":1"))
    with pytest.raises(SandboxUnavailable, match=r"No Kubernetes API server answers at https://127.0.0.1:1"):
        async with open_backend(f"kubernetes://?kubeconfig={elsewhere}"):
            pass


async def test_without_images_it_says_how_to_name_them(there: Cluster, tmp_path: Path) -> None:
    with pytest.raises(SandboxUnavailable) as refused:
        async with open_backend(f"kubernetes://?kubeconfig={there.kubeconfig}"):
            pass
    assert "images list --json" in refused.value.hint
    path = tmp_path / "images.json"
    for content in ("{}", "[]", "no", '{"python": {"tool": "x"}}'):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"images\.json"):
            async with open_kubernetes(where(there), options(there, images=str(path))):
                pass


def test_what_a_status_means() -> None:
    def ended(**status: Any) -> dict[str, Any]:
        return {"metadata": {}, "status": {"phase": "Failed", **status}}

    def container(**state: Any) -> dict[str, Any]:
        return {"metadata": {}, "status": {"phase": "Pending", "containerStatuses": [{"state": state}]}}

    killed = fate(container(terminated={"reason": "OOMKilled", "exitCode": 137}), deleted=False)
    assert killed is not None
    assert killed.reason is Reason.MEMORY
    low = fate(ended(reason="Evicted", message="The node was low on resource: memory."), deleted=False)
    assert low is not None
    assert (low.reason, "low on resource" in low.detail) == (Reason.LOST, True)
    late = fate(ended(reason="DeadlineExceeded"), deleted=False)
    assert late is not None
    assert late.reason is Reason.WALL_TIME
    assert fate(container(terminated={"reason": "Completed", "exitCode": 0}), deleted=False) is None
    assert fate({}, deleted=False) is None
    assert broken(container(waiting={"reason": "ContainerCreating"})) == ""
    assert broken(container(waiting={"reason": "InvalidImageName", "message": "x"})) == "InvalidImageName: x"
    assert "ended at once" in broken(container(terminated={"reason": "Error", "exitCode": 1}))
    assert lingering({}) == "the cluster says nothing of it"
    assert lingering(container(waiting={"reason": "ContainerCreating"})) == "ContainerCreating"


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="Kubernetes' own client is not here")
async def test_kubernetes_own_client_understands_the_tests_server(there: Cluster, tmp_path: Path) -> None:
    there.rules = [*there.rules, {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]

    async def kubectl(*words: str, stdin: bytes = b"") -> str:
        process = await asyncio.create_subprocess_exec(
            "kubectl", "--kubeconfig", str(there.kubeconfig), "--cache-dir", str(tmp_path), *words,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        out, _ = await asyncio.wait_for(process.communicate(stdin), 60)
        return out.decode()

    pod = pod_of("echo", "python", "atelier/python", 12345, LIMITS, Recipe("nobody", b""))
    pod["spec"]["containers"][0]["command"] = ["python3", "-c", "print('heard', input())"]
    path = tmp_path / "pod.json"
    path.write_text(json.dumps(pod))
    assert "pod/echo created" in await kubectl("create", "--validate=false", "-f", str(path))
    assert "condition met" in await kubectl("wait", "--for=jsonpath={.status.phase}=Running", "pod/echo")
    assert "heard you" in await kubectl("attach", "-i", "echo", "-c", "program", stdin=b"you\n")
    assert "condition met" in await kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/echo")
    assert '"echo" force deleted' in await kubectl(
        "delete", "pod", "echo", "--force", "--grace-period=0", "--wait=false"
    )


async def test_credentials_from_a_program_and_a_server_s_other_name_are_used(
    there: Cluster, tmp_path: Path
) -> None:
    token = yaml.safe_load(there.kubeconfig.read_text())["users"][0]["user"]["token"]
    said = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": token},
    }
    program = {"apiVersion": said["apiVersion"], "command": "echo", "args": [json.dumps(said)]}
    found = yaml.safe_load(there.kubeconfig.read_text())
    found["users"][0]["user"] = {"exec": program}
    found["clusters"][0]["cluster"]["tls-server-name"] = "cluster.test"
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(found))
    async with open_kubernetes(
        Where(kubeconfig=str(path)), options(there), limits=LIMITS, pool_size=0
    ) as backend:
        assert (await finished(backend, python("print('hi')")))[0] == b"hi\n"


async def test_in_a_pod_its_own_account_is_used(
    there: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = yaml.safe_load(there.kubeconfig.read_text())["users"][0]["user"]["token"]
    (tmp_path / "token").write_text(token)
    (tmp_path / "ca.crt").write_text(there.kubeconfig.with_name("ca.pem").read_text())
    (tmp_path / "namespace").write_text(NAMESPACE)
    monkeypatch.setattr(kubernetes_api, "ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(there.port))
    async with open_kubernetes(Where(), options(there), limits=LIMITS, pool_size=0) as backend:
        assert (await finished(backend, python("print('hi')")))[0] == b"hi\n"
