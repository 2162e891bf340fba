"""Requests of chat completions: what is asked for, and what stays here."""

from __future__ import annotations

import copy
from typing import Any, Final

import pytest

from flowtrio.wire._openai_chat_requests import encode_message, encode_request

HELLO: Final = [{"role": "user", "content": "Hello"}]
TOOL: Final = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def test_a_request_asks_for_a_stream_and_its_usage() -> None:
    assert encode_request("m", HELLO, None, {}, stream=True) == {
        "model": "m",
        "messages": HELLO,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_a_request_may_ask_for_a_whole_answer() -> None:
    options = {"stream_options": {"include_usage": True}, "temperature": 0}

    assert encode_request("m", HELLO, [TOOL], options, stream=False) == {
        "model": "m",
        "messages": HELLO,
        "tools": [TOOL],
        "temperature": 0,
    }


@pytest.mark.parametrize("tools", [None, [], ()])
def test_no_tools_are_not_mentioned(tools: Any) -> None:
    assert "tools" not in encode_request("m", HELLO, tools, {}, stream=True)


def test_options_become_keys_and_none_takes_one_out() -> None:
    options = {"temperature": 0.5, "stop": [], "stream_options": None, "model": "n", "seed": None}

    assert encode_request("m", HELLO, None, options, stream=True) == {
        "model": "n",
        "messages": HELLO,
        "stream": True,
        "temperature": 0.5,
        "stop": [],
    }


def test_a_schema_becomes_the_response_format() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    body = encode_request("m", HELLO, None, {"output_schema": ("point", schema)}, stream=False)

    assert body == {
        "model": "m",
        "messages": HELLO,
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "point",
                "schema": {**schema, "required": ["x"], "additionalProperties": False},
                "strict": True,
            },
        },
    }


def test_no_schema_is_no_response_format() -> None:
    body = encode_request("m", HELLO, None, {"output_schema": None}, stream=True)

    assert "response_format" not in body
    assert "output_schema" not in body


SAID: Final[dict[str, Any]] = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {
            "id": "a",
            "type": "function",
            "function": {"name": "f", "arguments": "{}"},
            "flowtrio": {"carry": {"x": 1}},
        },
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ],
    "flowtrio": {"partial": True, "carry": {"openai_chat": {"reasoning_content": "Hm"}}},
}


def test_our_private_key_stays_here_and_what_was_carried_goes_back() -> None:
    assert encode_message(SAID) == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ],
        "reasoning_content": "Hm",
    }


@pytest.mark.parametrize(
    "private", [None, "x", {}, {"carry": None}, {"carry": {"anthropic": {"x": 1}}}, {"carry": [1]}]
)
def test_what_was_carried_for_others_stays_here(private: Any) -> None:
    assert encode_message({**HELLO[0], "flowtrio": private}) == HELLO[0]


def test_a_list_of_parts_goes_as_it_is() -> None:
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
    ]
    message = {"role": "user", "content": parts, "tool_calls": None}

    assert encode_message(message) == message


def test_encoding_a_request_changes_nothing_that_was_given() -> None:
    given = ([SAID, *HELLO], [TOOL], {"stream_options": {"a": 1}, "seed": None})
    before = copy.deepcopy(given)

    body = encode_request("m", *given, stream=False)
    body["tools"][0]["type"] = body["messages"][0]["role"] = "x"

    assert given == before


def test_tools_among_the_options_join_the_others() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    own = {"type": "custom", "custom": {"name": "g"}}

    assert encode_request("m", [], [tool], {"tools": [own]}, stream=True)["tools"] == [tool, own]
    assert "tools" not in encode_request("m", [], [tool], {"tools": None}, stream=True)
