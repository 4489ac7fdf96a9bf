"""What the runner's tests share: each carrier, opened; and the Docker engine that one of them needs."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from deploy.engine import TESTED, Missing, Refused, engine, prepare

from atelier_runner import Backend, Limits, open_docker, open_kubernetes, open_local
from atelier_runner.docker_engine import Engine
from atelier_runner.images import described
from atelier_runner.kubernetes_api import Where
from atelier_runner.kubernetes_carrier import Options
from tests.cluster import PROTOCOLS, Cluster, cluster, manifest

Open = Callable[..., AbstractAsyncContextManager[Backend]]
CARRIERS = [
    "local",
    pytest.param("docker", marks=pytest.mark.docker),
    pytest.param("kubernetes", marks=[pytest.mark.docker, pytest.mark.kubernetes]),
]


WHOLE = ("test_conformance",)
"""What meets the Kubernetes carrier in full."""
SHARE = 8
"""Of the other tests of all carriers, one in so many does."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes long, unless it is asked for.

    Languages whose images take long to build: ATELIER_TEST_IMAGES=all, where all of them are there. Most attacks on the
    Kubernetes carrier, which go over the same engine as those on Docker's: ATELIER_TEST_KUBERNETES=all.
    """
    images = os.environ.get("ATELIER_TEST_IMAGES") == "all"
    every = os.environ.get("ATELIER_TEST_KUBERNETES") == "all"
    left_out = []
    counts: Counter[str] = Counter()
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        carrier = params.get("backend") or params.get("open_carrier")
        needed = item.get_closest_marker("language")
        if (
            needed is not None
            and carrier in ("docker", "kubernetes")
            and needed.args[0] not in TESTED
            and not images
        ):
            left_out.append(item)
        elif carrier == "kubernetes" and item.path.stem not in WHOLE and not every:
            counts[item.path.stem] += 1
            if counts[item.path.stem] % SHARE != 1:
                left_out.append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def docker_socket() -> Iterator[str]:
    """The socket of a real Docker engine with the images that the tests run in."""
    try:
        with engine() as path:
            prepare(path)
            yield path
    except Missing as missing:
        assert os.environ.get("CI") != "true" or isinstance(missing, Refused), missing
        pytest.skip(f"no Docker engine: {missing}")


@pytest.fixture(scope="session")
def kubernetes_cluster(docker_socket: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of the tests' own: an API server, and the engine as its node. `cluster.py` says what that proves."""
    folder = tmp_path_factory.mktemp("cluster")
    with cluster(docker_socket, folder) as started:
        engine = Engine(docker_socket)
        (folder / "images.json").write_text(json.dumps(described(engine)))
        engine.close()
        yield started


@pytest.fixture
def there(kubernetes_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, without what a test did to it."""
    yield kubernetes_cluster
    kubernetes_cluster.refuse = lambda _method, _path: None
    kubernetes_cluster.quota = {}
    kubernetes_cluster.policies = [manifest("NetworkPolicy")]
    kubernetes_cluster.rules = manifest("Role")["rules"]
    kubernetes_cluster.protocols = PROTOCOLS
    kubernetes_cluster.node.schedule_seconds = 0.0
    kubernetes_cluster.node.unschedulable = ""


def way_in(cluster: Cluster, **options: Any) -> tuple[Where, Options]:
    """Return what opens a carrier over the cluster."""
    images = str(cluster.kubeconfig.with_name("images.json"))
    return Where(kubeconfig=str(cluster.kubeconfig)), Options(**{"images": images, **options})


@pytest.fixture(params=CARRIERS)
def open_carrier(request: pytest.FixtureRequest) -> Open:
    """The function that opens each carrier, for tests that open their own; all take `limits`, `pool_size`, `agent`."""
    if request.param == "local":
        return open_local
    if request.param == "docker":
        return partial(open_docker, request.getfixturevalue("docker_socket"))
    return partial(open_kubernetes, *way_in(request.getfixturevalue("kubernetes_cluster")))


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=CARRIERS)
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    """A backend over each carrier, prepared for the module's LIMITS; as many sandboxes wait after a crowd as before."""
    limits: Limits = request.module.LIMITS
    if request.param == "local":
        async with open_local(limits=limits, pool_most=2) as opened:
            yield opened
    elif request.param == "docker":
        async with open_docker(
            request.getfixturevalue("docker_socket"), limits=limits, pool_most=2
        ) as opened:
            yield opened
    else:
        where, options = way_in(request.getfixturevalue("kubernetes_cluster"))
        async with open_kubernetes(where, options, limits=limits, pool_most=2) as opened:
            yield opened
