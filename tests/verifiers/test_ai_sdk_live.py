"""A chat of the AI SDK's, live against a server in another process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.node import make_place, run_node

from .servers import serving

SCRIPT = Path(__file__).with_name("ai_sdk_live.mjs")


def test_a_chat_asks_decides_answers_stops_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place(tmp_path, SCRIPT)
    with serving("ai_sdk_server") as [address]:
        monkeypatch.setenv("FLOWTRIO_SITE", address)
        said = run_node(place, "--test", "--test-reporter=tap", SCRIPT.name, seconds=600)

    assert "# pass 6" in said
    assert "# fail 0" in said
