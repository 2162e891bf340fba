"""What remote readers see of the application's exceptions: the type and an error id, no text."""

from __future__ import annotations

from typing import Any

import pytest

from flowtrio import AgentEvent, EventType
from flowtrio.serving.commands._conceal import conceal, conceal_all, conceal_message

T = EventType


def event(type: EventType, **data: Any) -> AgentEvent:
    return AgentEvent(type, data, 1, "r1", "root", 0.0)


@pytest.mark.parametrize("source", ["tool", "agent", "internal"])
def test_an_error_of_the_application_is_its_type_and_an_id(source: str) -> None:
    cause = {"error": "canary", "type": "KeyError", "source": source}
    seen = conceal(event(T.ERROR, error="ValueError: canary", source=source, causes=[cause]))

    assert "canary" not in str(seen)
    assert seen.data["error"] == "ValueError (r1)"
    assert seen.data["causes"] == [{**cause, "error": "KeyError (r1)"}]


def test_an_error_of_the_model_is_told_and_its_causes_from_elsewhere_are_not() -> None:
    causes = [
        {"error": "the host", "type": "ReadError", "source": "model"},
        {"error": "canary", "type": "KeyError", "source": "tool"},
    ]
    seen = conceal(event(T.ERROR, error="the host said no", source="model", causes=causes))

    assert seen.data["error"] == "the host said no"
    assert [cause["error"] for cause in seen.data["causes"]] == ["the host", "KeyError (r1)"]


def test_ends_of_calls_and_agents_are_concealed_too() -> None:
    end = event(T.TOOL_CALL_END, call_id="c1", outcome="error", error="ValueError: canary")
    assert conceal(end).data["error"] == "ValueError (r1:c1)"
    nested = event(T.AGENT_END, outcome="error", error="ValueError: canary")
    assert conceal(nested).data["error"] == "ValueError (r1)"


def test_a_type_may_have_any_name() -> None:
    end = event(T.TOOL_CALL_END, call_id="c1", outcome="error", error="Überlauf: canary")
    assert conceal(end).data["error"] == "Überlauf (r1:c1)"


def test_the_result_of_a_failed_call_is_concealed_in_conversations() -> None:
    failed = {"role": "tool", "tool_call_id": "c1", "content": "error: ValueError: canary"}
    assert conceal_message(failed) == {**failed, "content": "error: ValueError"}


@pytest.mark.parametrize(
    ("role", "content"),
    [
        ("tool", "ValueError: is what the tool found"),
        ("tool", "error: the call was denied: too dear"),
        ("tool", "error: took longer than 3 s"),
        ("user", "error: ValueError: is what I got"),
        ("assistant", None),
    ],
)
def test_the_rest_of_a_conversation_is_left_as_it_is(role: str, content: str | None) -> None:
    message = {"role": role, "content": content}
    assert conceal_message(message) is message


@pytest.mark.parametrize(
    "shown",
    [
        event(T.MESSAGE_CHUNK, chunk="ValueError: is a word"),
        event(T.TOOL_CALL_END, call_id="c1", outcome="ok", error=None),
        event(T.TOOL_CALL_END, call_id="c1", outcome="timeout", error="took longer than 3 s"),
    ],
)
def test_the_rest_is_left_as_it_is(shown: AgentEvent) -> None:
    assert conceal(shown) is shown


def test_several_events_are_concealed_one_by_one() -> None:
    chunk = event(T.MESSAGE_CHUNK, chunk="ValueError: said", message_id="m1")
    end = event(T.AGENT_END, error="ValueError: canary", outcome="error")

    assert conceal_all([chunk, end, chunk]) == [chunk, conceal(end), chunk]
    assert "canary" not in str(conceal_all([end]))
