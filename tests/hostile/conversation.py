"""L11: what every provider asks of a conversation, and that it says what the log says."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Protocol

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
ID_LENGTH = 40


def flaws_of(messages: Any) -> Iterator[str]:
    """Where a provider would refuse *messages*."""
    if misshapen := [m for m in messages if not _is_message(m)]:
        yield f"L11 {len(misshapen)} that are no message, such as {str(misshapen[0])[:200]!r}"
        return
    ids: set[str] = set()
    waiting: list[str] = []
    for place, message in enumerate(messages):
        where = f"message {place}"
        role = message.get("role")
        if role == "tool":
            if message.get("tool_call_id") not in waiting:
                yield f"L11 {where}: a result of no call directly before it"
            else:
                waiting.remove(message["tool_call_id"])
            if not _is_content(message.get("content")):
                yield f"L11 {where}: a result that is neither a text nor parts"
            continue
        if waiting:
            yield f"L11 {where}: calls {waiting} before it have no result"
            waiting = []
        if role not in ("user", "assistant", "system"):
            yield f"L11 {where}: role {role!r}"
        content, calls = message.get("content"), message.get("tool_calls") or []
        if role == "user" and not str(content).strip():
            yield f"L11 {where}: a blank user message"
        if role == "assistant" and not content and not calls:
            yield f"L11 {where}: says nothing"
        if role == "assistant" and isinstance(content, str) and content and not content.strip():
            yield f"L11 {where}: blank text"
        try:
            json.dumps(message).encode()
            str(content).encode()
        except (TypeError, ValueError) as exc:
            yield f"L11 {where}: no JSON ({type(exc).__name__})"
        for call in calls:
            yield from (f"L11 {where}: {flaw}" for flaw in _flaws_of_call(call, ids))
            waiting.append(call["id"])
    if waiting:
        yield f"L11 the last calls {waiting} have no result"


def _is_message(message: Any) -> bool:
    if not isinstance(message, dict):
        return False
    calls = message.get("tool_calls") or []
    return isinstance(calls, list) and all(
        isinstance(call, dict)
        and "id" in call
        and isinstance(call.get("function"), dict)
        and {"name", "arguments"} <= call["function"].keys()
        for call in calls
    )


def _is_content(content: Any) -> bool:
    if isinstance(content, list) and content:
        return all(isinstance(part, dict) and part.get("type") for part in content)
    return isinstance(content, str)


def _flaws_of_call(call: Any, ids: set[str]) -> Iterator[str]:
    key, function = call["id"], call["function"]
    if not isinstance(key, str) or not key or len(key) > ID_LENGTH or not key.isascii():
        yield f"an id of {len(str(key))} characters"
    if key in ids:
        yield f"id {key!r} for the second time"
    ids.add(key)
    if not NAME.fullmatch(function["name"]):
        yield f"a tool of the name {function['name'][:80]!r}"
    try:
        if not isinstance(json.loads(function["arguments"]), dict):
            yield "arguments that are no object"
    except ValueError:
        yield "arguments that do not parse"


class Told(Protocol):
    """What the log told."""

    completed: dict[str, dict[str, Any]]
    """The MESSAGE_COMPLETE of each message, with its agent."""
    ends: dict[str, tuple[int, dict[str, Any]]]
    """Place and data of the END of each call."""
    call_agents: dict[str, str]
    call_messages: dict[str, str]
    starts: dict[str, tuple[int, dict[str, Any]]]
    done: dict[str, Any]


def problems_of_history(record: dict[str, Any], told: Told) -> Iterator[str]:
    """Where the conversation says something else than the log."""
    messages, history = record["messages"], record["history"]
    if messages[: len(history)] != history:
        yield "L11 it does not begin with the history"
        return
    said = messages[len(history) :]
    if not said or said[0]["role"] != "user":
        yield "L11 the user's message is not in it"
        return
    yield from _of_results(said, told)
    yield from _of_texts(said, told.completed, told.done)


def _of_results(said: list[dict[str, Any]], log: Told) -> Iterator[str]:
    told = [m["content"] for m in said if m["role"] == "tool"]
    root = {key: end for key, (_, end) in log.ends.items() if log.call_agents.get(key) == "root"}

    def is_doubtful(key: str) -> bool:
        """Whether it may be no call of the root's replies: made inside another, or never bound."""
        inside = log.starts.get(key, (0, {}))[1].get("parent_call_id") is not None
        return inside or key not in log.call_messages

    left = sorted(root.items(), key=lambda pair: is_doubtful(pair[0]))
    for content in told:
        if "not run" in content:
            continue
        # One error may stand in the words of another, which tells of it: the longer one is meant.
        fitting = [pair for pair in left if _fits(content, pair[1])]
        match = max(fitting, key=lambda pair: len(pair[1]["error"] or ""), default=None)
        if match is None:
            outcomes = {key: end["outcome"] for key, end in root.items()}
            yield f"L11 the result {content[:80]!r} is no END's; they are {outcomes}"
        else:
            left.remove(match)
    for key, end in left:
        message = log.completed.get(log.call_messages.get(key, ""))
        if message is None or message["finish_reason"] in ("error", "cancelled"):
            # A body's own call, or one of a reply that was not finished.
            continue
        _, start = log.starts.get(key, (0, {}))
        if start.get("provider_executed") or start.get("parent_call_id") is not None:
            # The provider's own are carried apart; and of a reply to an agent that a tool called,
            # the design does not say where that goes.
            continue
        if end["outcome"] == "ok":
            yield f"L11 the result of {key} ({end['outcome']}) is not in it"


def _shows(content: list[Any], result: Any) -> bool:
    """Whether the parts that the model is shown are those that the END tells of, without blanks."""
    items = result if isinstance(result, list) else [result]
    told = [item for item in items if not isinstance(item, str) or item.strip()]
    return len(content) == len(told) and all(map(_is_shown, content, told))


def _is_shown(part: dict[str, Any], item: Any) -> bool:
    if part["type"] != "text":
        return isinstance(item, dict) and {"kind", "media_type", "bytes", "name"} == item.keys()
    return bool(part["text"] == item or json.loads(part["text"]) == item)


def _fits(content: Any, end: dict[str, Any]) -> bool:
    """Whether the result that the model is told says how the call ended."""
    if isinstance(content, list):
        return end["outcome"] == "ok" and _shows(content, end["result"])
    match end["outcome"]:
        case "ok":
            result = end["result"]
            if isinstance(result, str):
                return content == result
            try:
                return bool(json.loads(content) == result)
            except ValueError:
                return False
        case "cancelled" | "denied" as outcome:
            return content.startswith("error") and outcome in content
        case _:
            error = str(end["error"] or "")
            return content.startswith("error") and (error[:200] in content or not error)


def _of_texts(
    said: list[dict[str, Any]], completed: dict[str, dict[str, Any]], done: dict[str, Any]
) -> Iterator[str]:
    """What a reader saw the root agent say is in it; tools that speak are exempt."""
    kept = Counter(str(m.get("content")) for m in said if m["role"] == "assistant")
    for message in completed.values():
        text = message["content"]
        is_inside = message.get("parent_call_id") is not None or "t!" in text
        if message["agent"] != "root" or not text.strip() or is_inside:
            continue
        if message["finish_reason"] == "content_filter":
            continue
        if not kept[text]:
            yield f"L11 {text!r} ({message['finish_reason']}) was seen and is not in it"
        kept[text] -= 1
    result = done["result"]
    if done["status"] != "completed" or result is None:
        return
    texts = [str(m.get("content")) for m in said if m["role"] == "assistant"]
    if isinstance(result, str):
        if result.strip() and result not in texts:
            yield f"L11 the result {result[:80]!r} is not in it"
    elif not texts:
        yield "L11 the result is not in it, and the root said nothing else"
