"""What an answer is: a stream, or one JSON value. It was paid for, so its label alone does not say.

Asked for a stream, some hosts answer whole, some call a stream plain text, and a proxy's page of
HTML is neither.
"""

from __future__ import annotations

from typing import Final, Literal

JSON: Final = "application/json"
_SSE: Final = "text/event-stream"

_BEGINS_SSE: Final = (b"data:", b"event:", b"id:", b"retry:", b":")
_BEGINS_JSON: Final = (b"{", b"[")

BLANK: Final = b"\xef\xbb\xbf \t\r\n"
"""What may stand before all else."""

_ENOUGH: Final = 16
"""Bytes that show what an answer is."""


def label_of(content_type: str) -> str:
    """What an answer is called, without parameters."""
    return content_type.partition(";")[0].strip().lower()


def is_enough(begin: bytes, label: str, expected: str) -> bool:
    """Whether the *begin* of an answer, without blanks, shows what it is."""
    is_as_expected = label in ("", expected)
    return bool(begin) and (is_as_expected or b"\n" in begin or len(begin) >= _ENOUGH)


def kind_of(begin: bytes, label: str, expected: str) -> Literal["stream", "whole"] | None:
    """What an answer is that begins so, though *expected* was asked for; None if it is neither."""
    is_json = begin.startswith(_BEGINS_JSON)
    if expected != _SSE:
        # Lines of JSON begin as JSON does.
        if label not in ("", expected, JSON) and not is_json:
            return None
        return "whole" if label == JSON else "stream"
    if label in ("", expected):
        return "whole" if is_json else "stream"
    if begin.startswith(_BEGINS_SSE):
        return "stream"
    return "whole" if is_json or label == JSON else None
