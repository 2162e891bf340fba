from __future__ import annotations

import itertools

import pytest

from flowtrio._core._exceptions import ProviderError
from flowtrio.wire._finish import FinishMark


def mark(*told: object) -> FinishMark:
    finish = FinishMark()
    for raw in told:
        finish.tell(raw)
    return finish


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("stop", "stop"),
        ("end_turn", "stop"),
        ("whatever", "stop"),
        ("toolUse", "tool_calls"),
        ("MAX_TOKENS", "length"),
        ("max-output-tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("Content-Filter", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("function_call_filter: MALFORMED_FUNCTION_CALL", "failed"),
    ],
)
def test_a_reason_is_known_however_it_is_written(raw: str, reason: str) -> None:
    assert (mark(raw).raw, mark(raw).reason) == (raw, reason)


@pytest.mark.parametrize("raw", [None, 1, "", "null", "None", "FINISH_REASON_UNSPECIFIED"])
def test_what_is_no_reason_announces_nothing(raw: object) -> None:
    assert mark(raw).reason is None


@pytest.mark.parametrize(
    ("grave", "graver"),
    [*itertools.pairwise(["stop", "length", "content_filter", "error"])],
)
def test_of_several_reasons_the_gravest_stands_whichever_was_first(grave: str, graver: str) -> None:
    assert mark(grave, graver).raw == mark(graver, grave).raw == graver


def test_of_equally_grave_ones_the_last_stands() -> None:
    assert mark("stop", "tool_calls").raw == "tool_calls"


def test_a_stop_with_calls_is_for_their_sake() -> None:
    assert mark("stop").finish_reason(True) == "tool_calls"
    assert mark("length").finish_reason(True) == "length"
    assert mark().finish_reason(False) == "stop"


def test_what_is_unknown_may_be_a_failure() -> None:
    finish = FinishMark(unknown="failed")
    finish.tell("NEW_REASON")

    with pytest.raises(ProviderError, match="finish reason NEW_REASON"):
        finish.finish_reason(False)
