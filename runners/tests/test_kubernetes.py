"""What only the Kubernetes carrier has: the cluster's faults and refusals, its pods and leases, the manifests, the stream.

Against the cluster of `cluster.py`, which says what that proves and what it does not.
"""

from __future__ import annotations

import asyncio
import copy
import json
import shutil
import signal
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from atelier_runner import (
    Backend,
    Changed,
    Collect,
    Exited,
    Limits,
    Output,
    Reason,
    SandboxUnavailable,
    Spec,
    kubernetes_api,
    kubernetes_keeper,
    kubernetes_pod,
    kubernetes_sandbox,
    open_backend,
    open_kubernetes,
)
from atelier_runner.kubernetes_api import Where
from atelier_runner.kubernetes_carrier import KubernetesCarrier, Options
from atelier_runner.kubernetes_keeper import stamp
from atelier_runner.kubernetes_pod import RUNNER_LABEL, Recipe, checked, payload
from atelier_runner.kubernetes_pod import manifest as pod_of
from atelier_runner.kubernetes_watch import broken, fate, lingering
from atelier_runner.run import Run
from atelier_runner.service.command import main
from tests.cluster import NAMESPACE, Cluster, Refusal, manifest, manifests, restricted, validated

from .finished import finished
from .test_hostile_agents import OPENING, STAYING

LIMITS = Limits(wall_seconds=10, cpu_seconds=2, memory_mb=96, processes=24, disk_mb=8)
pytestmark = [pytest.mark.docker, pytest.mark.kubernetes]
FOREVER = "import time\nprint('up', flush=True)\ntime.sleep(600)"


def python(program: str, limits: Limits = LIMITS) -> Spec:
    return Spec("python", "main.py", {"main.py": program.encode()}, limits, stdin=b"")


def where(cluster: Cluster) -> Where:
    return Where(kubeconfig=str(cluster.kubeconfig))


def options(cluster: Cluster, **more: Any) -> Options:
    return Options(**{"images": str(cluster.kubeconfig.with_name("images.json")), **more})


def url(cluster: Cluster, more: str = "") -> str:
    return f"kubernetes://{NAMESPACE}?kubeconfig={cluster.kubeconfig}&images={cluster.kubeconfig.with_name('images.json')}{more}"


@pytest.fixture
def there(kubernetes_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, without what a test did to it."""
    yield kubernetes_cluster
    kubernetes_cluster.refuse = lambda _method, _path: None
    kubernetes_cluster.quota = {}
    kubernetes_cluster.policies = [manifest("NetworkPolicy")]
    kubernetes_cluster.rules = manifest("Role")["rules"]
    kubernetes_cluster.protocols = ("v5.channel.k8s.io", "v4.channel.k8s.io")
    kubernetes_cluster.node.schedule_seconds = 0.0
    kubernetes_cluster.node.unschedulable = ""


@asynccontextmanager
async def opened(cluster: Cluster, *, pool_size: int = 1, **more: Any) -> AsyncIterator[Backend]:
    async with open_kubernetes(
        where(cluster), options(cluster, **more), limits=LIMITS, pool_size=pool_size
    ) as backend:
        yield backend


async def until(done: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not done():  # noqa: ASYNC110 - it happens in another thread
            await asyncio.sleep(0.02)


async def begun(backend: Backend, program: str = FOREVER, limits: Limits = LIMITS) -> AsyncIterator[Any]:
    """Start a program, wait for its first output, and yield the events that follow."""
    events = backend.events(await backend.start(python(program, limits)))
    async for event in events:
        if isinstance(event, Output):
            return events
        assert not isinstance(event, Exited), event
    raise AssertionError("nothing came")


async def last(events: AsyncIterator[Any]) -> Exited:
    found = [event async for event in events][-1]
    assert isinstance(found, Exited)
    return found


def waiting(backend: Backend) -> list[str]:
    """Return the pods that wait."""
    carrier = backend._carrier
    assert isinstance(carrier, KubernetesCarrier)
    return [one.id for one in carrier._stocks.waiting]  # type: ignore[attr-defined]


# What is in deploy/kubernetes, and what the carrier asks for.


@pytest.mark.parametrize("version", ["1.28", "1.37"])
def test_every_manifest_fits_the_published_schemas(version: str) -> None:
    found = list(manifests())
    assert {one["kind"] for one in found} == {
        "Deployment", "Namespace", "NetworkPolicy", "ResourceQuota", "Role", "RoleBinding", "Service", "ServiceAccount",
    }  # fmt: skip
    for one in found:
        validated(one, version)
        with pytest.raises(kubernetes_validate.ValidationError):
            validated({**one, "made-up": 1}, version)


def test_the_runner_s_own_pod_is_as_restricted_and_its_words_are_the_command_line_s() -> None:
    pod = manifest("Deployment", "atelier")["spec"]["template"]
    assert restricted(pod) == []
    (container,) = pod["spec"]["containers"]
    assert container["command"][:4] == ["python", "-m", "atelier_runner", "serve"]
    binding = manifest("RoleBinding")
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": pod["spec"]["serviceAccountName"], "namespace": "atelier"}
    ]
    assert binding["roleRef"]["name"] == manifest("Role")["metadata"]["name"]


async def test_the_deployment_s_address_is_one_that_can_be_opened(there: Cluster) -> None:
    (container,) = manifest("Deployment", "atelier")["spec"]["template"]["spec"]["containers"]
    address = container["command"][container["command"].index("--carrier") + 1]
    images = str(there.kubeconfig.with_name("images.json"))
    address = address.replace("/etc/atelier/images.json", images) + f"&kubeconfig={there.kubeconfig}"
    async with open_backend(address, limits=LIMITS, pool_size=0) as backend:
        carrier = backend._carrier
        assert isinstance(carrier, KubernetesCarrier)
        assert carrier._images["python"] == "registry.example.org/atelier/python:1"


@pytest.mark.parametrize("version", ["1.28", "1.37"])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"runtime_class": "gvisor", "seccomp": "atelier/runner.json", "cpu": "500m", "host_users": True},
        {
            "template": {
                "metadata": {"labels": {"team": "a"}, "annotations": {"b": "c"}},
                "spec": {
                    "nodeSelector": {"pool": "runs"},
                    "tolerations": [{"key": "runs", "operator": "Exists", "effect": "NoSchedule"}],
                    "imagePullSecrets": [{"name": "pull"}],
                    "priorityClassName": "low",
                },
            }
        },
    ],
)
def test_each_pod_fits_the_schemas_and_keeps_its_program_in(version: str, more: dict[str, Any]) -> None:
    pod = pod_of("x", "python", "i", 12345, Limits(), Recipe("r", payload(), **more))
    validated(pod, version)
    assert restricted(pod) == []
    spec, (program,) = pod["spec"], pod["spec"]["containers"]
    assert spec["automountServiceAccountToken"] is spec["enableServiceLinks"] is False
    assert spec["restartPolicy"] == "Never"
    assert spec["hostUsers"] is more.get("host_users", False)
    assert program["resources"]["limits"] == program["resources"]["requests"]
    assert program["securityContext"]["readOnlyRootFilesystem"] is True
    assert all(volume["emptyDir"].keys() == {"medium", "sizeLimit"} for volume in spec["volumes"])
    assert spec.get("runtimeClassName") == more.get("runtime_class")
    assert pod["metadata"]["labels"][RUNNER_LABEL] == "r"
    for name, value in more.get("template", {}).get("spec", {}).items():
        assert spec[name] == value


@pytest.mark.parametrize(
    "template",
    [
        [],
        {"spec": {"hostNetwork": True}},
        {"spec": {"containers": []}},
        {"spec": {"securityContext": {}}},
        {"spec": {"automountServiceAccountToken": True}},
        {"metadata": {"name": "x"}},
        {"status": {}},
    ],
)
def test_a_template_cannot_open_what_keeps_programs_in(template: object) -> None:
    with pytest.raises(ValueError, match="a pod template"):
        checked(template)


async def test_a_template_reaches_the_pods(there: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text("metadata: {labels: {team: a}}\nspec: {nodeSelector: {pool: runs}}\n")
    async with opened(there, template=str(path)) as backend:
        assert (await finished(backend, python("print(1)")))[0] == b"1\n"
        assert there.created[-1]["spec"]["nodeSelector"] == {"pool": "runs"}
        assert there.created[-1]["metadata"]["labels"]["team"] == "a"


# How pods come and go.


async def test_nothing_is_left_of_runs_and_of_what_waited(there: Cluster) -> None:
    async with opened(there, pool_size=2) as backend:
        await asyncio.gather(*(finished(backend, python("print(1)")) for _ in range(4)))
        events = await begun(backend)
        await backend.warm()
        assert len(there.pods()) == 3
        assert len(there.leases()) == 1
        users = [pod["spec"]["securityContext"]["runAsUser"] for pod in there.pods()]
        assert len(set(users)) == 3
        await events.aclose()  # type: ignore[attr-defined]
        await until(lambda: {pod["metadata"]["name"] for pod in there.pods()} == set(waiting(backend)))
        await backend.warm()
        carrier = backend._carrier
        assert isinstance(carrier, KubernetesCarrier)
        await until(lambda: len(carrier._house.users) == 2)
        assert carrier._pods._seen.keys() == set(waiting(backend))
        assert carrier._pods._deleted == carrier._house.left == set()
    assert there.pods() == []
    assert there.leases() == {}


@pytest.mark.parametrize("protocol", ["v4.channel.k8s.io", "v5.channel.k8s.io"])
async def test_either_channel_protocol_will_do(there: Cluster, protocol: str) -> None:
    there.protocols = (protocol,)
    data = bytes(range(256)) * 4000
    spec = Spec(
        "python",
        "m.py",
        {"m.py": b"import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"},
        replace(LIMITS, output_bytes=2 << 20),
        stdin=data,
    )
    async with opened(there) as backend:
        out, _, result = await finished(backend, spec)
    assert (out == data, result.code) == (True, 0)


async def test_files_come_back_also_where_time_runs_out(there: Cluster) -> None:
    program = "open('made.txt', 'w').write('x')\nimport time\ntime.sleep(60)"
    spec = replace(python(program, replace(LIMITS, wall_seconds=0.6)), collect=Collect())
    async with opened(there) as backend:
        events = [event async for event in backend.events(await backend.start(spec))]
    assert [(event.path, event.data) for event in events if isinstance(event, Changed)] == [
        ("made.txt", b"x")
    ]
    assert isinstance(events[-1], Exited)
    assert events[-1].reason is Reason.WALL_TIME


async def test_output_that_nobody_reads_holds_its_own_program_up(there: Cluster) -> None:
    async with opened(there) as backend:
        limits = replace(LIMITS, output_bytes=1 << 30, wall_seconds=60)
        run = await backend.start(python("for n in range(99): print('x' * 99_999)", limits))
        await asyncio.sleep(0.5)
        running = backend._runs[run]
        assert isinstance(running, Run)
        assert len(running._sandbox.reader._buffer) < 2 << 20  # type: ignore[attr-defined]
        events = [event async for event in backend.events(run)]
        assert sum(len(event.data) for event in events if isinstance(event, Output)) == 99 * 100_000


async def test_a_flood_of_the_agent_s_own_standard_error_ends_the_run(there: Cluster) -> None:
    async with opened(there) as backend:
        program = "file = open('/proc/1/fd/2', 'wb', buffering=0)\nwhile True: file.write(bytes(65536))"
        _, _, result = await finished(backend, python(program))
        assert result.reason is Reason.LOST


async def test_a_run_that_needs_more_than_waits_gets_a_pod_of_its_size(there: Cluster) -> None:
    async with opened(there) as backend:
        await backend.warm()
        limits = replace(LIMITS, memory_mb=200)
        out, _, result = await finished(backend, python("x = bytearray(150 << 20); print(len(x))", limits))
        assert (out, result.reason) == (b"157286400\n", Reason.EXITED)
    assert "200Mi" in {pod["spec"]["containers"][0]["resources"]["limits"]["memory"] for pod in there.created}


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (b'send(b"U", b\'{"cpu": "x", "memory": -1e400, "kills": [1]}\'); send(b"U", b"[]"); send(b"X", b\'{"code": 0}\')', Reason.EXITED),
        (b'send(b"U", b\'{"cpu": 99}\')', Reason.CPU_TIME),
        (b'send(b"U", b\'{"memory": 999999999}\')', Reason.MEMORY),
        (b'send(b"U", b\'{"kills": 1}\')', Reason.MEMORY),
        (b"held = bytearray(500 << 20)", Reason.MEMORY),  # the kernel kills process 1, and the cluster says so
    ],
)  # fmt: skip
async def test_what_an_agent_counts_is_taken_for_what_it_is(
    there: Cluster, behaviour: bytes, reason: Reason
) -> None:
    agent = OPENING + behaviour + STAYING
    async with open_kubernetes(
        where(there), options(there), limits=LIMITS, pool_size=0, agent=agent
    ) as backend:
        _, _, result = await finished(backend, python(""))
    assert result.reason is reason, result


# Opens a carrier, starts a program that never ends and says so; then it is killed.
KILLED = """
import asyncio, sys
from atelier_runner import Output, Spec, open_backend
async def main():
    async with open_backend(sys.argv[1], pool_size=1) as backend:
        await backend.warm()
        run = await backend.start(Spec("python", "m.py", {"m.py": b"import time; print(1, flush=True); time.sleep(600)"}))
        async for event in backend.events(run):
            if isinstance(event, Output):
                print(backend._carrier._recipe.runner, flush=True)
asyncio.run(main())
"""


async def test_a_killed_runner_leaves_no_program_and_others_remove_the_rest(
    there: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, url(there), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    runner = (await process.stdout.readline()).decode().strip()

    def left() -> list[dict[str, Any]]:
        return [pod for pod in there.pods() if pod["metadata"]["labels"][RUNNER_LABEL] == runner]

    assert left()
    process.send_signal(signal.SIGKILL)
    await process.wait()
    await until(lambda: all(pod["status"]["phase"] in ("Succeeded", "Failed") for pod in left()))
    async with opened(there) as backend:
        assert left(), "its lease has not run out"
        lease = there.leases()[runner]
        lease["spec"]["renewTime"] = stamp(datetime.now(UTC) - timedelta(seconds=61))
        async with opened(there, pool_size=0):
            assert left() == []
            assert runner not in there.leases()
        assert (await finished(backend, python("print('hi')")))[0] == b"hi\n"


async def test_a_lease_is_renewed_and_taken_again_when_somebody_deletes_it(
    there: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_keeper, "RENEW_SECONDS", 0.1)
    async with opened(there, pool_size=0):
        ((name, lease),) = there.leases().items()
        began = lease["spec"]["renewTime"]
        await until(lambda: bool(there.leases()[name]["spec"]["renewTime"] > began))
        there.delete_lease(name)
        await until(lambda: name in there.leases())
    assert there.leases() == {}


async def test_a_pod_that_was_made_although_no_answer_came_is_found_and_removed(
    there: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_keeper, "RENEW_SECONDS", 0.1)
    async with opened(there) as backend:
        await backend.warm()
        (pod,) = there.pods()
        stray = copy.deepcopy(pod)
        stray["metadata"]["name"] = "stray"
        there.put("pods", stray)
        await until(lambda: [one["metadata"]["name"] for one in there.pods()] == waiting(backend))


# The cluster's faults.


async def test_an_api_server_that_restarts_costs_what_runs_and_nothing_else(there: Cluster) -> None:
    async with opened(there) as backend:
        await backend.warm()
        events = await begun(backend)
        there.restart(0.5)
        result = await last(events)
        assert result.reason is Reason.LOST
        assert result.wall_seconds < LIMITS.wall_seconds
        assert (await finished(backend, python("print('hi')")))[0] == b"hi\n"
        await backend.warm()
        await until(lambda: {pod["metadata"]["name"] for pod in there.pods()} == set(waiting(backend)))
    assert there.pods() == []


async def test_a_stream_that_breaks_ends_its_run_as_lost_and_its_program(there: Cluster) -> None:
    async with opened(there) as backend:
        events = await begun(backend)
        there.break_attached()
        result = await last(events)
        assert (result.reason, result.code) == (Reason.LOST, None)
        assert result.detail.startswith("the connection to its pod ended: ")
        assert (await finished(backend, python("print('hi')")))[0] == b"hi\n"


async def test_positions_that_are_too_old_are_made_good_by_a_new_list(there: Cluster) -> None:
    async with opened(there) as backend:
        await backend.warm()
        (doomed,) = waiting(backend)
        watches = there.watches
        there.forget_history()
        await until(lambda: there.watches > watches)
        there.delete(doomed)
        await until(lambda: waiting(backend) not in ([], [doomed]))
        assert (await finished(backend, python("print('hi')")))[0] == b"hi\n"


async def test_pods_that_somebody_deletes_are_replaced_or_their_run_is_lost(there: Cluster) -> None:
    async with opened(there) as backend:
        await backend.warm()
        (doomed,) = waiting(backend)
        there.delete(doomed)
        await until(lambda: waiting(backend) not in ([], [doomed]))
    async with opened(there, pool_size=0) as backend:
        events = await begun(backend)
        (pod,) = there.pods()
        there.delete(pod["metadata"]["name"])
        result = await last(events)
        assert (result.reason, result.detail) == (Reason.LOST, "somebody deleted its pod")


async def test_a_pod_whose_node_is_gone_is_lost_although_no_connection_ends(there: Cluster) -> None:
    async with opened(there, pool_size=0) as backend:
        events = await begun(backend)
        (pod,) = there.pods()
        condition = {
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
        }  # fmt: skip
        there.set_status(pod["metadata"]["name"], phase="Failed", conditions=[condition])
        result = await last(events)
        assert result.reason is Reason.LOST
        assert "DeletionByTaintManager" in result.detail


async def test_an_eviction_for_what_was_written_is_the_disk(there: Cluster) -> None:
    async with opened(there, pool_size=0) as backend:
        events = await begun(backend)
        (pod,) = there.pods()
        message = "Pod ephemeral local storage usage exceeds the total limit of containers 16Mi."
        there.set_status(pod["metadata"]["name"], phase="Failed", reason="Evicted", message=message)
        result = await last(events)
        assert result.reason is Reason.DISK
        assert message in result.detail


async def test_slow_scheduling_is_waited_for(there: Cluster) -> None:
    there.node.schedule_seconds = 2
    async with opened(there, pool_size=0) as backend:
        assert (await finished(backend, python("print('hi')")))[0] == b"hi\n"


async def test_a_pod_that_no_node_takes_says_why(there: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_sandbox, "START_SECONDS", 1.5)
    there.node.unschedulable = "0/3 nodes are available: 3 Insufficient memory."
    async with opened(there, pool_size=0) as backend:
        with pytest.raises(SandboxUnavailable, match="no node takes it: 0/3 nodes are available") as refused:
            await backend.start(python("print('hi')"))
        assert "quota" in refused.value.hint
        await until(lambda: there.pods() == [])


async def test_a_quota_that_is_used_up_says_so_and_is_no_problem_later(there: Cluster) -> None:
    there.quota = {"pods": 0}
    async with opened(there, pool_size=0) as backend:
        with pytest.raises(SandboxUnavailable, match="exceeded quota") as refused:
            await backend.start(python("print('hi')"))
        assert "--pool" in refused.value.hint
        there.quota = {}
        assert (await finished(backend, python("print('hi')")))[0] == b"hi\n"


async def test_a_server_that_asks_to_wait_is_asked_again(there: Cluster) -> None:
    count = 0

    def busy(method: str, path: str) -> Refusal | None:
        nonlocal count
        count += method == "POST" and path.endswith("/pods")
        throttled = method == "POST" and path.endswith("/pods") and count < 3
        return Refusal(429, "TooManyRequests", "too many requests", 1) if throttled else None

    async with opened(there, pool_size=0) as backend:
        there.refuse = busy
        begun_at = time.monotonic()
        assert (await finished(backend, python("print('hi')")))[0] == b"hi\n"
        assert count == 3
        assert time.monotonic() - begun_at >= 2, "it was asked to wait a second, twice"


async def test_a_deletion_that_was_not_taken_is_asked_for_again(there: Cluster) -> None:
    def broken_store(method: str, path: str) -> Refusal | None:
        return (
            Refusal(500, "InternalError", "etcdserver: request timed out")
            if method == "DELETE" and "/pods/" in path
            else None
        )

    async with opened(there, pool_size=0) as backend:
        there.refuse = broken_store
        assert (await finished(backend, python("print('hi')")))[0] == b"hi\n"
        await backend.close()
        assert len(there.pods()) == 1
        there.refuse = lambda _method, _path: None
    assert there.pods() == []


async def test_an_image_that_cannot_be_pulled_says_which(there: Cluster) -> None:
    async with opened(there, pool_size=0, image="nowhere.example/{language}:9") as backend:
        with pytest.raises(SandboxUnavailable, match="ErrImagePull") as refused:
            await backend.start(python("print('hi')"))
        assert "nowhere.example/python:9" in refused.value.hint


async def test_a_node_whose_machine_type_has_no_filter_runs_nothing(
    there: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_pod, "ARCHITECTURES", {})
    async with opened(there, pool_size=0) as backend:
        with pytest.raises(SandboxUnavailable, match="there is no system-call filter for"):
            await backend.start(python("print('hi')"))


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


async def test_a_runtime_class_is_asked_for_and_one_that_is_missing_is_named(there: Cluster) -> None:
    async with opened(there, pool_size=0, runtime_class="gvisor") as backend:
        assert (await finished(backend, python("print('hi')")))[0] == b"hi\n"
        assert there.created[-1]["spec"]["runtimeClassName"] == "gvisor"
    async with opened(there, pool_size=0, runtime_class="kata") as backend:
        with pytest.raises(SandboxUnavailable, match=r'RuntimeClass "kata" not found'):
            await backend.start(python("print('hi')"))


@pytest.mark.parametrize("resource", ["pods", "pods/attach", "leases"])
async def test_each_right_of_the_role_is_needed(there: Cluster, resource: str) -> None:
    there.rules = [rule for rule in there.rules if resource not in rule["resources"]]
    with pytest.raises(SandboxUnavailable) as refused:
        async with opened(there, pool_size=0) as backend:
            await backend.start(python("print('hi')"))
    assert "deploy/kubernetes" in refused.value.hint


# What is said where parts miss.


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
