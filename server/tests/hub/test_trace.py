"""Where an edit's time goes."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
import structlog

from atelier.hub.trace import Tracer
from atelier.log import Edit

from .clients import world


def edit() -> Edit:
    return Edit(b"x", "usr_a", 1)


def test_one_edit_a_second_is_followed_and_one_that_is_lost_does_not_stay() -> None:
    tracer, now = Tracer(), time.monotonic()
    first, second, third = edit(), edit(), edit()
    tracer.submitted("d", first, now)
    tracer.submitted("d", second, now + 0.5)
    assert tracer.followed is first
    tracer.submitted("d", second, now + 2)
    assert tracer.followed is first  # it has not come to its end
    tracer.submitted("d", third, now + 61)
    assert tracer.followed is third


def test_a_slow_edit_is_written_to_the_log_with_its_stages_and_a_refused_one_is_not() -> None:
    tracer = Tracer()
    with structlog.testing.capture_logs() as said:
        for failed in (True, False):
            tracer._next = 0
            tracer.submitted("ses_a:doc_a", edit(), time.monotonic() - 3)
            tracer.mark()
            tracer.mark()
            tracer.settled(failed=failed)
            assert tracer.followed is None
    (line,) = said
    assert line["event"] == "an edit was slow"
    assert line["document"] == "ses_a:doc_a"
    assert line["milliseconds"]["written"] >= 3_000
    assert set(line["milliseconds"]) == {"written", "relayed", "synced"}


@pytest.mark.node
async def test_the_stages_are_in_the_metrics(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        document = await place.put("Ada", "a.txt", "")
        ada = await place.open("Ada", "hocuspocus", document)
        await ada.do("insert", at=0, text="x")
        await ada.until(lambda s: not s["unsynced"])
        metrics = (await place.http.get(f"{place.server.url}/metrics")).text
    for stage in ("written", "relayed", "synced"):
        (count,) = re.findall(rf'atelier_hub_stage_seconds_count{{stage="{stage}"}} ([\d.]+)', metrics)
        assert float(count) == 1
