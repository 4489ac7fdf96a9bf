"""Settings come from flags, then the environment, then defaults; a wrong one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from atelier.settings import from_environment


def test_flags_win_over_variables_and_variables_over_defaults(tmp_path: Path) -> None:
    environ = {
        "ATELIER_PORT": "9000",
        "ATELIER_HOST": "0.0.0.0",
        "ATELIER_DATA": str(tmp_path),
        "HOME": "/nowhere",
    }
    settings = from_environment(environ, port=9001, host=None)
    assert (settings.port, settings.host, settings.data) == (9001, "0.0.0.0", tmp_path)
    assert settings.db_url == f"sqlite:///{tmp_path}/atelier.db"
    assert settings.limits.run_wall_seconds == 60


def test_a_limit_is_a_variable_of_its_own() -> None:
    assert from_environment({"ATELIER_LIMIT_RUN_WALL_SECONDS": "5"}).limits.run_wall_seconds == 5


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"ATELIER_PROT": "1"}, "ATELIER_PROT is not a setting"),
        ({"ATELIER_PORT": "http"}, "ATELIER_PORT must be a whole number, not 'http'"),
        ({"ATELIER_SIGN_UP": "maybe"}, "ATELIER_SIGN_UP must be true or false"),
        ({"ATELIER_LIMIT_TEXT_BYTES": "2MB"}, "ATELIER_LIMIT_TEXT_BYTES must be a whole number"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(environ: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        from_environment(environ)


def test_an_ipv6_address_gets_its_brackets() -> None:
    assert from_environment({}, host="::1", port=80).public_url == "http://[::1]:80"
