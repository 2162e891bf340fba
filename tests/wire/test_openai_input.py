"""Conversations as input of Responses; `test_openai_types` holds them against the SDK's types."""

from __future__ import annotations

from typing import Any

import pytest

from flowtrio import ProviderError
from flowtrio.wire._openai_input import encode_request
from flowtrio.wire._openai_items import carry_of
from tests.support.responses import call, message, reasoning, response

USER = {"role": "user", "content": "hello"}


def body(
    messages: list[dict[str, Any]], *tools: dict[str, Any], model: str = "gpt-5", **options: Any
) -> dict[str, Any]:
    return encode_request(model, messages, tools, options, stream=True)


def sent(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = body(list(messages))["input"]
    return items


def replied(*items: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """A reply in the conversation that came as these items."""
    carry = carry_of(response(*items)["output"], False)
    return {"role": "assistant", "content": "text", "flowtrio": {"carry": carry}, **keys}


def called(id: str, arguments: str = "{}") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": "f", "arguments": arguments}}


@pytest.mark.parametrize(
    ("model", "is_asked"),
    [
        ("gpt-5", True),
        ("gpt-5-chat-latest", False),
        ("o3", True),
        ("gpt-4o-mini", False),
        ("openai/gpt-4.1", False),
        ("ft:gpt-4o-mini-2024-07-18:me", False),
        ("ft:gpt-3.5-turbo:me", False),
        ("deepseek-v4", True),
    ],
)
def test_encrypted_reasoning_is_asked_of_models_that_can_give_it(
    model: str, is_asked: bool
) -> None:
    assert ("include" in body([USER], model=model)) == is_asked


def test_nothing_is_stored_unless_asked_for() -> None:
    assert body([USER])["store"] is False
    assert body([USER], store=True)["store"] is True


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_tokens": 5}, {"max_output_tokens": 5}),
        ({"max_completion_tokens": 5}, {"max_output_tokens": 5}),
        ({"reasoning_effort": "low"}, {"reasoning": {"effort": "low"}}),
        (
            {"reasoning": {"summary": "auto"}, "reasoning_effort": "low"},
            {"reasoning": {"summary": "auto", "effort": "low"}},
        ),
        (
            {"reasoning": {"summary": "auto"}, "reasoning_effort": None},
            {"reasoning": {"summary": "auto"}},
        ),
        ({"reasoning": None}, {}),
        (
            {"text": {"verbosity": "low"}, "output_schema": ("T", {})},
            {
                "text": {
                    "verbosity": "low",
                    "format": {"type": "json_schema", "name": "T", "schema": {}, "strict": False},
                }
            },
        ),
        (
            {"include": ["reasoning.encrypted_content", "x"]},
            {"include": ["reasoning.encrypted_content", "x"]},
        ),
        ({"text": None, "output_schema": None, "tools": None}, {}),
    ],
)
def test_options_come_under_their_names_here(
    options: dict[str, Any], expected: dict[str, Any]
) -> None:
    plain = body([USER])

    assert body([USER], **options) == {**plain, **expected}


def test_a_whole_answer_is_asked_for_by_saying_nothing() -> None:
    assert "stream" not in encode_request("gpt-5", [USER], None, {}, stream=False)


def test_an_option_of_none_takes_a_key_out() -> None:
    assert "include" not in body([USER], include=None)
    assert "store" not in body([USER], store=None)


def test_tools_are_flat_and_not_strict_by_themselves() -> None:
    function = {"name": "f", "description": "F.", "parameters": {"type": "object"}}
    told = body(
        [USER],
        {"type": "function", "function": function},
        {"type": "function", "function": {"name": "g", "strict": True}},
        {"type": "function", "name": "h"},
        tools=[{"type": "web_search"}],
    )["tools"]

    assert told == [
        {"type": "function", **function, "strict": False},
        {
            "type": "function",
            "name": "g",
            "description": "",
            "parameters": {"type": "object", "properties": {}},
            "strict": True,
        },
        {"type": "function", "name": "h"},
        {"type": "web_search"},
    ]


def test_messages_become_items() -> None:
    calls = [called("call_1", '{"a": 1}'), called("call_2", "")]
    assert sent(
        {"role": "system", "content": "Be brief."},
        USER,
        {"role": "assistant", "content": "I look.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "ok"}]},
        {"role": "assistant", "content": None},
    ) == [
        {"role": "system", "content": "Be brief."},
        USER,
        {"role": "assistant", "content": "I look."},
        {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": '{"a": 1}'},
        {"type": "function_call", "call_id": "call_2", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
        {
            "type": "function_call_output",
            "call_id": "call_2",
            "output": [{"type": "input_text", "text": "ok"}],
        },
    ]


def test_parts_of_a_message_become_input() -> None:
    file = {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="}
    own = {"type": "input_file", "file_id": "file_1"}
    parts = [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": "https://a.example/b.png", "detail": "low"}},
        {"type": "file", "file": file},
        own,
    ]
    [item] = sent({"role": "user", "content": parts})

    assert item["content"] == [
        {"type": "input_text", "text": "a"},
        {"type": "input_image", "image_url": "https://a.example/b.png", "detail": "low"},
        {"type": "input_file", **file},
        own,
    ]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"role": "user", "content": [{"type": "video"}]}, "no content part of type 'video'"),
        ({"role": "critic", "content": "x"}, "message of role 'critic'"),
    ],
)
def test_what_cannot_be_sent_is_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, ProviderError), match=words):
        sent(wrong)


# What goes back


def test_a_reply_goes_back_as_it_came_with_the_ids_of_the_conversation() -> None:
    items = [reasoning("Hm."), message("text"), call("f", {"a": 1}, "again")]
    told = sent(replied(*items, tool_calls=[called("call_run_c1", '{"a": 1}')]))

    thoughts, text, back = response(*items)["output"]
    assert told == [thoughts, text, {**back, "call_id": "call_run_c1"}]


def test_arguments_that_do_not_parse_go_back_as_the_conversation_has_them() -> None:
    broken = {**call("f", {}), "arguments": '{"a": '}
    told = sent(replied(reasoning("Hm."), broken, tool_calls=[called("call_1")]))

    assert told[1]["arguments"] == "{}"


def test_a_reply_whose_calls_were_changed_goes_back_as_text() -> None:
    changed = replied(reasoning("Hm."), call("f", {}))

    assert sent(changed) == [{"role": "assistant", "content": "text"}]


@pytest.mark.parametrize("private", [None, {"partial": True}, {"carry": {"gemini": {"parts": []}}}])
def test_a_reply_of_another_provider_goes_back_as_text(private: Any) -> None:
    foreign = {"role": "assistant", "content": "text", "flowtrio": private}

    assert sent(foreign) == [{"role": "assistant", "content": "text"}]


def test_what_was_carried_of_a_call_goes_back_by_the_conversations_name() -> None:
    thought = reasoning("Hm.", "sealed")
    reply = replied(thought, call("functions.f", {}, "call_0"), tool_calls=[called("c1")])

    _, item = sent(reply)

    assert (item["call_id"], item["name"]) == ("c1", "f")
