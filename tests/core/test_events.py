from __future__ import annotations

from typing import Any, Final

import msgspec
import pytest

from flowtrio._core._events import (
    DATA_KEYS,
    ROOT,
    SCHEMA,
    AgentEvent,
    AgentStatus,
    EventType,
    StreamMode,
)

T = EventType

EVENT: Final = AgentEvent(
    T.MESSAGE_CHUNK, {"chunk": "é", "message_id": "m1"}, 7, "r1", "root/a#2", 1000.5
)

KEYS: Final = {
    "message_chunk": "chunk message_id",
    "message_complete": "message_id content finish_reason usage model "
    "provider requested_model duration first_token parent_call_id",
    "state_change": "old_status new_status reason",
    "tool_call_start": "call_id tool_name arguments message_id provider_executed parent_call_id",
    "tool_call_end": "call_id tool_name outcome result error duration",
    "error": "error code source retryable deadline limit detail causes",
    "done": "status reason result usage events duration leftover",
    "run_start": "message parts session_id agent parent_run_id schema",
    "agent_start": "agent call_id",
    "agent_end": "agent call_id outcome result error usage duration",
    "reasoning_chunk": "chunk message_id",
    "message_part": "message_id part",
    "message_reset": "message_id reason",
    "tool_call_args": "call_id tool_name delta message_id",
    "tool_progress": "call_id tool_name progress",
    "approval_required": "call_id tool_name arguments deadline parent_call_id",
    "input_required": "request_id prompt call_id schema",
    "input_resolved": "request_id outcome text",
    "user_message": "message parts",
    "custom": "name value",
}
"""What stands on the wire, and never changes."""


def test_every_type_has_the_spelling_and_the_keys_that_readers_know() -> None:
    assert {str(type): " ".join(keys) for type, keys in DATA_KEYS.items()} == KEYS
    assert set(DATA_KEYS) == set(T)
    assert SCHEMA == 2
    assert ROOT == "root"


def test_the_specification_s_seven_come_first() -> None:
    assert [type.name for type in T][:7] == [
        "MESSAGE_CHUNK",
        "MESSAGE_COMPLETE",
        "STATE_CHANGE",
        "TOOL_CALL_START",
        "TOOL_CALL_END",
        "ERROR",
        "DONE",
    ]


@pytest.mark.parametrize("word", [*T, *AgentStatus, *StreamMode])
def test_a_word_on_the_wire_is_its_name_in_small_letters(word: Any) -> None:
    assert str(word) == word == word.name.lower()
    assert type(word)(str(word)) is word


def test_the_statuses_are_those_of_the_specification_and_their_spelling() -> None:
    assert list(AgentStatus) == [
        "initializing",
        "running",
        "waiting_for_input",
        "waiting_for_approval",
        "completed",
        "error",
        "cancelled",
    ]


def test_there_are_four_modes_and_a_second_name_of_one() -> None:
    assert list(StreamMode) == ["values", "updates", "messages", "events"]
    assert StreamMode.INCREMENTAL is StreamMode.UPDATES
    assert StreamMode("incremental") is StreamMode.UPDATES


@pytest.mark.parametrize("value", ["INCREMENTAL", "Incremental", "", None, 1, "value"])
def test_other_words_are_no_mode(value: Any) -> None:
    with pytest.raises(ValueError, match="expected one of values, updates, messages, events"):
        StreamMode(value)


@pytest.mark.parametrize("name", ["type", "data", "seq", "run_id", "agent", "timestamp"])
def test_an_event_is_frozen(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(EVENT, name, getattr(EVENT, name))


def test_events_are_equal_if_they_say_the_same() -> None:
    same = AgentEvent(
        T.MESSAGE_CHUNK, {"chunk": "é", "message_id": "m1"}, 7, "r1", "root/a#2", 1000.5
    )

    assert same == EVENT
    assert msgspec.structs.replace(same, seq=8) != EVENT


def test_an_event_on_the_wire_has_six_keys_in_this_order() -> None:
    assert (
        msgspec.json.encode(EVENT)
        == (
            '{"type":"message_chunk","data":{"chunk":"é","message_id":"m1"},"seq":7,'
            '"run_id":"r1","agent":"root/a#2","timestamp":1000.5}'
        ).encode()
    )


def test_an_event_is_read_from_the_wire_by_its_type() -> None:
    assert msgspec.json.decode(msgspec.json.encode(EVENT), type=AgentEvent) == EVENT
