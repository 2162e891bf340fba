"""Ids of calls as Mistral takes them.

"Tool call id was … but must be a-z, A-Z, 0-9, with a length of 9." Its own calls have such ids;
those of a conversation that another model began do not.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

_FITS = re.compile(r"[a-zA-Z0-9]{9}")


def fit_call_ids(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The messages with ids that Mistral takes; the same id always becomes the same one."""
    return [_fit_message(message) for message in messages]


def _fit_message(message: Mapping[str, Any]) -> Mapping[str, Any]:
    if message["role"] == "tool":
        return {**message, "tool_call_id": _fit(message["tool_call_id"])}
    if calls := message.get("tool_calls"):
        return {**message, "tool_calls": [{**call, "id": _fit(call["id"])} for call in calls]}
    return message


def _fit(id: str) -> str:
    if _FITS.fullmatch(id):
        return id
    return hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()[:9]
