"""Counts of tokens, where hosts count differently."""

from __future__ import annotations


def with_reasoning(completion: int, reasoning: int, prompt: int, total: int) -> int:
    """Tokens of a reply with those of its reasoning, as OpenAI counts them.

    xAI and others tell its reasoning beside it. That shows where the whole is the sum of the three,
    or where a part would be larger than its whole.
    """
    with_it = completion + reasoning
    return with_it if reasoning > completion or total == prompt + with_it else completion
