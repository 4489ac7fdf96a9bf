"""The faults and refusals of a cluster: what each costs, and what is said of it.

Against the cluster of `cluster.py`, which says what that proves and what it does not.
"""

from __future__ import annotations

import time

import pytest

from atelier_runner import (
    Reason,
    SandboxUnavailable,
    kubernetes_pod,
    kubernetes_sandbox,
)
from tests.cluster import Cluster, Refusal

from .finished import finished
from .over_cluster import LIMITS, begun, last, opened, python, until, waiting

pytestmark = [pytest.mark.docker, pytest.mark.kubernetes]


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
