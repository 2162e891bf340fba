"""Tokens of reasoning are a part of a reply's, however its host counts them."""

from __future__ import annotations

from typing import Any

import pytest

from flowtrio import Usage
from flowtrio.wire._usage import read_usage, with_reasoning


@pytest.mark.parametrize(
    ("completion", "reasoning", "total", "expected"),
    [
        (100, 60, 110, 100),
        (100, 60, 0, 100),
        (100, 60, 170, 160),
        (9, 93, 0, 102),
        (9, 93, 112, 102),
        (100, 0, 110, 100),
        (100, 60, 999, 100),
        (0, 0, 0, 0),
    ],
)
def test_reasoning_is_a_part_of_the_reply(
    completion: int, reasoning: int, total: int, expected: int
) -> None:
    assert with_reasoning(completion, reasoning, 10, total) == expected


@pytest.mark.parametrize("total", [{"total_tokens": 134}, {}])
def test_what_xai_counts_beside_a_reply_is_counted_in_it(total: dict[str, Any]) -> None:
    details = {"reasoning_tokens": 93}
    chat = {"prompt_tokens": 32, "completion_tokens": 9, "completion_tokens_details": details}
    responses = {"input_tokens": 32, "output_tokens": 9, "output_tokens_details": details}
    expected = Usage(prompt_tokens=32, completion_tokens=102, reasoning_tokens=93)

    assert read_usage(chat | total) == expected
    assert read_usage(responses | total) == expected
