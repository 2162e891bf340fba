"""A log in AG-UI's events: every ending, each cut at several places and split at every wait."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from flowtrio import EventType
from flowtrio.protocols._agui._decisions import Scan
from flowtrio.protocols._agui._patch import is_patch
from flowtrio.protocols._agui._said import Saying
from flowtrio.serving.http._segments import Waits
from tests.support.site import as_events
from tests.testing.test_checks import delegates

from .agui import (
    Client,
    Told,
    arguments_in,
    bare,
    flaws_in,
    mapper_of,
    read_body,
    reader,
    segment,
    segments_of,
    texts_in,
    told_by,
)
from .logs import ALL, FEW_SEEDS, NAMES, any_log, log_of, waits_of

T = EventType
FEW = [*NAMES, *map(str, FEW_SEEDS)]


@pytest.mark.parametrize("name", ALL)
def test_a_log_is_told_in_order_and_its_texts_are_the_logs(name: str) -> None:
    log = any_log(name)
    told = told_by(log)
    client = Client()
    client.take(told)

    assert flaws_in(told) == []
    said = {m["id"]: m.get("content", "") for m in client.messages if m["role"] == "assistant"}
    users = {m["id"]: m["content"] for m in client.messages if m["role"] == "user"}
    texts = texts_in(log)
    result = said.pop(f"{log[0].run_id}:result", None)
    assert {key: text for key, text in {**said, **users}.items() if text} == texts
    assert result is None or result in (log[-1].data["result"], _json(log[-1].data["result"]))
    calls = [call for m in client.messages for call in m.get("toolCalls", ())]
    arguments = arguments_in(log)
    assert all(
        arguments[call["id"]] == call["function"]["arguments"]
        for call in calls
        if call["id"] in arguments
    )
    ended = [e for e in log if e.type is T.TOOL_CALL_END]
    results = [t for t in told if t["type"] == "TOOL_CALL_RESULT"]
    assert [t["toolCallId"] for t in results] == [f"{e.run_id}:{e.data['call_id']}" for e in ended]
    for event, result_told in zip(ended, results, strict=True):
        assert result_told["metadata"]["flowtrio"]["outcome"] == event.data["outcome"]


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


@pytest.mark.parametrize("name", ALL)
def test_a_segment_for_each_wait_tells_the_same_conversation(name: str) -> None:
    log = any_log(name)
    whole, client = Client(), Client()
    whole.take(told_by(log))
    segments = list(segments_of(log, client))

    assert len(segments) == len(waits_of(log)) + 1
    assert [flaw for told in segments for flaw in flaws_in(told)] == []
    assert not [
        e
        for told in segments
        for e in told
        if e["type"] == "MESSAGES_SNAPSHOT" and T.MESSAGE_RESET not in {e.type for e in log}
    ]
    assert bare(client.messages) == bare(whole.messages)


@pytest.mark.parametrize("name", FEW)
def test_what_a_client_lost_is_set_right_wherever_it_was_cut(name: str) -> None:
    """The client reads a part, its connection is lost, and it asks the same again."""
    log = any_log(name)
    whole = Client()
    whole.take(told_by(log))
    told = told_by(log)
    for place in range(1, len(told), max(1, len(told) // 7)):
        client = Client()
        client.take(told[:place])
        assert flaws_in(told[:place], is_whole=False) == []
        again = told_by(log, reader(messages=client.messages))
        client.take(again)

        assert flaws_in(again) == []
        assert sorted(bare(client.messages), key=_id) == sorted(bare(whole.messages), key=_id)


def _id(message: Told) -> str:
    return str(message["id"])


@pytest.mark.parametrize("name", FEW)
def test_a_log_that_breaks_ends_with_an_error_at_any_place(name: str) -> None:
    log = any_log(name)
    for place in range(0, len(log) - 1, max(1, len(log) // 7)):
        mapper = mapper_of(log)
        told = [t for event in log[:place] for t in mapper.feed(event)]
        told += mapper.fail("store_failed", "the store failed")

        assert flaws_in(told) == []
        assert (told[-1]["code"], told[-1]["message"]) == ("store_failed", "the store failed")


@pytest.mark.parametrize("name", FEW)
def test_a_segment_may_begin_anywhere(name: str) -> None:
    """As it does behind what is settled when a request comes again."""
    log = any_log(name)
    for after in range(0, len(log) - 2, max(1, len(log) // 7)):
        client = Client()
        client.take(told_by(log[: after + 1]))
        one = segment(log, reader(messages=client.messages), after)
        one.pauses = False
        told = read_body(one.feed(log))

        assert flaws_in(told) == []


@pytest.mark.parametrize("name", ALL)
def test_nothing_of_a_log_is_lost_where_its_events_stand_beside(name: str) -> None:
    log = any_log(name)
    told = told_by(log, raw=True)

    assert flaws_in(told) == []
    beside = [t.get("rawEvent") or t.get("event") for t in told]
    assert [b for b in beside if b] == msgspec.to_builtins(log)


class Forgets(Saying):
    """A planted bug: texts are not ended."""

    def _close(self, message_id: str, message: Any, **more: Any) -> Iterator[Told]:
        for told in super()._close(message_id, message, **more):
            if told["type"] != "TEXT_MESSAGE_END":
                yield told


def test_a_text_that_is_not_ended_is_noticed() -> None:
    log = log_of("plain")
    mapper = mapper_of(log)
    mapper._saying = Forgets(mapper._ids, frozenset())
    told = [t for event in log for t in mapper.feed(event)]

    assert flaws_in(told) == ["still open: [('TEXT_MESSAGE_START', '', 'plain:m1')]"]


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        ([], True),
        ([{"op": "add", "path": "/a~1b/0", "value": None}, {"op": "remove", "path": ""}], True),
        ([{"op": "move", "path": "/a", "from": "/b"}], True),
        ([{"op": "move", "path": "/a", "from": 1}], False),
        ([{"op": "move", "path": "/a"}], False),
        ([{"op": "add", "path": "/a"}], False),
        ([{"op": "remove", "path": "a"}], False),
        ([{"op": "remove", "path": "/~"}], False),
        ([{"op": "remove"}], False),
        ([{"op": "put", "path": ""}], False),
        (["remove"], False),
        ({}, False),
    ],
)
def test_what_is_no_change_of_a_state_is_told_apart(value: Any, is_one: bool) -> None:
    assert is_patch(value) is is_one


@pytest.mark.parametrize("deadline", [None, 1e300])
def test_a_call_that_may_wait_for_ever_does_not_expire(deadline: float | None) -> None:
    log = log_of("edited")
    waits = Waits()
    mapper = mapper_of(log)
    for event in log[: waits_of(log)[0] + 1]:
        more = {"deadline": deadline} if event.type is T.APPROVAL_REQUIRED else {}
        changed = msgspec.structs.replace(event, data={**event.data, **more})
        mapper.feed(changed)
        waits.feed(changed)
    [interrupt] = mapper.pause(waits)[-1]["outcome"]["interrupts"]

    assert "expiresAt" not in interrupt


def test_a_scan_of_nothing_is_over() -> None:
    assert not Scan(None).is_over
    assert Scan(-1).is_over


def test_an_agent_of_an_agent_names_it() -> None:
    told = told_by(as_events(delegates()))

    begun = [t for t in told if t["type"] == "SUBAGENT_STARTED"]
    assert [(t["name"], t.get("parentSubagentRunId")) for t in begun] == [
        ("visa", None),
        ("lawyer", begun[0]["subagentRunId"]),
    ]
    ended = [t["type"] for t in told if t["type"] in ("SUBAGENT_ERROR", "SUBAGENT_FINISHED")]
    assert ended == ["SUBAGENT_ERROR", "SUBAGENT_FINISHED"]
    assert flaws_in(told) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_pause_closes_all_that_is_open_at_any_place(name: str) -> None:
    log = log_of(name)
    for place in range(1, len(log) - 2):
        mapper = mapper_of(log)
        told = [t for event in log[:place] for t in mapper.feed(event)]
        told += mapper.pause(Waits())

        assert flaws_in(told) == []
