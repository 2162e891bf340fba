"""What hosts and gateways really send, as whole runs: which tools ran, what was said, how it ended.

Each case is bytes and seconds of silence. After the reply in question the model says "ok".
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

import attrs
import pytest
from trio.testing import MockClock

from flowtrio import Agent, EventType, FallbackClient, StreamEngine, tool
from flowtrio.clients._errors import error_of_response
from flowtrio.testing import check_events
from flowtrio.wire._errors import stream_error
from tests.support.conversations import refusals
from tests.support.fake_host import Answer, FakeHost, Step
from tests.support.protocols import PROTOCOLS, Said

HELLO: Final = Said("Hello there")
OK: Final = Said("ok")
CALL: Final = Said("", (("get_weather", {"city": "Paris"}),))
RAN: Final = ("get_weather Paris",)
SSE: Final = tuple(name for name in PROTOCOLS if name != "ollama")
CHATS: Final = ("chat", "azure", "dashscope")


@attrs.frozen(kw_only=True)
class Case:
    """One reply, and what comes of it."""

    protocol: str
    steps: tuple[Step, ...]
    status: str = "completed"
    code: str | None = None
    text: str | None = None
    """Of the last message."""
    called: tuple[str, ...] = ()
    requests: int = 1
    resets: int = 0


def sse(*payloads: dict[str, Any] | str) -> tuple[bytes, ...]:
    """Frames, each of JSON or of text as it is."""
    texts = [each if isinstance(each, str) else json.dumps(each) for each in payloads]
    return tuple(f"data: {text}\n\n".encode() for text in texts)


def framed(protocol: str, text: str) -> bytes:
    """A frame of this protocol that holds *text*."""
    return f"{text}\n".encode() if protocol == "ollama" else f"data: {text}\n\n".encode()


def stream(protocol: str, said: Said) -> tuple[bytes, ...]:
    return tuple(PROTOCOLS[protocol].stream(said))


def begun(protocol: str, said: Said) -> tuple[bytes, ...]:
    """A reply without its end."""
    return stream(protocol, said)[: -PROTOCOLS[protocol].finish_mark]


# How the protocols say things


def chat(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def piece(
    arguments: Any, name: str | None = None, id: str | None = None, index: Any = 0
) -> dict[str, Any]:
    """A fragment of a call in chat completions."""
    function = {"arguments": arguments} | ({} if name is None else {"name": name})
    call: dict[str, Any] = {"type": "function", "index": index, "function": function}
    return chat(tool_calls=[call if id is None else {**call, "id": id}])


def gemini(*parts: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": list(parts)}, "finishReason": finish}]}


def start(**message: Any) -> dict[str, Any]:
    """Anthropic's first event."""
    return {"type": "message_start", "message": {"model": "m", "content": [], **message}}


def block(index: int, **given: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": given}


def text_block(text: str, index: int = 0) -> tuple[dict[str, Any], ...]:
    delta = {"type": "text_delta", "text": text}
    return (
        block(index, type="text", text=""),
        {"type": "content_block_delta", "index": index, "delta": delta},
        {"type": "content_block_stop", "index": index},
    )


def call_block(arguments: str, name: str = "get_weather") -> tuple[dict[str, Any], ...]:
    delta = {"type": "input_json_delta", "partial_json": arguments}
    begin = block(0, type="tool_use", id="toolu_1", name=name, input={})
    return (begin, {"type": "content_block_delta", "index": 0, "delta": delta})


def stop(reason: str | None) -> tuple[dict[str, Any], ...]:
    told = {"type": "message_delta", "delta": {"stop_reason": reason}}
    return (told, {"type": "message_stop"})


def item(arguments: Any, name: str = "delete", status: str = "incomplete") -> dict[str, Any]:
    return {
        **{"type": "function_call", "id": "f", "call_id": "c1"},
        **{"name": name, "arguments": arguments, "status": status},
    }


def incomplete(reason: str, *output: dict[str, Any]) -> dict[str, Any]:
    told = {"status": "incomplete", "incomplete_details": {"reason": reason}}
    return {"type": "response.incomplete", "response": {**told, "output": list(output)}}


def completed(*output: dict[str, Any]) -> dict[str, Any]:
    response = {"status": "completed", "output": list(output)}
    return {"type": "response.completed", "response": response}


def line(message: dict[str, Any], **more: Any) -> bytes:
    """A line of Ollama's."""
    return json.dumps({"model": "m", "message": message, **more}).encode() + b"\n"


WEATHER: Final = '{"city": "Paris"}'
WHOLE_CALL: Final = piece(WEATHER, "get_weather", "a")

# Withheld

WITHHELD: Final[dict[str, tuple[str, tuple[Step, ...]]]] = {
    "chat, content_filter": ("chat", sse(WHOLE_CALL, chat("content_filter"), "[DONE]")),
    "chat, in Google's words": ("chat", sse(WHOLE_CALL, chat("SAFETY"), "[DONE]")),
    "chat, content_filter and then stop": (
        "chat",
        sse(WHOLE_CALL, chat("content_filter"), chat("stop"), "[DONE]"),
    ),
    "azure": ("azure", sse(WHOLE_CALL, chat("content_filter"), "[DONE]")),
    "dashscope": ("dashscope", sse(WHOLE_CALL, chat("content_filter"), "[DONE]")),
    "responses": (
        "responses",
        sse(incomplete("content_filter", item(WEATHER, "get_weather", "completed"))),
    ),
    **{
        f"responses, {reason}": ("responses", sse(incomplete(reason, item(WEATHER, "get_weather"))))
        for reason in ("safety", "refusal", "content_filtered", "SAFETY")
    },
    "anthropic": ("anthropic", sse(start(), *call_block(WEATHER), *stop("refusal"))),
    "anthropic, in OpenAI's words": (
        "anthropic",
        sse(start(), *call_block(WEATHER), *stop("content_filter")),
    ),
    **{
        f"gemini, {reason}": (
            "gemini",
            sse(
                gemini({"functionCall": {"name": "get_weather", "args": {"city": "Paris"}}}),
                gemini(finish=reason),
            ),
        )
        for reason in ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII")
    },
    "gemini, the prompt": ("gemini", sse({"promptFeedback": {"blockReason": "OTHER"}})),
}

# Cut

CUT: Final[dict[str, tuple[str, tuple[Step, ...]]]] = {
    **{
        f"{name}, before the arguments": (
            name,
            sse(piece("", "delete", "a"), chat("length"), "[DONE]"),
        )
        for name in CHATS
    },
    "chat, whole arguments": ("chat", sse(WHOLE_CALL, chat("length"), "[DONE]")),
    "chat, max_output_tokens": ("chat", sse(WHOLE_CALL, chat("max_output_tokens"), "[DONE]")),
    "chat, stop and then length": (
        "chat",
        sse(WHOLE_CALL, chat("stop"), chat("length"), "[DONE]"),
    ),
    "chat, no reason": ("chat", sse(piece("", "delete", "a"), "[DONE]")),
    "chat, no reason, whole arguments": ("chat", sse(WHOLE_CALL, "[DONE]")),
    "chat, no reason, text too": ("chat", sse(chat(content="Let me"), WHOLE_CALL, "[DONE]")),
    "responses": (
        "responses",
        sse(
            {"type": "response.output_item.added", "output_index": 0, "item": item("")},
            incomplete("max_output_tokens", item("")),
        ),
    ),
    "responses, for a reason that nobody knows": ("responses", sse(incomplete("?", item("")))),
    "responses, only the call says so": ("responses", sse(completed(item(WEATHER, "get_weather")))),
    "responses, a call that was only begun": (
        "responses",
        sse(
            {"type": "response.output_item.added", "output_index": 0, "item": item("")},
            completed(),
        ),
    ),
    "anthropic, max_tokens": ("anthropic", sse(start(), *call_block(""), *stop("max_tokens"))),
    "anthropic, no reason": ("anthropic", sse(start(), *call_block(""), *stop(None))),
    "anthropic, message_stop alone": (
        "anthropic",
        sse(start(), *call_block(WEATHER), {"type": "message_stop"}),
    ),
    "gemini": (
        "gemini",
        sse(gemini({"functionCall": {"name": "delete", "args": {}}}, finish="MAX_TOKENS")),
    ),
    "ollama": (
        "ollama",
        (
            line({"content": "", "tool_calls": [{"function": {"name": "delete"}}]}),
            line({"content": ""}, done=True, done_reason="length"),
        ),
    ),
}

FULL: Final[dict[str, tuple[str, tuple[Step, ...]]]] = {
    "anthropic": (
        "anthropic",
        sse(start(), *call_block(""), *stop("model_context_window_exceeded")),
    ),
    "responses": (
        "responses",
        sse(incomplete("model_context_window_exceeded", item(WEATHER, "get_weather"))),
    ),
    "chat, in Mistral's words": ("chat", sse(WHOLE_CALL, chat("model_length"), "[DONE]")),
}

# Finish marks that come too early, and what follows them

EARLY: Final[dict[str, Case]] = {
    **{
        f"{name}, with the role": Case(
            protocol=name,
            steps=(
                *sse(chat("stop", role="assistant", content="")),
                2.5,
                *sse(chat(content="The answer is 42."), chat("stop"), "[DONE]"),
            ),
            text="The answer is 42.",
        )
        for name in CHATS
    },
    "chat, several times": Case(
        protocol="chat",
        steps=(
            *sse(chat("stop", content="The ")),
            *(4.5, *sse(chat("stop", content="answer "))),
            *(4.5, *sse(chat("stop", content="is 42."))),
        ),
        text="The answer is 42.",
    ),
    **{
        f"chat, the text {word!r}": Case(
            protocol="chat",
            steps=(
                *sse(chat(word, content="The answer ")),
                *(20, *sse(chat(word, content="is 42."), chat("stop"), "[DONE]")),
            ),
            text="The answer is 42.",
        )
        for word in ("null", "None", "", "FINISH_REASON_UNSPECIFIED")
    },
    "chat, a call behind it": Case(
        protocol="chat",
        steps=(*sse(chat("stop", content="")), 3, *sse(WHOLE_CALL, chat("tool_calls"), "[DONE]")),
        called=RAN,
        requests=2,
        text="ok",
    ),
    "gemini, on every chunk": Case(
        protocol="gemini",
        steps=(
            *sse(gemini({"text": "The answer "}, finish="STOP")),
            *(3, *sse(gemini({"text": "is 42."}, finish="STOP"))),
        ),
        text="The answer is 42.",
    ),
    "anthropic, in the first event": Case(
        protocol="anthropic",
        steps=(
            *sse(start(stop_reason="end_turn")),
            *(3, *sse(*text_block("The answer is 42."), *stop("end_turn"))),
        ),
        text="The answer is 42.",
    ),
    "chat, an error behind it": Case(
        protocol="chat",
        steps=(*sse(chat("stop", content="Half")), 3, *sse({"error": {"message": "no"}})),
        status="error",
        code="stream_error",
    ),
    "chat, a cut behind it": Case(
        protocol="chat",
        steps=(*sse(chat("stop", content="Half")), "ReadError"),
        status="error",
        code="stream_cut",
    ),
    "gemini, a failure behind it": Case(
        protocol="gemini",
        steps=sse(gemini({"text": "Half"}, finish="STOP"), gemini(finish="MALFORMED_RESPONSE")),
        status="error",
        code="stream_error",
    ),
    "chat, silence behind it": Case(
        protocol="chat", steps=(*sse(chat("stop", content="All.")), 60), text="All."
    ),
    "chat, [DONE] alone after text": Case(
        protocol="chat", steps=sse(chat(content="All."), "[DONE]"), text="All."
    ),
    "anthropic, message_stop alone after text": Case(
        protocol="anthropic",
        steps=sse(start(), *text_block("All."), {"type": "message_stop"}),
        text="All.",
    ),
    "chat, [DONE] alone after thoughts": Case(
        protocol="chat",
        steps=sse(chat(reasoning="Hm."), "[DONE]"),
        status="error",
        code="stream_cut",
    ),
}

# Nothing said, or an error before anything is

AGAIN: Final[dict[str, tuple[str, tuple[Step, ...]]]] = {
    "chat, [DONE] alone": ("chat", sse("[DONE]")),
    "chat, a role and [DONE]": ("chat", sse(chat(role="assistant", content=""), "[DONE]")),
    "chat, code and message": (
        "chat",
        sse({"code": "429", "message": "Too many requests"}, "[DONE]"),
    ),
    "chat, an object": ("chat", sse({"object": "error", "message": "Overloaded"}, "[DONE]")),
    "anthropic, overloaded": (
        "anthropic",
        sse({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
    ),
    "gemini, a list": ("gemini", sse('[{"error": {"code": 503, "message": "busy"}}]')),
    "chat, for its calls, and there are none": (
        "chat",
        sse(chat(role="assistant", content=""), chat("tool_calls"), "[DONE]"),
    ),
    "anthropic, for its calls, and there are none": ("anthropic", sse(start(), *stop("tool_use"))),
    "responses, overloaded": (
        "responses",
        sse({"type": "error", "code": "server_is_overloaded", "message": "Overloaded"}),
    ),
    **{f"{name}, no byte": (name, ()) for name in PROTOCOLS},
}

# Keepalives

PINGS: Final = (": keepalive", "[PING]", '""', "[]", "null", "{}", "ping")
PINGS_OF_SSE: Final = ("OK", ".", "#", "2026-01-01T00:00:00Z", "OPENROUTER PROCESSING")
NAMED_PINGS: Final = (
    b'event: keepalive\ndata: {"message": "still working"}\n\n',
    b'event: ping\ndata: {"status": "error", "message": "pong"}\n\n',
    b"event: ping\ndata: 2026-01-01\n\n",
    b"event: ping\ndata\n\n",
    b": x\n\n",
)

# Calls in odd pieces


def calls(*pieces: dict[str, Any]) -> tuple[bytes, ...]:
    return sse(*pieces, chat("tool_calls"), "[DONE]")


TIME: Final = '{"tz": "UTC"}'
BOTH: Final = ("get_time UTC", *RAN)
ODD_CALLS: Final[dict[str, tuple[tuple[bytes, ...], tuple[str, ...]]]] = {
    "the id changes": (
        calls(piece("", "get_weather", "call_a"), piece(WEATHER, None, "call_b")),
        RAN,
    ),
    "the id changes with each piece": (
        calls(
            piece("", "get_weather", "a"),
            piece('{"city": ', None, "b"),
            piece('"Paris"}', None, "c"),
        ),
        RAN,
    ),
    "the id changes and the name is told again": (
        calls(
            piece("", "get_weather", "a"),
            piece('{"city": ', "get_weather", "b"),
            piece('"Paris"}', "get_weather", "c"),
        ),
        RAN,
    ),
    "two in one place, empty ids": (
        calls(piece(WEATHER, "get_weather", ""), piece(TIME, "get_time", "")),
        BOTH,
    ),
    "two in one place, equal ids": (
        calls(piece(WEATHER, "get_weather", "a"), piece(TIME, "get_time", "a")),
        BOTH,
    ),
    "two in one place, no ids": (
        calls(piece(WEATHER, "get_weather"), piece(TIME, "get_time")),
        BOTH,
    ),
    "two in one place, their ids": (
        calls(piece(WEATHER, "get_weather", "a"), piece(TIME, "get_time", "b")),
        BOTH,
    ),
    "two of one tool in one place, no ids": (
        calls(piece(WEATHER, "get_weather"), piece('{"city": "Rome"}', "get_weather")),
        ("get_weather Paris", "get_weather Rome"),
    ),
    "two as objects in one place": (
        calls(piece({"city": "Paris"}, "get_weather", ""), piece({"tz": "UTC"}, "get_time", "")),
        BOTH,
    ),
    "two without places": (
        calls(piece(WEATHER, "get_weather", "", None), piece(TIME, "get_time", "", None)),
        BOTH,
    ),
    "one that is no list": (
        calls(
            chat(tool_calls={"id": "a", "function": {"name": "get_weather", "arguments": WEATHER}})
        ),
        RAN,
    ),
    "a place that is text": (calls(piece(WEATHER, "get_weather", "a", "0")), RAN),
    "a place that is nothing": (calls(piece(WEATHER, "get_weather", "a", {})), RAN),
    "equal ids in two places": (
        calls(piece(WEATHER, "get_weather", "a"), piece(TIME, "get_time", "a", 1)),
        BOTH,
    ),
}

# Arguments that are no object, which are not the same as none


def whole_call(protocol: str, arguments: Any) -> tuple[bytes, ...]:
    """A call of `delete` whose arguments came at once."""
    match protocol:
        case "anthropic":
            begin = block(0, type="tool_use", id="t", name="delete", input=arguments)
            return sse(
                start(), begin, {"type": "content_block_stop", "index": 0}, *stop("tool_use")
            )
        case "gemini":
            call = {"name": "delete", "args": arguments}
            return sse(gemini({"functionCall": call}, finish="STOP"))
        case "ollama":
            function = {"name": "delete", "arguments": arguments}
            message = {"content": "", "tool_calls": [{"function": function}]}
            return (line(message), line({"content": ""}, done=True, done_reason="stop"))
        case "responses":
            done = item(arguments, status="completed")
            response = {"status": "completed", "output": [done]}
            return sse({"type": "response.completed", "response": response})
        case _:
            return calls(piece(arguments, "delete", "a"))


def grown_call(
    delta: dict[str, Any], index: int = 0, begun_at: int | None = 0
) -> tuple[bytes, ...]:
    """The same in Anthropic's pieces, of which some are odd."""
    begin = block(0, type="tool_use", id="t", name="delete", input={}) | {"index": begun_at}
    told = {"type": "content_block_delta", "index": index, "delta": delta}
    return sse(start(), begin, told, *stop("tool_use"))


NO_OBJECTS: Final = (["x"], 5, True, '"x"', "[1]", '["x"]', '{"path": ')
WHOLE: Final = ({"path": "x"}, '{"path": "x"}')
DELETED: Final = ("delete x",)
PIECE: Final = {"type": "input_json_delta", "partial_json": '{"path": "x"}'}
ARGUMENTS: Final[dict[str, tuple[str, tuple[bytes, ...], tuple[str, ...]]]] = {
    **{
        f"{name}, {arguments!r}": (name, whole_call(name, arguments), ran)
        for name in PROTOCOLS
        for given, ran in ((NO_OBJECTS, ()), (WHOLE, DELETED), (({}, "", None), ("delete .",)))
        for arguments in given
    },
    "blank": ("chat", whole_call("chat", "  "), ("delete .",)),
    "a number that is none": ("ollama", whole_call("ollama", {"path": float("nan")}), ()),
    "a piece that is an object": (
        "anthropic",
        grown_call({"type": "input_json_delta", "partial_json": {"path": "x"}}),
        DELETED,
    ),
    "a piece that is a list": (
        "anthropic",
        grown_call({"type": "input_json_delta", "partial_json": ["x"]}),
        (),
    ),
    "a piece of no type": ("anthropic", grown_call({"partial_json": '{"path": "x"}'}), DELETED),
    "a piece in another place": ("anthropic", grown_call(PIECE, index=1), DELETED),
    "a call in no place": ("anthropic", grown_call(PIECE, index=1, begun_at=None), DELETED),
    "a piece of Responses that is an object": (
        "responses",
        sse(
            {
                "type": "response.output_item.added",
                "output_index": 0,
                "item": item("", status="in_progress"),
            },
            {
                **{"type": "response.function_call_arguments.delta", "output_index": 0},
                **{"delta": {"path": "x"}},
            },
            {"type": "response.completed", "response": {"status": "completed"}},
        ),
        DELETED,
    ),
}

# Characters in two halves

SMILE: Final = "a 😀"
HALVES: Final[dict[str, tuple[str, tuple[bytes, ...]]]] = {
    **{
        name: (
            name,
            (
                rb'data: {"choices":[{"delta":{"content":"a \ud83d"}}]}' + b"\n\n",
                rb'data: {"choices":[{"delta":{"content":"\ude00"},"finish_reason":"stop"}]}',
            ),
        )
        for name in CHATS
    },
    "anthropic": (
        "anthropic",
        (
            *sse(start(), block(0, type="text", text="")),
            rb'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta",'
            rb'"text":"a \ud83d"}}' + b"\n\n",
            rb'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta",'
            rb'"text":"\ude00"}}' + b"\n\n",
            *sse(*stop("end_turn")),
        ),
    ),
    "gemini": (
        "gemini",
        (
            rb'data: {"candidates":[{"content":{"parts":[{"text":"a \ud83d"}]}}]}' + b"\n\n",
            rb'data: {"candidates":[{"content":{"parts":[{"text":"\ude00"}]},'
            rb'"finishReason":"STOP"}]}',
        ),
    ),
    "ollama": (
        "ollama",
        (
            rb'{"message":{"content":"a \ud83d"}}' + b"\n",
            rb'{"message":{"content":"\ude00"},"done":true}' + b"\n",
        ),
    ),
    "responses": (
        "responses",
        (
            rb'data: {"type":"response.output_text.delta","output_index":0,"delta":"a \ud83d"}'
            + b"\n\n",
            rb'data: {"type":"response.output_text.delta","output_index":0,"delta":"\ude00"}'
            + b"\n\n",
            *sse({"type": "response.completed", "response": {"status": "completed"}}),
        ),
    ),
    "chat, as bytes of each half": (
        "chat",
        (
            b'data: {"choices":[{"delta":{"content":"a \xed\xa0\xbd"}}]}\n\n',
            b'data: {"choices":[{"delta":{"content":"\xed\xb8\x80"},"finish_reason":"stop"}]}\n\n',
        ),
    ),
}

# Where something else stands in an answer than its protocol says


def unnamed(*events: dict[str, Any]) -> tuple[bytes, ...]:
    """Anthropic's events, whose names stand outside of their data alone."""
    return tuple(
        f"event: {event['type']}\n".encode()
        + sse({key: value for key, value in event.items() if key != "type"})[0]
        for event in events
    )


MISPLACED: Final[dict[str, tuple[str, tuple[bytes, ...]]]] = {
    "chat, a message beside an empty delta": (
        "chat",
        sse(
            {"choices": [{"delta": {}, "message": {"content": "Hello there"}}]},
            *(chat("stop"), "[DONE]"),
        ),
    ),
    "chat, a message that repeats its deltas": (
        "chat",
        sse(
            chat(content="Hello there"),
            {"choices": [{"delta": {}, "message": {"content": "Hello there"}}]},
            *(chat("stop"), "[DONE]"),
        ),
    ),
    "chat, a number that is none": (
        "chat",
        (
            b'data: {"choices": [{"delta": {"content": "Hello there"}, "logprobs": {"a": -Infinity,'
            b' "b": NaN}}]}\n\n',
            *sse(chat("stop"), "[DONE]"),
        ),
    ),
    "chat, a line's end in a text": (
        "chat",
        (
            b'data: {"choices": [{"delta": {"content": "Hello there"}}], "id": "a\tb"}\n\n',
            *sse(chat("stop"), "[DONE]"),
        ),
    ),
    **{
        f"{name}, events without blank lines": (
            name,
            tuple(frame.replace(b"\n\n", b"\n") for frame in stream(name, HELLO)),
        )
        for name in (*CHATS, "gemini")
    },
    "chat, one event in several lines": (
        "chat",
        (
            b'data: {"choices": [{"delta":\ndata: {"content": "Hello there"}}]}\n\n',
            *sse(chat("stop"), "[DONE]"),
        ),
    ),
    "chat, a part alone": (
        "chat",
        sse(chat("stop", content={"type": "text", "text": "Hello there"}), "[DONE]"),
    ),
    "anthropic, names outside": (
        "anthropic",
        unnamed(start(), *text_block("Hello there"), *stop("end_turn")),
    ),
    "anthropic, a delta of no type": (
        "anthropic",
        sse(
            start(),
            {"type": "content_block_delta", "index": 0, "delta": {"text": "Hello there"}},
            *stop("end_turn"),
        ),
    ),
}

# Fields of odd types


def _odd(protocol: str, old: str, new: str) -> tuple[str, tuple[bytes, ...]]:
    """A reply in which a piece of JSON is another one."""
    frames = stream(protocol, HELLO)
    changed = tuple(frame.replace(old.encode(), new.encode("latin-1")) for frame in frames)
    assert changed != frames
    return protocol, changed


ODD: Final[dict[str, tuple[str, tuple[bytes, ...]]]] = {
    "chat, the model": _odd("chat", '"m-1"', "5"),
    "chat, a choice's place": _odd("chat", '"index": 0', '"index": "zero"'),
    "chat, no deltas": _odd("chat", '"delta": {}', '"delta": []'),
    "chat, no choices": _odd("chat", '"choices": []', '"choices": {}'),
    "chat, the reason": _odd("chat", '"finish_reason": null', '"finish_reason": 0'),
    "chat, bytes that are no text": _odd("chat", '"m-1"', '"\xff"'),
    "azure, the model": _odd("azure", '"m-1"', "[]"),
    "dashscope, a choice's place": _odd("dashscope", '"index": 0', '"index": []'),
    "responses, the response": _odd("responses", '"model": "m-1"', '"model": {}'),
    "responses, a place": _odd("responses", '"content_index": 0', '"content_index": "0"'),
    "anthropic, the model": _odd("anthropic", '"m-1"', "5"),
    "anthropic, the usage": _odd("anthropic", '"usage": {"output_tokens": 3}', '"usage": []'),
    "anthropic, bytes that are no text": _odd("anthropic", '"m-1"', '"\xff"'),
    "gemini, the model": _odd("gemini", '"m-1"', "5"),
    "gemini, a candidate's place": _odd("gemini", '"index": 0', '"index": "0"'),
    "gemini, bytes that are no text": _odd("gemini", '"m-1"', '"\xff"'),
    "ollama, the model": _odd("ollama", '"m-1"', "5"),
    "ollama, the counts": _odd("ollama", '"eval_count": 3', '"eval_count": "three"'),
    "ollama, bytes that are no text": _odd("ollama", '"m-1"', '"\xff"'),
}


def cases() -> dict[str, Case]:
    found: dict[str, Case] = {}
    for name, (protocol, steps) in WITHHELD.items():
        found[f"withheld: {name}"] = Case(
            protocol=protocol, steps=steps, status="error", code="withheld"
        )
    for name, (protocol, steps) in CUT.items():
        found[f"cut: {name}"] = Case(protocol=protocol, steps=steps, requests=2, text="ok")
    for name, (protocol, steps) in FULL.items():
        found[f"full: {name}"] = Case(
            protocol=protocol, steps=steps, status="error", code="context_window"
        )
    found |= {f"early: {name}": case for name, case in EARLY.items()}
    for name, (protocol, steps) in AGAIN.items():
        found[f"again: {name}"] = Case(protocol=protocol, steps=steps, requests=2, text="ok")
    for protocol in PROTOCOLS:
        first, *rest = stream(protocol, HELLO)
        pings = tuple(framed(protocol, ping) for ping in PINGS)
        if protocol in SSE:
            pings += tuple(framed(protocol, ping) for ping in PINGS_OF_SSE) + NAMED_PINGS
        for place, ping in enumerate(pings):
            found[f"ping: {protocol} {place}"] = Case(
                protocol=protocol, steps=(ping, first, ping, *rest, ping), text=HELLO.text
            )
    for name, (steps, called) in ODD_CALLS.items():
        found[f"calls: {name}"] = Case(
            protocol="chat", steps=steps, called=called, requests=2, text="ok"
        )
    for name, (protocol, steps, called) in ARGUMENTS.items():
        found[f"arguments: {name}"] = Case(
            protocol=protocol, steps=steps, called=called, requests=2, text="ok"
        )
    for name, (protocol, steps) in HALVES.items():
        found[f"halves: {name}"] = Case(protocol=protocol, steps=steps, text=SMILE)
    for name, (protocol, steps) in (ODD | MISPLACED).items():
        found[f"odd: {name}"] = Case(protocol=protocol, steps=steps, text=HELLO.text)
    found["again: anthropic in the midst"] = Case(
        protocol="anthropic",
        steps=(*sse(start(), *text_block("Hel")), *stream("anthropic", HELLO)),
        text=HELLO.text,
        resets=1,
    )
    found["again: anthropic in the midst of a call"] = Case(
        protocol="anthropic",
        steps=(*sse(start(), *call_block('{"ci')), *stream("anthropic", CALL)),
        called=RAN,
        requests=2,
        resets=1,
        text="ok",
    )
    created = {"type": "response.created", "response": {"status": "in_progress"}}
    said = {"type": "response.output_text.delta", "output_index": 0, "delta": "Hel"}
    found["again: responses in the midst"] = Case(
        protocol="responses",
        steps=(*sse(created, said), *stream("responses", HELLO)),
        text=HELLO.text,
        resets=1,
    )
    begun = {"type": "response.output_item.added", "output_index": 0, "item": item('{"pa')}
    found["again: responses in the midst of a call"] = Case(
        protocol="responses",
        steps=(*sse(created, begun), *stream("responses", CALL)),
        called=RAN,
        requests=2,
        resets=1,
        text="ok",
    )
    message = {"type": "message", "content": [{"type": "output_text", "text": "Let me look."}]}
    told = {"type": "response.output_item.done", "output_index": 0, "item": message}
    found["calls: responses, told at the end alone"] = Case(
        protocol="responses",
        steps=sse(told, completed(message, item(WEATHER, "get_weather", "completed"))),
        called=RAN,
        requests=2,
        text="ok",
    )
    return found


CASES: Final = cases()


@pytest.mark.parametrize("name", CASES)
async def test_what_gateways_send_is_read_for_what_it_is(
    autojump_clock: MockClock, library: ModuleType, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    case, called = CASES[name], list[str]()
    protocol = PROTOCOLS[case.protocol]
    replies = [case.steps, tuple(protocol.stream(OK))]
    head = {"content-type": protocol.content_type}
    host = FakeHost(library, [Answer(steps=steps, headers=head) for steps in replies])
    async with host.http_client() as http:
        client = protocol.to("http://models.example/v1", http_client=http)
        client._host.jitter = lambda: 0.0
        agent = Agent(llm_client=client, tools=tools(called.append))
        async with StreamEngine().stream(agent, "hi") as run:
            events = [event async for event in run]

    check_events(events)
    assert refusals(run.messages) == []
    of = {kind: [event.data for event in events if event.type is kind] for kind in EventType}
    told = of[EventType.MESSAGE_COMPLETE]

    assert sorted(called) == sorted(case.called)
    assert events[-1].data["status"] == case.status
    assert [error["code"] for error in of[EventType.ERROR]] == ([case.code] if case.code else [])
    assert len(host.asked) == case.requests
    assert len(of[EventType.MESSAGE_RESET]) == case.resets
    assert case.text is None or told[-1]["content"] == case.text


def _refusal(code: str | None, words: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": words, "type": "invalid_request_error"}}


REFUSED: Final = {
    "azure": _refusal("content_filter", "The response was filtered"),
    "openai": _refusal("content_policy_violation", "no"),
    "openai, by its words": _refusal("invalid_prompt", "it was flagged as potentially violating"),
    "dashscope": {"code": "DataInspectionFailed", "message": "no"},
    "anthropic": _refusal(None, "Output blocked by content filtering policy"),
}
"""What hosts say that do not answer what was asked."""


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("status", [200, 400, 403])
async def test_a_request_that_is_refused_for_what_it_says_was_withheld(
    autojump_clock: MockClock, library: ModuleType, name: str, status: int
) -> None:
    body = json.dumps(REFUSED[name]).encode()
    answer = Answer(status=status, steps=(body,) if status != 200 else sse(REFUSED[name]))
    host = FakeHost(library, [answer])
    async with host.http_client() as http:
        client = PROTOCOLS["chat"].to("http://models.example/v1", http_client=http)
        async with StreamEngine().stream(Agent(llm_client=client), "hi") as run:
            events = [event async for event in run]

    check_events(events)
    complete, error = (
        next(event.data for event in events if event.type is kind)
        for kind in (EventType.MESSAGE_COMPLETE, EventType.ERROR)
    )
    assert len(host.asked) == 1
    assert complete["finish_reason"] == "content_filter"
    assert (error["code"], error["retryable"]) == ("withheld", False)
    assert error["detail"]["words"] == REFUSED[name].get("error", REFUSED[name])["message"]
    assert run.messages == [{"role": "user", "content": "hi", "flowtrio": {"withheld": True}}]


@pytest.mark.parametrize(
    "told",
    [
        _refusal("context_length_exceeded", "no"),
        _refusal(None, "This model's maximum context length is 8192 tokens."),
        _refusal(None, "prompt is too long: 210000 tokens > 200000 maximum"),
        {"error": {"type": "exceed_context_size_error", "message": "no"}},
    ],
    ids=repr,
)
def test_a_conversation_that_does_not_fit_is_told_as_such(told: dict[str, Any]) -> None:
    refused = error_of_response(400, {}, json.dumps(told).encode(), "models.example", 0)

    for error in (refused, stream_error(told)):
        assert (error.code, error.retryable) == ("context_window", False)


@pytest.mark.parametrize("name", FULL)
async def test_an_answer_of_a_type_that_a_full_context_cut_says_so(
    autojump_clock: MockClock, library: ModuleType, name: str
) -> None:
    protocol = PROTOCOLS[FULL[name][0]]
    said = {
        "chat": sse(chat(content="{"), chat("model_length"), "[DONE]"),
        "responses": sse(
            {"type": "response.output_text.delta", "output_index": 0, "delta": "{"},
            incomplete("model_context_window_exceeded"),
        ),
        "anthropic": sse(start(), *text_block("{"), *stop("model_context_window_exceeded")),
    }
    host = FakeHost(library, [Answer(steps=said[protocol.name])])
    async with host.http_client() as http:
        client = protocol.to("http://models.example/v1", http_client=http)
        async with StreamEngine().stream(Agent(llm_client=client, output=int), "hi") as run:
            events = [event async for event in run]

    assert events[-2].data["code"] == "context_window"
    assert len(host.asked) == 1


def test_what_is_refused_for_the_account_was_not_withheld() -> None:
    body = json.dumps(REFUSED["anthropic"]).encode()

    for status in (401, 402, 429, 500):
        error = error_of_response(status, {}, body, "models.example", 0)
        assert error.code != "withheld"


@pytest.mark.parametrize("name", WITHHELD)
async def test_what_one_model_withholds_the_next_one_is_asked(
    autojump_clock: MockClock, library: ModuleType, name: str
) -> None:
    protocol, steps = PROTOCOLS[WITHHELD[name][0]], WITHHELD[name][1]
    called: list[str] = []
    head = {"content-type": protocol.content_type}
    one = FakeHost(library, [Answer(steps=steps, headers=head)])
    other = FakeHost(library, [Answer(steps=stream("chat", HELLO))])
    async with one.http_client() as http, other.http_client() as other_http:
        first = protocol.to("http://models.example/v1", http_client=http)
        second = PROTOCOLS["chat"].to("http://others.example/v1", http_client=other_http)
        client = FallbackClient([first, second])
        agent = Agent(llm_client=client, tools=tools(called.append))
        async with StreamEngine().stream(agent, "hi") as run:
            events = [event async for event in run]

    check_events(events)
    assert called == []
    assert run.messages[-1] == {"role": "assistant", "content": HELLO.text}
    assert [len(one.asked), len(other.asked)] == [1, 1]
    assert events[-1].data["usage"]["quality"] == "lower_bound"
    assert client.statistics().failures == (1, 0)


ZEROS: Final = {"prompt_tokens": 0, "completion_tokens": 0}
COUNTS: Final = {"prompt_tokens": 7, "completion_tokens": 3}
USAGE: Final[dict[str, tuple[str, tuple[bytes, ...], tuple[int, int, str]]]] = {
    **{
        f"chat, {usage}": (
            "chat",
            sse(chat(content="Hello there"), chat("stop") | {"usage": usage}, "[DONE]"),
            expected,
        )
        for usage, expected in (
            (COUNTS, (7, 3, "measured")),
            ({"prompt_tokens": "7", "completion_tokens": "3"}, (7, 3, "measured")),
            ({"prompt_tokens": 7.0, "completion_tokens": 3.0}, (7, 3, "measured")),
            ({"input_tokens": 7, "output_tokens": 3}, (7, 3, "measured")),
            (ZEROS, (0, 2, "lower_bound")),
            ({}, (0, 2, "lower_bound")),
            ({"prompt_tokens": 7}, (7, 2, "lower_bound")),
            ({"prompt_tokens": 7, "completion_tokens": -1}, (7, 2, "lower_bound")),
            ({"prompt_tokens": [], "completion_tokens": True}, (0, 2, "lower_bound")),
            ({"prompt_tokens": 1e300, "completion_tokens": "9" * 20}, (0, 2, "lower_bound")),
            ("n/a", (0, 2, "lower_bound")),
        )
    },
    "chat, zeros behind the counts": (
        "chat",
        sse(chat(content="a") | {"usage": ZEROS}, chat("stop") | {"usage": COUNTS})
        + sse({"usage": ZEROS}),
        (7, 3, "measured"),
    ),
    "anthropic": (
        "anthropic",
        sse(
            start(usage={"input_tokens": "7"}),
            *text_block("Hello there"),
            stop("end_turn")[0] | {"usage": {"output_tokens": 3.0}},
        ),
        (7, 3, "measured"),
    ),
    "gemini": (
        "gemini",
        sse(
            gemini({"text": "Hello there"}, finish="STOP")
            | {"usageMetadata": {"promptTokenCount": "7", "candidatesTokenCount": 0}}
        ),
        (7, 2, "lower_bound"),
    ),
    "ollama": (
        "ollama",
        (line({"content": "Hello there"}, done=True, prompt_eval_count=7, eval_count=0),),
        (7, 2, "lower_bound"),
    ),
}


@pytest.mark.parametrize("name", USAGE)
async def test_what_a_host_counts_is_read_and_nothing_that_was_said_cost_nothing(
    autojump_clock: MockClock, library: ModuleType, name: str
) -> None:
    protocol, steps, expected = PROTOCOLS[USAGE[name][0]], *USAGE[name][1:]
    head = {"content-type": protocol.content_type}
    host = FakeHost(library, [Answer(steps=steps, headers=head)])
    async with host.http_client() as http:
        client = protocol.to("http://models.example/v1", http_client=http)
        async with StreamEngine().stream(Agent(llm_client=client), "hi") as run:
            events = [event async for event in run]

    usage = events[-1].data["usage"]
    found = (usage["prompt_tokens"], usage["completion_tokens"], usage["quality"])
    assert found == expected


def tools(ran: Callable[[str], None]) -> list[Any]:
    @tool
    async def delete(path: str = ".") -> str:
        """Delete."""
        ran(f"delete {path}")
        return "done"

    @tool
    async def get_weather(city: str) -> str:
        """Weather."""
        ran(f"get_weather {city}")
        return "sunny"

    @tool
    async def get_time(tz: str) -> str:
        """Time."""
        ran(f"get_time {tz}")
        return "12:00"

    return [delete, get_weather, get_time]


def test_the_table_is_as_large_as_its_kinds() -> None:
    assert len(CASES) >= 80
    assert {case.protocol for case in CASES.values()} == PROTOCOLS.keys()
