"""What is counted by label, and how many values a label has."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from flowtrio._core._events import AgentEvent, EventType
from flowtrio._hosting._labels import OTHER, Label, Labelled
from flowtrio._hosting._meter import Meter


def event(type: EventType, **data: Any) -> AgentEvent:
    return AgentEvent(type, data, 1, "r", "root", 1.0)


def reply(**data: Any) -> AgentEvent:
    usage = {
        **{"prompt_tokens": 3, "completion_tokens": 2, "cached_tokens": 1, "reasoning_tokens": 1},
        **{"quality": "measured", "cost": "0.5"},
    }
    given = {
        **{"provider": "openai", "model": "m", "requested_model": "m-latest", "usage": usage},
        **{"finish_reason": "stop", "first_token": 0.2, "duration": 1.0},
    }
    return event(EventType.MESSAGE_COMPLETE, **{**given, **data})


def call(tool: str, outcome: str = "ok", duration: float | None = 0.1) -> AgentEvent:
    data = {"tool_name": tool, "outcome": outcome, "duration": duration}
    return event(EventType.TOOL_CALL_END, **data)


def noted(*events: AgentEvent) -> Labelled:
    meter = Meter()
    meter.note(0.0, False, events)
    return meter.labelled


def test_replies_are_counted_by_model() -> None:
    labelled = noted(reply(), reply(), reply(model=None), reply(usage=None, first_token=None))

    assert labelled.tokens == {
        ("m", "prompt"): 6,
        ("m", "completion"): 4,
        ("m", "cached"): 2,
        ("m", "reasoning"): 2,
        ("m-latest", "prompt"): 3,
        ("m-latest", "completion"): 2,
        ("m-latest", "cached"): 1,
        ("m-latest", "reasoning"): 1,
    }
    assert labelled.costs == {"m": Decimal("1.0"), "m-latest": Decimal("0.5")}
    assert labelled.replies == {("m", "stop"): 3, ("m-latest", "stop"): 1}
    assert sum(labelled.first_tokens["m"].counts) == 2


def test_what_an_agent_says_by_itself_is_no_reply_of_a_model() -> None:
    assert not noted(reply(duration=None)).replies


def test_a_model_without_a_price_has_no_cost() -> None:
    usage = {**reply().data["usage"], "cost": None}

    assert noted(reply(usage=usage)).costs == {}


def test_calls_are_counted_by_tool_and_errors_by_code() -> None:
    error = event(EventType.ERROR, code="rate_limited", source="model")
    labelled = noted(call("a"), call("a", "error"), call("b", "denied", None), error)

    assert labelled.calls == {("a", "ok"): 1, ("a", "error"): 1, ("b", "denied"): 1}
    assert sum(labelled.call_times["a"].counts) == 2
    assert "b" not in labelled.call_times
    assert labelled.errors == {("rate_limited", "model"): 1}


def test_a_label_has_so_many_values_and_no_more() -> None:
    """Clients bring tools of any name."""
    labelled = noted(*[call(f"tool{number}") for number in range(500)], call("tool7"))
    tools = {tool for tool, _ in labelled.calls}

    assert len(tools) == 101
    assert labelled.calls[OTHER, "ok"] == 400
    assert labelled.calls["tool7", "ok"] == 2
    assert len(labelled.call_times) == 101


def test_a_value_is_no_novel() -> None:
    assert [Label().value_of(name) for name in ("x" * 129, "", None)] == [
        *(OTHER, "unknown", "unknown"),
    ]
