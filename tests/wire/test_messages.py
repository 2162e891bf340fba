"""Messages in OpenAI's shape: parts, texts and data addresses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Final

import pytest

from flowtrio._core._media import data_url
from flowtrio.wire import (
    _anthropic_requests,
    _gemini,
    _ollama,
    _openai_chat_requests,
    _openai_input,
)
from flowtrio.wire._messages import parts_of, text_of, to_send


@pytest.mark.parametrize(
    ("content", "parts", "text"),
    [
        (None, [], ""),
        ("", [], ""),
        ("hi", [{"type": "text", "text": "hi"}], "hi"),
        ([{"type": "text", "text": "a"}, "odd", {"type": "image_url"}], None, "a"),
    ],
)
def test_a_content_has_parts_and_a_text(content: Any, parts: Any, text: str) -> None:
    expected = [content[0], content[2]] if parts is None else parts
    assert parts_of(content) == expected
    assert text_of(content) == text


def test_a_data_address_gives_its_type_and_data() -> None:
    assert data_url("data:image/png;base64,AAAA") == ("image/png", "AAAA")
    assert data_url("data:image/png;charset=x;base64,AA") == ("image/png", "AA")
    assert data_url("data:;base64,AA") == ("application/octet-stream", "AA")
    assert data_url("https://example.org/a.png") is None


@pytest.mark.parametrize("url", ["data:image/png,AAAA", "data:image/png;base64", "data:"])
def test_another_kind_of_data_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="base64"):
        data_url(url)


# What goes out

HELLO: Any = {"role": "user", "content": "hello"}
SUNNY: Any = {"role": "assistant", "content": "sunny"}
BAD: Any = {"role": "user", "content": "bad", "flowtrio": {"withheld": True}}
MARK: Any = {"flowtrio": {"withheld": True}}


def call(arguments: Any, id: str = "c1") -> dict[str, Any]:
    function = {"name": "look"} | ({} if arguments is ... else {"arguments": arguments})
    return {"id": id, "type": "function", "function": function}


def asks(arguments: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": [call(arguments)]}


RESULT: Any = {"role": "tool", "tool_call_id": "c1", "content": "1"}

ENCODERS: dict[str, Callable[[list[Any]], dict[str, Any]]] = {
    "chat": lambda m: _openai_chat_requests.encode_request("m", m, None, {}, stream=True),
    "responses": lambda m: _openai_input.encode_request("m", m, None, {}, stream=True),
    "anthropic": lambda m: _anthropic_requests.encode_request("m", m, None, {}, stream=True),
    "gemini": lambda m: _gemini.encode_request(m, None, {}),
    "ollama": lambda m: _ollama.encode_request("m", m, None, {}, stream=True),
}
SAME: dict[str, tuple[list[Any], list[Any]]] = {
    "a turn that was withheld": ([HELLO, SUNNY, BAD, HELLO], [HELLO, SUNNY, HELLO]),
    "and what was said in it": (
        [HELLO, SUNNY, BAD, asks("{}") | MARK, RESULT | MARK, HELLO],
        [HELLO, SUNNY, HELLO],
    ),
    "and what bears no mark": (
        [HELLO, SUNNY, BAD, asks("{}"), RESULT, SUNNY, HELLO],
        [HELLO, SUNNY, HELLO],
    ),
    "the first turn": ([BAD, SUNNY, HELLO], [HELLO]),
    "a part of a turn": ([HELLO, BAD, SUNNY, HELLO], [HELLO, SUNNY, HELLO]),
    "arguments that do not parse": ([HELLO, asks('{"a": 1'), RESULT], [HELLO, asks("{}"), RESULT]),
    "arguments of another type": ([HELLO, asks("[1]"), RESULT], [HELLO, asks("{}"), RESULT]),
    "no arguments": ([HELLO, asks(None), RESULT], [HELLO, asks("{}"), RESULT]),
    "arguments that are missing": ([HELLO, asks(...), RESULT], [HELLO, asks("{}"), RESULT]),
    "arguments as an object": ([HELLO, asks({"a": 1}), RESULT], [HELLO, asks('{"a":1}'), RESULT]),
    "arguments too deep": ([HELLO, asks("[" * 9999), RESULT], [HELLO, asks("{}"), RESULT]),
    "a reply of spaces": ([HELLO, {**SUNNY, "content": " \n"}, HELLO], [HELLO, HELLO]),
    "a reply of nothing": ([HELLO, {**SUNNY, "content": []}, HELLO], [HELLO, HELLO]),
    "instructions of spaces": ([{"role": "system", "content": " "}, HELLO], [HELLO]),
    "a question of nothing": ([{**HELLO, "content": ""}], [{**HELLO, "content": "(no text)"}]),
    "a question of spaces": (
        [{**HELLO, "content": [{"type": "text", "text": " "}]}],
        [{**HELLO, "content": "(no text)"}],
    ),
    "a result of nothing": (
        [HELLO, asks("{}"), {**RESULT, "content": None}],
        [HELLO, asks("{}"), {**RESULT, "content": ""}],
    ),
    "a part of spaces": (
        [{**HELLO, "content": [{"type": "text", "text": t} for t in ("a", "", "\n", "b")]}],
        [{**HELLO, "content": [{"type": "text", "text": t} for t in ("a", "b")]}],
    ),
}


@pytest.mark.parametrize("protocol", ENCODERS)
@pytest.mark.parametrize("name", SAME)
def test_what_some_host_would_refuse_does_not_go_out(protocol: str, name: str) -> None:
    given, fit = SAME[name]
    before = copy.deepcopy(given)
    encode = ENCODERS[protocol]

    assert encode(given) == encode(fit)
    assert given == before


CUSTOM: Final = {"id": "c", "type": "custom", "custom": {"name": "run", "input": "ls"}}


def calling(call: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": [call]}


@pytest.mark.parametrize("protocol", sorted({*ENCODERS} - {"chat"}))
def test_a_call_of_no_function_is_refused_where_it_cannot_be_said(protocol: str) -> None:
    with pytest.raises(ValueError, match=f"'custom' in the conversation.* which .*{protocol} can"):
        ENCODERS[protocol]([HELLO, calling(CUSTOM)])


def test_a_call_of_a_custom_tool_goes_to_openai_as_it_is() -> None:
    [_, sent] = to_send([HELLO, calling(CUSTOM)], "openai_chat")

    assert sent["tool_calls"] == [CUSTOM]


@pytest.mark.parametrize("call", [{"id": "c"}, {"id": "c", "function": None}, {"type": "function"}])
def test_a_call_of_nothing_is_refused_everywhere(call: Any) -> None:
    with pytest.raises(ValueError, match="expected one with a function"):
        to_send([HELLO, calling(call)], "openai_chat")


def test_what_is_fit_goes_out_as_it_is() -> None:
    odd = {"role": "user", "content": [{"type": "image_url"}, {"type": "text"}, "x"]}
    refused = {"role": "assistant", "content": None, "refusal": "No."}
    carried = {"role": "assistant", "flowtrio": {"carry": {"anthropic": {"content": []}}}}
    none_carried = [{"role": "assistant", "flowtrio": private} for private in ({}, "x", None)]
    messages = [HELLO, SUNNY, odd, asks("{}"), RESULT, refused, carried]

    sent = to_send([*messages, *none_carried], "anthropic")
    assert all(one is other for one, other in zip(sent, messages, strict=True))
    assert to_send([HELLO, carried], "gemini") == [HELLO]
