"""Logs of hostile programs, and parts of messages that are nothing known, in every protocol.

What a model, a tool or an agent says may be anything. A mapper that falls over it leaves its reader
with half an answer, so each has to tell it somehow, and lawfully in its own protocol.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest

from flowtrio import AgentEvent, EventType
from flowtrio.protocols._ai_sdk._mapper import UIMessageMapper
from flowtrio.protocols._openai._chat import ChatMapper
from flowtrio.protocols._openai._responses import ResponseMapper
from flowtrio.serving.http._segments import Segment
from flowtrio.wire._sse import encode_json_event as encode_chunk
from tests.hostile.programs import draw
from tests.hostile.world import play
from tests.support.site import as_events

from . import test_openai_chat, test_openai_responses
from .agui import Client, bare, flaws_in, read_body, segments_of, told_by
from .logs import log_of

PROGRAMS = 150


def hostile_logs() -> Iterator[tuple[int, list[AgentEvent]]]:
    """What the programs' runs record, as far as somebody has read all of it."""
    for seed in range(PROGRAMS):
        for record in play(draw(seed)).records():
            log = record["log"]
            is_whole = record["whole"] and record["mode"] == "events"
            if is_whole and log and log[-1]["type"] == "done":
                yield seed, as_events(log)


def faults_of(log: Sequence[AgentEvent]) -> list[str]:
    """What is wrong with how a log is told."""
    client, whole = Client(), Client()
    told = told_by(log)
    whole.take(told)
    faults = flaws_in(told)
    for part in segments_of(log, client):
        faults += flaws_in(part)
    if bare(client.messages) != bare(whole.messages):
        faults.append("AG-UI: another conversation where it stops for people")
    for check in (test_openai_chat.check, test_openai_responses.check):
        try:
            check(log)
        except Exception as exc:
            faults.append(f"{check.__module__}: {exc!r}")
    mapper = UIMessageMapper(log[0].run_id)
    chunks = read_body(Segment(mapper=mapper, encode=encode_chunk, shows_errors=True).feed(log))
    if [c["type"] for c in chunks].count("finish") + [c["type"] for c in chunks].count(
        "abort"
    ) != 1:
        faults.append("AI SDK: not one end")
    return faults


def test_logs_of_hostile_programs_are_told_in_every_protocol() -> None:
    count = 0
    for seed, log in hostile_logs():
        count += 1

        assert faults_of(log) == [], f"seed {seed}"
    assert count > PROGRAMS // 2


ODD: list[dict[str, Any]] = [
    {},
    {"type": 5},
    {"type": "refusal"},
    {"type": "refusal", "text": 5},
    {"type": "refusal", "text": ""},
    {"type": "citation"},
    {"type": "citation", "url": 5, "title": {}},
    {"type": "citation", "url": "", "start_index": "x"},
    {"type": "file", "url": 5, "mime_type": None},
    {"type": "file", "data": [], "mime_type": "image/png"},
    {"type": "server_tool_result", "id": []},
]


@pytest.mark.parametrize("part", ODD, ids=json.dumps)
def test_a_part_that_is_nothing_known_is_told_or_left_out(part: dict[str, Any]) -> None:
    log = [
        msgspec.structs.replace(event, data={**event.data, "part": part})
        if event.type is EventType.MESSAGE_PART
        else event
        for event in log_of("refusal")
    ]

    assert EventType.MESSAGE_PART in [event.type for event in log]
    assert faults_of(log) == []


def test_a_planted_fault_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (ChatMapper, ResponseMapper):
        feed = kind.feed

        def feeds(mapper: Any, event: AgentEvent, feed: Any = feed) -> Any:
            return feed(mapper, event) if event.type is not EventType.DONE else []

        monkeypatch.setattr(kind, "feed", feeds)

    assert len(faults_of(log_of("plain"))) == 2
