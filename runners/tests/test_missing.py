"""What `open_local` says and does where parts are missing."""

from __future__ import annotations

import pytest

from atelier_runner import Limits, SandboxUnavailable, Spec, open_local


async def test_without_bubblewrap_it_opens_says_how_to_get_it_and_refuses() -> None:
    async with open_local(bwrap="/nonexistent/bwrap") as backend:
        found = await backend.capabilities()
        assert not found.available
        assert "bubblewrap" in found.hint
        with pytest.raises(SandboxUnavailable) as refused:
            await backend.start(Spec("python", "main.py", {"main.py": b""}, Limits()))
        assert "bubblewrap" in refused.value.hint


async def test_every_control_is_tried_and_named() -> None:
    async with open_local() as backend:
        controls = {control.name: control.state for control in (await backend.capabilities()).controls}
    assert {
        "namespaces",
        "files",
        "network",
        "system calls",
        "memory",
        "processes",
        "cpu time",
        "disk",
        "wall time",
        "output",
    } <= set(controls)
    assert controls["network"] == "enforced"
    assert controls["system calls"] == "enforced"
