"""The rules by which a provider refuses a conversation, checked strictly."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

_ROLES = ("system", "developer", "user", "assistant", "tool")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_ID = 40


def check_messages(messages: Sequence[Mapping[str, Any]]) -> None:
    """Assert that every provider would accept a conversation, in OpenAI's shape.

    Each call of an assistant's message is answered by exactly one message of role ``tool`` before
    anything else is said; ids have at most 40 characters and are not used twice, names are of
    ``A-Z a-z 0-9 _ -``; each message has the keys of its role, and text that is not blank and that
    UTF-8 can carry.

    Raises:
      AssertionError: it would be refused; the message names the place and the rule.

    """
    waiting: dict[str, int] = {}
    used: set[str] = set()
    for place, message in enumerate(messages):
        role = message.get("role")
        if role not in _ROLES:
            raise AssertionError(f"messages[{place}]: role {role!r}, expected one of {_ROLES}")
        if role == "tool":
            _check_result(place, message, waiting)
            continue
        if waiting:
            raise AssertionError(
                f"messages[{place}]: calls {', '.join(waiting)} have no result before it"
            )
        if role == "assistant":
            waiting = _check_assistant(place, message, used)
        else:
            _check_content(place, message.get("content"))
    if waiting:
        raise AssertionError(f"the last calls {', '.join(waiting)} have no result")


def _check_assistant(place: int, message: Mapping[str, Any], used: set[str]) -> dict[str, int]:
    calls = message.get("tool_calls")
    if calls is None:
        if message.get("refusal") is None:
            _check_content(place, message.get("content"))
        return {}
    if not isinstance(calls, list) or not calls:
        raise AssertionError(f"messages[{place}].tool_calls: expected a list that is not empty")
    if message.get("content") is not None:
        _check_content(place, message["content"], may_be_empty=True)
    waiting: dict[str, int] = {}
    for call in calls:
        call_id = call.get("id")
        if not isinstance(call_id, str) or not call_id or len(call_id) > _MAX_ID:
            raise AssertionError(
                f"messages[{place}]: call id {call_id!r}, expected 1 to {_MAX_ID} characters"
            )
        # Some hosts take fewer characters; for them the others become one.
        plain = re.sub(r"[^A-Za-z0-9_-]", "_", call_id)
        if plain in used:
            raise AssertionError(f"messages[{place}]: call id {call_id!r} is no id of its own")
        used.add(plain)
        waiting[call_id] = place
        _check_function(place, call)
    return waiting


def _check_function(place: int, call: Mapping[str, Any]) -> None:
    function = call.get("function")
    if call.get("type") != "function" or not isinstance(function, Mapping):
        raise AssertionError(f"messages[{place}]: a call needs type 'function' and its function")
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise AssertionError(
            f"messages[{place}]: the name of a function {name!r}, expected 1 to 64 of A-Z a-z 0-9 "
            "_ -"
        )
    try:
        is_object = isinstance(json.loads(function["arguments"]), dict)
    except (KeyError, TypeError, ValueError):
        is_object = False
    if not is_object:
        raise AssertionError(f"messages[{place}]: a call's arguments are text of a JSON object")


def _check_result(place: int, message: Mapping[str, Any], waiting: dict[str, int]) -> None:
    call_id = message.get("tool_call_id")
    if call_id not in waiting:
        raise AssertionError(
            f"messages[{place}]: a result for {call_id!r}, expected one of {list(waiting)}"
        )
    del waiting[call_id]
    _check_content(place, message.get("content"), may_be_empty=True)


def _check_content(place: int, content: Any, *, may_be_empty: bool = False) -> None:
    if isinstance(content, list) and content:
        for part in content:
            if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
                raise AssertionError(f"messages[{place}]: a part of its content has no type")
        return
    if not isinstance(content, str) or not (content.strip() or may_be_empty):
        raise AssertionError(f"messages[{place}]: expected content, got {content!r:.60}")
    try:
        content.encode()
    except UnicodeEncodeError:
        raise AssertionError(f"messages[{place}]: content with lone surrogates") from None
