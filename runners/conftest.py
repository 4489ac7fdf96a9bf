"""What the runner's tests share: each carrier, opened; and the Docker engine that one of them needs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial

import pytest
import pytest_asyncio
from deploy.engine import TESTED, Missing, Refused, engine, prepare

from atelier_runner import Backend, Limits, open_docker, open_local

Open = Callable[..., AbstractAsyncContextManager[Backend]]
CARRIERS = ["local", pytest.param("docker", marks=pytest.mark.docker)]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the languages whose images take long to build, unless all of them are there: ATELIER_TEST_IMAGES=all."""
    if os.environ.get("ATELIER_TEST_IMAGES") == "all":
        return
    left_out = []
    for item in items:
        needed = item.get_closest_marker("language")
        params = getattr(getattr(item, "callspec", None), "params", {})
        if needed is not None and params.get("backend") == "docker" and needed.args[0] not in TESTED:
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


@pytest.fixture(params=CARRIERS)
def open_carrier(request: pytest.FixtureRequest) -> Open:
    """The function that opens each carrier, for tests that open their own; both take `limits`, `pool_size`, `agent`."""
    if request.param == "local":
        return open_local
    return partial(open_docker, request.getfixturevalue("docker_socket"))


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=CARRIERS)
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    """A backend over each carrier, prepared for the module's LIMITS."""
    limits: Limits = request.module.LIMITS
    if request.param == "local":
        async with open_local(limits=limits) as opened:
            yield opened
    else:
        async with open_docker(request.getfixturevalue("docker_socket"), limits=limits) as opened:
            yield opened
