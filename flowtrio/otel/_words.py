"""What of an event is told as words: the type of an error, and content where that is asked for."""

from __future__ import annotations

import json
import re
from typing import Any, Final

_EXCEPTION: Final = re.compile(r"[A-Za-z_][\w.]*")


def error_type(outcome: str, error: str | None) -> str:
    """A word for how something ended: that of the exception, where an event begins with one."""
    found = _EXCEPTION.match(error or "") if outcome == "error" else None
    has_type = found is not None and (error or "")[found.end() :][:2] in ("", ": ")
    return found.group() if found is not None and has_type else outcome


def as_json(value: Any) -> str:
    """A value as the text of an attribute."""
    return json.dumps(value, ensure_ascii=False)


def messages(role: str, text: str, finish_reason: str | None = None) -> str:
    """One message, in the form that the conventions have for content."""
    message: dict[str, Any] = {"role": role, "parts": [{"type": "text", "content": text}]}
    if finish_reason is not None:
        message["finish_reason"] = finish_reason
    return as_json([message])
