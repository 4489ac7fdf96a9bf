"""The option of the soak run."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--soak-minutes", type=float, default=0, help="run randomized schedules of fresh seeds for so long"
    )
