"""`check_messages` refuses what a provider refuses, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from flowtrio.testing import check_messages

USER = {"role": "user", "content": "hi"}


def call(id: Any = "a", **function: Any) -> dict[str, Any]:
    function = {"name": "look", "arguments": "{}", **function}
    return {"id": id, "type": "function", "function": function}


def calling(*calls: Any, **keys: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **keys}


def result(id: Any = "a", content: Any = "done") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content}


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [USER],
        [{"role": "system", "content": "be brief"}, {"role": "developer", "content": "x"}, USER],
        [USER, {"role": "assistant", "content": "hello"}, USER],
        [USER, calling(call()), result()],
        [USER, calling(call("a"), call("b")), result("b"), result("a"), USER],
        [USER, calling(call(), content=""), result(content="")],
        [USER, {"role": "assistant", "content": None, "refusal": "no"}],
        [{"role": "user", "content": [{"type": "image_url"}, {"type": "text"}]}],
        [USER, calling(call(arguments='{"a": [1]}')), result(content=[{"type": "text"}])],
    ],
)
def test_what_a_provider_takes_is_taken(messages: list[Any]) -> None:
    check_messages(messages)


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([{"role": "robot", "content": "x"}], "messages[0]: role 'robot'"),
        ([{"content": "x"}], "messages[0]: role None"),
        ([{"role": "user"}], "messages[0]: expected content, got None"),
        ([{"role": "user", "content": ""}], "expected content, got ''"),
        ([{"role": "user", "content": []}], "expected content, got []"),
        ([{"role": "user", "content": [{"text": "x"}]}], "has no type"),
        ([{"role": "user", "content": ["x"]}], "has no type"),
        ([{"role": "user", "content": "\ud800"}], "lone surrogates"),
        ([USER, {"role": "assistant", "content": None}], "messages[1]: expected content"),
        ([USER, calling()], "tool_calls: expected a list that is not empty"),
        ([{"role": "user", "content": " \n"}], "expected content, got ' "),
        ([USER, calling(call(id=""))], "call id '', expected 1 to 40 characters"),
        ([USER, calling(call(id=7))], "call id 7, expected 1 to 40 characters"),
        ([USER, calling(call(id="x" * 41))], "expected 1 to 40 characters"),
        ([USER, calling(call("a.b"), call("a:b"))], "call id 'a:b' is no id of its own"),
        ([USER, calling(call("a"), call("a"))], "call id 'a' is no id of its own"),
        ([USER, calling(call()), result(), calling(call()), result()], "messages[3]: call id 'a'"),
        ([USER, calling({**call(), "type": "custom"})], "type 'function'"),
        ([USER, calling({"id": "a", "type": "function"})], "type 'function'"),
        ([USER, calling(call(name=""))], "the name of a function"),
        ([USER, calling(call(name="functions.look"))], "the name of a function"),
        ([USER, calling(call(name="x" * 65))], "the name of a function"),
        ([USER, calling(call(arguments="[1]"))], "text of a JSON object"),
        ([USER, calling(call(arguments="{"))], "text of a JSON object"),
        ([USER, calling(call(arguments={"a": 1}))], "text of a JSON object"),
        ([USER, calling(call())], "the last calls a have no result"),
        ([USER, calling(call()), USER], "messages[2]: calls a have no result before it"),
        ([USER, calling(call("a"), call("b")), result("a")], "the last calls b"),
        ([USER, result()], "messages[1]: a result for 'a', expected one of []"),
        ([USER, calling(call()), result(), result()], "messages[3]: a result for 'a'"),
        ([USER, calling(call()), result(content=None)], "expected content, got None"),
    ],
)
def test_what_a_provider_refuses_is_refused(messages: list[Any], words: str) -> None:
    with pytest.raises(AssertionError) as caught:
        check_messages(messages)
    assert words in str(caught.value)
