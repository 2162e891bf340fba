"""Counts of tokens, where hosts count differently."""

from __future__ import annotations

from typing import Any, Final

from flowtrio._core._chunks import Usage

_MOST: Final = 2**53
"""What is beyond this is no count."""


def with_reasoning(completion: int, reasoning: int, prompt: int, total: int) -> int:
    """Tokens of a reply with those of its reasoning, as OpenAI counts them.

    xAI and others tell its reasoning beside it. That shows where the whole is the sum of the three,
    or where a part would be larger than its whole.
    """
    with_it = completion + reasoning
    return with_it if reasoning > completion or total == prompt + with_it else completion


def count(holder: Any, *keys: str) -> int:
    """A count of tokens, by the first of *keys* under which there is one; 0 if there is none.

    Some hosts write numbers as texts, or with a fraction.
    """
    for key in keys:
        value = holder.get(key) if isinstance(holder, dict) else None
        if isinstance(value, str) and value.isascii() and value.isdecimal():
            value = float(value)
        if isinstance(value, int | float) and 0 < value < _MOST and not isinstance(value, bool):
            return int(value)
    return 0


def read_usage(usage: Any) -> Usage | None:
    """Usage by the words of either of OpenAI's protocols; None where there is none."""
    if not isinstance(usage, dict):
        return None

    prompt = count(usage, "prompt_tokens", "input_tokens")
    completion = count(usage, "completion_tokens", "output_tokens")
    asked = usage.get("prompt_tokens_details", usage.get("input_tokens_details"))
    said = usage.get("completion_tokens_details", usage.get("output_tokens_details"))
    reasoning = count(said, "reasoning_tokens")
    total = count(usage, "total_tokens")
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=with_reasoning(completion, reasoning, prompt, total),
        reasoning_tokens=reasoning,
        cached_tokens=count(asked, "cached_tokens") or count(usage, "prompt_cache_hit_tokens"),
    )
