"""Why a model stopped, in every provider's words.

Gateways speak one provider's protocol with another one's words, so there is one table. A reason may
be told more than once, and too early: the gravest stands, since a reply that was once told to be
cut or withheld is no whole one.
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

from flowtrio._core._chunks import FinishReason
from flowtrio._core._exceptions import ProviderError
from flowtrio._core._values import squashed

Reason: TypeAlias = FinishReason | Literal["failed"]
"""``failed``: there is no answer, and no fault of the model's words."""

_GRAVITY: Final[dict[Reason, int]] = {
    "stop": 0,
    "tool_calls": 0,
    "length": 1,
    "content_filter": 2,
    "failed": 3,
}

_WORDS: Final[dict[Reason, str]] = {
    "stop": "stop eos end_turn end_of_turn stop_sequence complete completed finished",
    "tool_calls": "tool_calls tool_call tool_use function_call function_calls",
    "length": (
        "length max_tokens max_output_tokens max_completion_tokens max_new_tokens max_length"
        " token_limit model_length model_context_window_exceeded context_window_exceeded"
        " context_length_exceeded incomplete truncated"
        # The answer is to be continued: as little a whole one as one that became too long.
        " pause_turn compaction continuation"
    ),
    "content_filter": (
        "content_filter content_filtered safety refusal sensitive moderation"
        " guardrail_intervened recitation language blocklist prohibited_content spii"
        " image_safety image_prohibited_content image_recitation escalation model_armor"
    ),
    "failed": (
        "error network_error insufficient_system_resource malformed_function_call"
        " malformed_response unexpected_tool_call too_many_tool_calls image_other no_image"
    ),
}

_NO_REASON: Final = frozenset({"", "null", "none", "nil", "undefined", "finishreasonunspecified"})
"""What says that the model has not stopped."""

_PASSING: Final = ("error", "resource", "malformed", "unexpected", "toomany", "image", "other")
"""What stands in the reasons of failures that another attempt may not meet."""


_REASONS: Final[dict[str, Reason]] = {
    squashed(word): reason for reason, words in _WORDS.items() for word in words.split()
}


class FinishMark:
    """What was told of why a reply is finished.

    Args:
      unknown: What a reason means that is not known here.

    """

    __slots__ = ("_unknown", "raw", "reason")

    def __init__(self, unknown: Reason = "stop") -> None:
        self._unknown: Reason = unknown
        self.raw: str | None = None
        """In the provider's spelling; None until one was told."""
        self.reason: Reason | None = None
        """None until one was told."""

    def tell(self, raw: object, reason: Reason | None = None) -> None:
        """Take a reason that was told; *reason* where it is known what it means."""
        if not isinstance(raw, str) or squashed(raw) in _NO_REASON:
            return
        # Some add what their own host said, behind a colon.
        words = (raw, *raw.split(":"))
        known: list[Reason] = [
            _REASONS[key] for word in words if (key := squashed(word)) in _REASONS
        ]
        told = reason or (known[0] if known else self._unknown)
        if self.reason is None or _GRAVITY[told] >= _GRAVITY[self.reason]:
            self.raw, self.reason = raw, told

    def finish_reason(self, has_calls: bool) -> FinishReason:
        """What the final chunk tells; a `ProviderError` where it was told to be no answer."""
        if self.reason == "failed":
            raise self._failure()
        if has_calls and self.reason in (None, "stop"):
            return "tool_calls"
        return self.reason or "stop"

    def _failure(self) -> ProviderError:
        raw = self.raw or ""
        word = raw if re.fullmatch(r"[A-Za-z0-9_.: -]{1,64}", raw) else "unknown"
        return ProviderError(
            f"the model stopped without an answer: finish reason {word}",
            code="stream_error",
            retryable=any(hint in squashed(raw) for hint in _PASSING),
            detail={"words": f"finish reason {word}", "code": word, "type": None},
        )
