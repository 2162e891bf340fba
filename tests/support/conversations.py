"""Strict judges of conversations: would each provider take it, and does it say what happened?

Written from the providers' documented rules, and sharing nothing with the code under test: the
rules of OpenAI's chat completions and Responses, of Anthropic's messages, and of Gemini's contents
hold for the bodies that our codecs make; `log_problems` holds a conversation against the events of
the run that it comes from. Each gives what is wrong, as sentences; none means that all is well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from flowtrio import AgentEvent, EventType
from flowtrio.wire import (
    _anthropic_requests,
    _gemini,
    _ollama,
    _openai_chat_requests,
    _openai_input,
)

Body = dict[str, Any]
Messages = Sequence[Mapping[str, Any]]

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_OPENAI_ID = 40
_RESPONSES_ID = 64
_GEMINI_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}")
_MEDIA = ("image/jpeg", "image/png", "image/gif", "image/webp")


_CODECS = (_anthropic_requests, _gemini, _ollama, _openai_chat_requests, _openai_input)


def refusals(messages: Messages) -> list[str]:
    """What each provider would refuse of *messages*, as our codecs say them.

    What codecs mend before that counts as well: a run's own conversation has to be fit without.
    """
    told = [] if isinstance(messages, list) else ["the conversation is no list"]
    for name, encode, problems in _PROVIDERS:
        try:
            with pytest.MonkeyPatch.context() as patch:
                for codec in _CODECS:
                    patch.setattr(codec, "to_send", lambda given, _: given)
                body = encode("model", list(messages), None, {}, stream=False)
        except Exception as exc:
            told.append(f"{name}: the codec raised {type(exc).__name__}: {exc}")
            continue
        told += [f"{name}: {problem}" for problem in (*_no_json(body), *problems(body))]
    return told


def _no_json(body: Body) -> Iterator[str]:
    try:
        json.dumps(body, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError) as exc:
        yield f"the body is no JSON: {exc}"


def _is_blank(text: Any) -> bool:
    return not isinstance(text, str) or not text.strip()


def _is_object(text: Any) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (TypeError, ValueError):
        return False


# OpenAI's chat completions

_OPENAI_KEYS = {
    "system": {"role", "content", "name"},
    "developer": {"role", "content", "name"},
    "user": {"role", "content", "name"},
    "assistant": {"role", "content", "name", "refusal", "tool_calls", "audio"},
    "tool": {"role", "content", "tool_call_id"},
}


def openai_problems(body: Body) -> Iterator[str]:
    """What chat completions would refuse of a body's messages.

    "An assistant message with 'tool_calls' must be followed by tool messages responding to each
    'tool_call_id'"; "messages with role 'tool' must be a response to a preceeding message with
    'tool_calls'"; ids of "maximum length 40".
    """
    waiting: list[str] = []
    used: set[str] = set()
    for place, message in enumerate(body["messages"]):
        where, role = f"messages[{place}]", message.get("role")
        if role not in _OPENAI_KEYS:
            yield f"{where}: role {role!r}"
            continue
        if unknown := set(message) - _OPENAI_KEYS[role]:
            yield f"{where}: keys {sorted(unknown)} of role {role!r}"
        if role == "tool":
            if message.get("tool_call_id") not in waiting:
                yield f"{where}: a result for {message.get('tool_call_id')!r}, which waits for none"
            else:
                waiting.remove(message["tool_call_id"])
            yield from _openai_content(where, message.get("content"), may_be_empty=True)
            continue
        if waiting:
            yield f"{where}: calls {waiting} were not answered before it"
            waiting = []
        if role == "assistant":
            yield from _openai_reply(where, message, used, waiting)
        else:
            yield from _openai_content(where, message.get("content"))
    if waiting:
        yield f"the last calls {waiting} were not answered"
    if all(message.get("role") != "user" for message in body["messages"]):
        yield "the user said nothing"


def _openai_reply(
    where: str, message: Mapping[str, Any], used: set[str], waiting: list[str]
) -> Iterator[str]:
    content, calls = message.get("content"), message.get("tool_calls")
    if content is not None:
        yield from _openai_content(where, content)
    elif not calls and _is_blank(message.get("refusal")):
        yield f"{where}: the assistant said and called nothing"
    if calls is None:
        return
    if not isinstance(calls, list) or not 1 <= len(calls) <= 128:
        yield f"{where}: tool_calls {calls!r}"
        return
    for call in calls:
        id, function = call.get("id"), call.get("function")
        if set(call) != {"id", "type", "function"} or call["type"] != "function":
            yield f"{where}: a call of keys {sorted(call)}"
            continue
        if not isinstance(id, str) or not 1 <= len(id) <= _OPENAI_ID:
            yield f"{where}: call id {id!r} has not 1 to {_OPENAI_ID} characters"
        if id in used:
            yield f"{where}: call id {id!r} twice"
        used.add(id)
        waiting.append(id)
        yield from _function(where, function)


def _function(where: str, function: Any) -> Iterator[str]:
    if not isinstance(function, dict) or set(function) != {"name", "arguments"}:
        yield f"{where}: function {function!r}"
        return
    if not isinstance(function["name"], str) or not _NAME.fullmatch(function["name"]):
        yield f"{where}: tool name {function['name']!r}"
    if not _is_object(function["arguments"]):
        yield f"{where}: arguments are no text of a JSON object: {function['arguments']!r}"


def _openai_content(where: str, content: Any, *, may_be_empty: bool = False) -> Iterator[str]:
    if isinstance(content, str):
        if not may_be_empty and _is_blank(content):
            yield f"{where}: blank text {content!r}"
        return
    if not isinstance(content, list) or not content:
        yield f"{where}: content {content!r}"
        return
    for part in content:
        match part:
            case {"type": "text" | "refusal" as type}:
                if _is_blank(part.get(type)):
                    yield f"{where}: a blank part of type {type!r}"
            case {"type": "image_url", "image_url": {"url": str(url)}}:
                if not re.match(r"https?://.|data:image/[a-z+.-]+;base64,.", url):
                    yield f"{where}: an image at {url[:20]!r}"
            case {"type": "input_audio", "input_audio": dict()} | {"type": "file", "file": dict()}:
                pass
            case _:
                yield f"{where}: a part {part!r}"


# OpenAI's Responses


def responses_problems(body: Body) -> Iterator[str]:
    """What Responses would refuse of a body's input.

    "No tool output found for function call …"; "No tool call found for function call output …".
    """
    waiting: dict[str, None] = {}
    used: set[str] = set()
    has_user = False
    for place, item in enumerate(body["input"]):
        where = f"input[{place}]"
        match item:
            case {"type": "function_call", "call_id": id, "name": name, "arguments": arguments}:
                if not isinstance(id, str) or not 1 <= len(id) <= _RESPONSES_ID or id in used:
                    yield f"{where}: call id {id!r}"
                used.add(id)
                waiting[id] = None
                yield from _function(where, {"name": name, "arguments": arguments})
            case {"type": "function_call_output", "call_id": id, "output": output}:
                if id not in waiting:
                    yield f"{where}: an output for {id!r}, which waits for none"
                waiting.pop(id, None)
                if not isinstance(output, str | list):
                    yield f"{where}: output {output!r}"
            case {"role": "system" | "developer" | "user" | "assistant" as role}:
                if waiting:
                    yield f"{where}: calls {list(waiting)} have no output before it"
                    waiting = {}
                has_user = has_user or role == "user"
                yield from _responses_content(where, role, item.get("content"))
            case {"type": "reasoning" | "message"}:
                pass
            case _:
                yield f"{where}: {item!r}"
    if waiting:
        yield f"the last calls {list(waiting)} have no output"
    if not has_user:
        yield "the user said nothing"


def _responses_content(where: str, role: str, content: Any) -> Iterator[str]:
    if isinstance(content, str):
        if _is_blank(content):
            yield f"{where}: blank text {content!r}"
        return
    if not isinstance(content, list) or not content:
        yield f"{where}: content {content!r}"
        return
    kinds = ("output_text", "refusal") if role == "assistant" else ("input_text",)
    for part in content:
        if part.get("type") in kinds:
            if _is_blank(part.get("text", part.get("refusal"))):
                yield f"{where}: a blank part"
        elif role == "assistant" or part.get("type") not in ("input_image", "input_file"):
            yield f"{where}: a part of type {part.get('type')!r} of role {role!r}"


# Anthropic's messages


def anthropic_problems(body: Body) -> Iterator[str]:
    """What Anthropic would refuse of a body.

    "First message must use the user role"; "text content blocks must be non-empty" and "must
    contain non-whitespace text"; "`tool_use` ids must be unique"; "`tool_use` ids were found
    without `tool_result` blocks immediately after"; "each `tool_use` must have a single result".
    """
    for block in body.get("system", ()):
        if block.get("type") != "text" or _is_blank(block.get("text")):
            yield f"system: {block!r}"
    if not body["messages"]:
        yield "no messages"
    waiting: list[str] = []
    used: set[str] = set()
    before = "assistant"
    for place, message in enumerate(body["messages"]):
        where, role, content = f"messages[{place}]", message.get("role"), message.get("content")
        if set(message) != {"role", "content"} or role not in ("user", "assistant"):
            yield f"{where}: role {role!r}, keys {sorted(message)}"
        if role == before:
            yield f"{where}: role {role!r} {'first' if not place else 'twice in a row'}"
        before = role
        if not isinstance(content, list) or not content:
            yield f"{where}: content {content!r}"
            continue
        if role == "user":
            yield from _anthropic_user(where, content, waiting)
            waiting = []
        else:
            yield from _anthropic_reply(where, content, used, waiting)
    if waiting:
        yield f"tool_use {waiting} without tool_result"
    last = body["messages"][-1:]
    if last and last[0]["role"] == "assistant" and last[0]["content"]:
        text = last[0]["content"][-1].get("text", "")
        if text != text.rstrip():
            yield "the last assistant text ends with white space"


def _anthropic_user(where: str, content: list[Any], waiting: list[str]) -> Iterator[str]:
    waiting = list(waiting)
    has_spoken = False
    for block in content:
        match block:
            case {"type": "tool_result", "tool_use_id": id}:
                if id not in waiting:
                    yield f"{where}: tool_result for {id!r}, which waits for none"
                else:
                    waiting.remove(id)
                if has_spoken:
                    yield f"{where}: a tool_result behind other content"
                yield from _anthropic_result(where, block.get("content", ""))
            case _:
                has_spoken = True
                yield from _anthropic_block(where, block)
    if waiting:
        yield f"{where}: tool_use {waiting} without tool_result"


def _anthropic_reply(
    where: str, content: list[Any], used: set[str], waiting: list[str]
) -> Iterator[str]:
    for block in content:
        match block:
            case {"type": "tool_use", "id": id, "name": name, "input": given}:
                if not isinstance(id, str) or not _NAME.fullmatch(id):
                    yield f"{where}: tool_use id {id!r}"
                if id in used:
                    yield f"{where}: tool_use id {id!r} twice"
                used.add(id)
                waiting.append(id)
                if not isinstance(name, str) or not _NAME.fullmatch(name):
                    yield f"{where}: tool name {name!r}"
                if not isinstance(given, dict):
                    yield f"{where}: input {given!r}"
            case {"type": "thinking"}:
                if not block.get("signature"):
                    yield f"{where}: thinking without a signature"
            case {"type": "redacted_thinking" | "server_tool_use"}:
                pass
            case {"type": str(type)} if type.endswith("_tool_result"):
                pass
            case _:
                yield from _anthropic_block(where, block)


def _anthropic_result(where: str, content: Any) -> Iterator[str]:
    if isinstance(content, str):
        return
    for block in content:
        yield from _anthropic_block(where, block)


def _anthropic_block(where: str, block: Mapping[str, Any]) -> Iterator[str]:
    match block:
        case {"type": "text", "text": text}:
            if _is_blank(text):
                yield f"{where}: blank text {text!r}"
        case {"type": "image", "source": {"type": "base64", "media_type": kind, "data": str(data)}}:
            if kind not in _MEDIA or not data:
                yield f"{where}: an image of type {kind!r}"
        case {"type": "image", "source": {"type": "url", "url": str(url)}}:
            if not url.startswith("https://"):
                yield f"{where}: an image at {url[:20]!r}"
        case {"type": "document" | "search_result"}:
            pass
        case _:
            yield f"{where}: a block {block!r}"


# Gemini's contents


def gemini_problems(body: Body) -> Iterator[str]:
    """What Gemini would refuse of a body.

    "Please ensure that the number of function response parts is equal to the number of function
    call parts of the function call turn"; "function call turn comes immediately after a user turn
    or after a function response turn"; "must have one initialized field" (a part without text).
    """
    waiting: list[str] = []
    before = "model"
    for place, content in enumerate(body["contents"]):
        where, role, parts = f"contents[{place}]", content.get("role"), content.get("parts")
        if role == before or role not in ("user", "model"):
            yield f"{where}: role {role!r} behind {before!r}"
        before = role
        if not parts:
            yield f"{where}: no parts"
        answered = [p["functionResponse"]["name"] for p in parts if "functionResponse" in p]
        if answered != waiting:
            yield f"{where}: responses of {answered} to calls of {waiting}"
        waiting = [p["functionCall"]["name"] for p in parts if "functionCall" in p]
        if waiting and role != "model":
            yield f"{where}: the user calls"
        for part in parts:
            yield from _gemini_part(where, part)
    if waiting:
        yield f"calls of {waiting} without responses"
    if not body["contents"]:
        yield "no contents"


def _gemini_part(where: str, part: Mapping[str, Any]) -> Iterator[str]:
    match part:
        case {"text": text}:
            if not text and "thoughtSignature" not in part:
                yield f"{where}: empty text"
        case {"functionCall": {"name": str(name), "args": dict()}}:
            if not _GEMINI_NAME.fullmatch(name):
                yield f"{where}: function name {name!r}"
        case {"functionResponse": {"name": str(name), "response": dict()}}:
            if not _GEMINI_NAME.fullmatch(name):
                yield f"{where}: function name {name!r}"
        case {"inlineData": {"mimeType": str(), "data": str()}} | {"fileData": {"fileUri": str()}}:
            pass
        case _:
            yield f"{where}: a part {part!r}"


# Ollama's chat


def ollama_problems(body: Body) -> Iterator[str]:
    """What an Ollama template could not tell of a body: it takes nearly everything."""
    for place, message in enumerate(body["messages"]):
        where, role = f"messages[{place}]", message.get("role")
        if role not in ("system", "user", "assistant", "tool"):
            yield f"{where}: role {role!r}"
        if not isinstance(message.get("content"), str):
            yield f"{where}: content {message.get('content')!r}"
        calls = message.get("tool_calls", ())
        if role == "tool":
            if not _NAME.fullmatch(message.get("tool_name", "")):
                yield f"{where}: tool name {message.get('tool_name')!r}"
        elif _is_blank(message["content"]) and not calls and not message.get("images"):
            yield f"{where}: nothing was said"
        for call in calls:
            match call:
                case {"function": {"name": str(name), "arguments": dict()}}:
                    if not _NAME.fullmatch(name):
                        yield f"{where}: tool name {name!r}"
                case _:
                    yield f"{where}: a call {call!r}"


def _encode_gemini(
    model: str, messages: Messages, tools: Any, options: Any, *, stream: bool
) -> Body:
    """Gemini says in the address which model it is, and whether it streams."""
    return _gemini.encode_request(messages, tools, options)


_PROVIDERS: tuple[tuple[str, Callable[..., Body], Callable[[Body], Iterator[str]]], ...] = (
    ("openai", _openai_chat_requests.encode_request, openai_problems),
    ("responses", _openai_input.encode_request, responses_problems),
    ("anthropic", _anthropic_requests.encode_request, anthropic_problems),
    ("gemini", _encode_gemini, gemini_problems),
    ("ollama", _ollama.encode_request, ollama_problems),
)


# What happened

NOT_RUN = "error: this call was not run"
_T = EventType


def log_problems(
    messages: Messages, events: Sequence[AgentEvent], history: Messages = ()
) -> list[str]:
    """Where *messages*, of the run whose whole log *events* is, do not say what happened.

    What the root agent said and returned is in them, in whatever order its parts joined; what they
    say of a call is what its END said; and there is nothing else in them.
    """
    return list(_log_problems(messages, events, len(history)))


def _log_problems(messages: Messages, events: Sequence[AgentEvent], after: int) -> Iterator[str]:
    asked, done = events[0].data["message"], events[-1].data
    start = _place_of(messages, asked, after)
    if start is None:
        yield f"the user said {asked!r}, and no message behind the history does"
        return
    said = messages[start + 1 :]
    replies = [event for event in events if _is_reply_of_root(event)]
    has_spoken = any(reply.data["content"].strip() for reply in replies)
    results = {m.get("tool_call_id"): m.get("content") for m in said if m["role"] == "tool"}
    ended = {e.data["call_id"]: e.data for e in events if e.type is _T.TOOL_CALL_END}
    made_by, loose = _calls_by_message(events)
    answer = _text_of_result(done["result"], has_spoken)
    for message in (m for m in said if m["role"] == "assistant"):
        text, reply = message.get("content"), _reply_of(message, replies, made_by)
        if reply is None:
            if text is None or not _is_same(text, answer) or message.get("tool_calls"):
                yield f"nobody said {text!r} or made the calls {_names(message)}"
            continue
        replies.remove(reply)
        is_cut = reply.data["finish_reason"] in ("cancelled", "error")
        if is_cut != bool((message.get("flowtrio") or {}).get("partial")):
            yield f"{text!r} ended {reply.data['finish_reason']}, and its mark says otherwise"
        calls = [*made_by.get(reply.data["message_id"], ()), *loose]
        for problem, call in _call_problems(message, calls, results, ended):
            if call in loose:
                loose.remove(call)
            if problem:
                yield problem
    for reply in replies:
        # A withheld reply is in no conversation.
        if reply.data["content"].strip() and reply.data["finish_reason"] != "content_filter":
            yield f"{reply.data['content']!r} was said, and is in no message"
    if answer is not None:
        last = said[-1] if said else {}
        if last.get("role") != "assistant" or not _is_same(last.get("content"), answer):
            yield f"{answer!r} was returned, and is not the last message"


def _place_of(messages: Messages, asked: str, after: int) -> int | None:
    """Where the user's message is: near where the history ended, which may have been mended."""
    places = [
        place
        for place, message in enumerate(messages)
        if message.get("role") == "user" and (not asked.strip() or message["content"] == asked)
    ]
    return min(places, key=lambda place: abs(place - after), default=None)


def _is_reply_of_root(event: AgentEvent) -> bool:
    """Whether a message is complete that is the root agent's, not that of a tool it called."""
    is_roots = event.agent == "root" and event.data.get("parent_call_id") is None
    return event.type is _T.MESSAGE_COMPLETE and is_roots


def _text_of_result(result: Any, has_spoken: bool) -> str | None:
    """What a run's result has to be in its conversation; None for nothing."""
    if isinstance(result, str):
        return result if result.strip() else None
    return None if result is None or has_spoken else json.dumps(result)


def _is_same(text: Any, answer: str | None) -> bool:
    """Whether both are one text, or one JSON value."""
    if text == answer:
        return True
    try:
        return answer is not None and json.loads(text) == json.loads(answer)
    except (TypeError, ValueError):
        return False


_Call = tuple[str, str]
"""A call's id and its tool's name."""


def _calls_by_message(
    events: Sequence[AgentEvent],
) -> tuple[dict[str, list[_Call]], list[_Call]]:
    """The calls that each message made, and those that ended without a word of whose they were."""
    made: dict[str, dict[str, str]] = {}
    told: dict[str, str] = {}
    ended: dict[str, str] = {}
    for event in events:
        data = event.data
        if event.type in (_T.TOOL_CALL_ARGS, _T.TOOL_CALL_START):
            told[data["call_id"]] = data["tool_name"]
            if data["message_id"] is not None and not data.get("provider_executed"):
                made.setdefault(data["message_id"], {})[data["call_id"]] = data["tool_name"]
        elif event.type is _T.MESSAGE_RESET:
            made.pop(data["message_id"], None)
        elif event.type is _T.TOOL_CALL_END and event.agent == "root":
            ended[data["call_id"]] = data["tool_name"]
    by_message = {of: sorted(calls.items(), key=_number) for of, calls in made.items()}
    return by_message, sorted((c for c in ended.items() if c[0] not in told), key=_number)


def _number(call: _Call) -> int:
    return int(call[0].removeprefix("c"))


def _names(message: Mapping[str, Any]) -> list[str]:
    return [call["function"]["name"] for call in message.get("tool_calls") or ()]


def _fits(name: str, given: str) -> bool:
    """Whether *name* is what became of *given* on its way into the conversation."""
    return (
        name == given
        or re.sub(r"[^a-zA-Z0-9_-]", "_", given)[:64] in (name, "")
        or (not _NAME.fullmatch(given))
    )


def _reply_of(
    message: Mapping[str, Any],
    replies: Sequence[AgentEvent],
    made_by: Mapping[str, Sequence[_Call]],
) -> AgentEvent | None:
    """The reply that *message* is: of the same text, if it can be with calls as it has."""
    text, calls = message.get("content") or "", bool(message.get("tool_calls"))
    same = [reply for reply in replies if reply.data["content"] == text] or [
        # A refusal is told in parts, and a blank text may have become none.
        reply
        for reply in replies
        if not reply.data["content"].strip() and (not text or not calls)
    ]
    fitting = [
        reply
        for reply in same
        if calls == bool(made_by.get(reply.data["message_id"]))
        or calls == (reply.data["finish_reason"] == "tool_calls")
    ]
    return next(iter(fitting or same), None)


def _call_problems(
    message: Mapping[str, Any],
    made: Sequence[_Call],
    results: Mapping[Any, Any],
    ended: Mapping[str, Mapping[str, Any]],
) -> Iterator[tuple[str | None, _Call | None]]:
    """Of each call in *message* what is wrong with it, and which one of the log it is."""
    left = list(made)
    for call in message.get("tool_calls") or ():
        name, told = call["function"]["name"], results.get(call["id"])
        found = next((pair for pair in left if _fits(name, pair[1])), None)
        if found is None:
            wrong = told != NOT_RUN
            yield (f"nobody ran {name!r}, and its result says {told!r}" if wrong else None), None
            continue
        left.remove(found)
        end = ended[found[0]]
        what = f"{end['outcome']} ({end['result']!r}, {end['error']!r})"
        wrong = not _agrees(told, end)
        yield (f"{name!r} ended {what}, and its result says {told!r}" if wrong else None), found


def _agrees(told: Any, end: Mapping[str, Any]) -> bool:
    if not isinstance(told, str):
        return False
    result, error = end["result"], end["error"] or ""
    match end["outcome"]:
        case "ok" if isinstance(result, str):
            return told == result
        case "ok":
            return _decoded(told) == result
        case "denied":
            return told.startswith("error:") and "denied" in told and error in told
        case "cancelled":
            return told.startswith("error:") and (error if error else "cancelled") in told
        case "timeout":
            return told.startswith("error:") and (error or "time") in told
        case _:
            return told.startswith("error:") and error in told


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return ...
