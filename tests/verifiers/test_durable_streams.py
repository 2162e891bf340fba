"""Logs of a served agent, read by Durable Streams' own client in Node."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.command import Server, serving
from tests.support.node import make_place, run_node

SCRIPT = "durable_streams.mjs"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return make_place(tmp_path, Path(__file__).with_name(SCRIPT))


def read(place: Path, served: Server, run_id: str, offset: str, live: str) -> dict[str, Any]:
    url = f"{served.page}streams/{run_id}"
    told: dict[str, Any] = json.loads(run_node(place, SCRIPT, url, offset, live))
    return told


@pytest.mark.parametrize("live", ["sse", "long-poll"])
def test_a_run_is_followed_while_it_goes_on_and_read_again_from_any_place(
    live: str, place: Path
) -> None:
    begun = threading.Event()
    events: list[dict[str, Any]] = []

    def ask(page: str) -> None:
        body = {"message": "Book a flight to Paris", "run_id": "r"}
        with httpx.stream("POST", f"{page}chat/stream", json=body, timeout=60) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    events.append(json.loads(line[6:]))
                    begun.set()

    with serving("--protocols", "durable-streams") as served:
        asking = threading.Thread(target=ask, args=(served.page,))
        asking.start()
        begun.wait(30)
        followed = read(place, served, "r", "-1", live)
        asking.join(60)
        half = len(events) // 2
        later = [read(place, served, "r", f"{half:016}", kind) for kind in ("catch-up", live)]

    assert followed["items"] == events
    assert [told["items"] for told in later] == [events[half:]] * 2
    for told in (followed, *later):
        assert told["offset"] == f"{len(events):016}"
        assert told["closed"] is True
