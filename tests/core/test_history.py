"""A given conversation is checked, copied and made fit; what cannot be is refused, and says why."""

from __future__ import annotations

import copy
import types
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtrio._core._fit import NO_TEXT, NOT_RUN
from flowtrio._core._history import read_history, recover_history
from flowtrio.testing import check_messages

USER = {"role": "user", "content": "hi"}
VLLM = "chatcmpl-tool-0123456789abcdef0123456789abcdef"


def call(id: Any = "a", arguments: Any = "{}", name: Any = "look") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def asking(*calls: Any, **keys: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **keys}


def result(id: Any = "a", content: Any = "done") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content}


FIT = [
    [],
    [USER, {"role": "assistant", "content": "hello", "refusal": None}],
    [{"role": "system", "content": "be brief"}, {"role": "developer", "content": "x"}, USER],
    [
        USER,
        asking(call("a", '{"n": 1}'), call("b"), content="wait"),
        result("a"),
        result("b"),
        USER,
    ],
    [
        {
            "role": "user",
            "name": "ann",
            "content": [{"type": "text", "text": "x", "cache_control": {}}],
        }
    ],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x"}}]}],
    [{"role": "user", "content": [{"type": "document", "source": {}}]}],
    [USER, {"role": "assistant", "content": None, "refusal": "no"}],
    [USER, {"role": "assistant", "content": "half", "flowtrio": {"partial": True}}],
    [USER, {"role": "assistant", "content": "x", "flowtrio": {"carry": {"anthropic": {"a": [1]}}}}],
    [
        USER,
        asking({**call(), "flowtrio": {"carry": None}}),
        result(content=[{"type": "text", "text": "x"}]),
    ],
    [USER, asking(call()), result(content="")],
]


@pytest.mark.parametrize("messages", FIT)
def test_what_fits_stays_as_it_is(messages: list[Any]) -> None:
    assert read_history(messages) == messages
    assert recover_history(messages) == (messages, [])


MADE_FIT: list[tuple[list[Any], list[Any]]] = [
    ([{"role": "user", "content": " \n"}], [{"role": "user", "content": NO_TEXT}]),
    ([{"role": "user", "content": []}], [{"role": "user", "content": NO_TEXT}]),
    (
        [
            {
                "role": "user",
                "content": [{"type": "text", "text": ""}, {"type": "text", "text": "x"}],
            }
        ],
        [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
    ),
    ([{"role": "system", "content": ""}, USER], [USER]),
    ([USER, {"role": "assistant", "content": None, "tool_calls": []}], [USER]),
    ([USER, {"role": "assistant", "content": " "}], [USER]),
    (
        [USER, {"role": "assistant", "content": "x", "tool_calls": None}],
        [USER, {"role": "assistant", "content": "x"}],
    ),
    ([USER, asking(call(), content=""), result()], [USER, asking(call()), result()]),
    # Arguments, names
    ([asking(call(arguments="{")), result()], [asking(call()), result()]),
    ([asking(call(arguments="[1]")), result()], [asking(call()), result()]),
    ([asking(call(arguments="[" * 100_000)), result()], [asking(call()), result()]),
    ([asking(call(arguments=None)), result()], [asking(call()), result()]),
    ([asking(call(arguments={"a": 1})), result()], [asking(call(arguments='{"a":1}')), result()]),
    ([asking({**call(), "type": "function"}), result()], [asking(call()), result()]),
    (
        [asking(call(name="functions.look")), result()],
        [asking(call(name="functions_look")), result()],
    ),
    # Results
    ([asking(call())], [asking(call()), result(content=NOT_RUN)]),
    (
        [asking(call("a"), call("b")), result("b"), USER],
        [asking(call("a"), call("b")), result("a", NOT_RUN), result("b"), USER],
    ),
    ([asking(call()), USER, result()], [asking(call()), result(), USER]),
]


@pytest.mark.parametrize(("given", "fit"), MADE_FIT)
def test_what_does_not_fit_is_made_fit(given: list[Any], fit: list[Any]) -> None:
    assert read_history(given) == fit
    assert recover_history(given) == (fit, [])
    check_messages(fit)


def test_ids_that_are_too_long_are_shortened_always_in_the_same_way() -> None:
    given = [asking(call(VLLM)), result(VLLM)]
    read = read_history(given)
    [asked] = read[0]["tool_calls"]

    assert read[1] == result(asked["id"])
    assert read == read_history(given) == read_history(read)
    check_messages(read)


def test_ids_that_come_twice_become_two() -> None:
    given = [
        asking(call("x"), call("x")),
        result("x", "first"),
        result("x", "second"),
        asking(call("x")),
        result("x", "third"),
    ]
    read = read_history(given)

    assert [message["content"] for message in read[1:3]] == ["first", "second"]
    assert read[4]["content"] == "third"
    check_messages(read)


def test_an_id_that_comes_again_means_the_newest_call() -> None:
    read = read_history([asking(call("x")), asking(call("x")), result("x", "second")])

    assert [m["content"] for m in read if m["role"] == "tool"] == [NOT_RUN, "second"]


REFUSED: list[tuple[Any, type[Exception], str]] = [
    ("hi", TypeError, "history: expected a list of messages, got str"),
    (None, TypeError, "history: expected a list of messages, got NoneType"),
    ({"role": "user"}, TypeError, "history: expected a list of messages, got dict"),
    (["hi"], TypeError, "history[0]: expected a message such as {'role': 'user', "),
    ([USER, 7], TypeError, "history[1]: expected a message such as"),
    ([{"role": "robot", "content": "x"}], ValueError, "history[0]: role 'robot', expected system,"),
    ([{"content": "x"}], ValueError, "history[0]: role None, expected system,"),
    (
        [{"role": "user"}],
        TypeError,
        "history[0].content: expected text or a list of parts, got None",
    ),
    ([{"role": "system", "content": 7}], TypeError, "history[0].content: expected text"),
    ([{"role": "assistant", "content": {"a": 1}}], TypeError, "history[0].content: expected text"),
    ([{"role": "user", "content": ["x"]}], TypeError, "history[0].content[0]: expected a part"),
    ([{"role": "user", "content": [{"type": "text"}]}], TypeError, "content[0]: expected a part"),
    ([{"role": "user", "content": [{"text": "x"}]}], TypeError, "content[0]: expected a part"),
    (
        [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}],
        TypeError,
        "content[0]: expected a part",
    ),
    ([{"role": "user", "content": "x", "at": object()}], TypeError, "history[0]"),
    ([{"role": "user", "content": "\ud800"}], ValueError, "history[0].content: text with lone"),
    ([{"role": "user", "content": "x", "n": float("nan")}], ValueError, "history[0].n: expected a"),
    ([asking("x")], TypeError, "history[0].tool_calls[0]: expected a call such as"),
    ([asking({"id": "a"})], TypeError, "history[0].tool_calls[0]: expected a call such as"),
    ([asking(tool_calls={"a": 1})], TypeError, "history[0].tool_calls: expected a list of calls"),
    ([asking(call(id=None))], ValueError, "tool_calls[0].id: expected text that is not empty"),
    (
        [asking(call(id=""))],
        ValueError,
        "tool_calls[0].id: expected text that is not empty, got ''",
    ),
    ([asking(call(name=""))], ValueError, "tool_calls[0].function.name: expected text"),
    ([asking({**call(), "type": "custom"})], ValueError, "tool_calls[0].type: expected 'function'"),
    ([asking(call(arguments=7))], TypeError, "function.arguments: expected text of a JSON object"),
    ([result()], ValueError, "history[0]: a result of 'a', expected a call of that id before it"),
    ([asking(call()), result(), result()], ValueError, "history[2]: a result of 'a', expected"),
    ([asking(call()), result(id=None)], TypeError, "history[1].tool_call_id: expected a call's id"),
    ([asking(call()), result(content=None)], TypeError, "history[1].content: expected text"),
    ([{**USER, "flowtrio": "x"}], TypeError, "history[0].flowtrio: expected a dict or None"),
    ([{**USER, "flowtrio": {"carry": 1}}], TypeError, "history[0].flowtrio.carry: expected a dict"),
    ([asking({**call(), "flowtrio": 1})], TypeError, "tool_calls[0].flowtrio: expected a dict"),
]


@pytest.mark.parametrize(("given", "kind", "words"), REFUSED)
def test_what_cannot_be_made_fit_is_refused(given: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as caught:
        read_history(given)

    assert words in str(caught.value)


@pytest.mark.parametrize("given", [given for given, _, _ in REFUSED])
def test_a_store_cannot_make_a_conversation_impossible(given: Any) -> None:
    mended, left_out = recover_history([*given, USER] if isinstance(given, list) else given)

    assert left_out
    assert mended == [] or mended[-1] == USER
    check_messages(mended)


def test_nothing_is_shared_with_what_was_given() -> None:
    given = [
        {"role": "user", "content": [{"type": "text", "text": "x"}]},
        types.MappingProxyType(asking(call(), flowtrio={"carry": {"x": {"a": [1]}}})),
        result(),
    ]
    before = [copy.deepcopy(dict(message)) for message in given]
    read = read_history(iter(given))
    read[0]["content"][0]["text"] = "y"
    read[1]["flowtrio"]["carry"]["x"]["a"].append(2)
    read[1]["tool_calls"][0]["function"]["name"] = "changed"
    read[2]["content"] = "changed"

    assert [dict(message) for message in given] == before


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "id", "function", "name"]), inner, max_size=3
        )
    ),
    max_leaves=5,
)
IDS = st.sampled_from(["a", "a.b", "a:b", "", "x" * 46, "é"])
CALLS = st.builds(call, IDS, st.sampled_from(["{}", "{", '{"a": 1}', None]), st.text(max_size=3))
MESSAGES = (
    st.builds(asking, CALLS, CALLS)
    | st.builds(result, IDS)
    | st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "tool", "x"])})
    | st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system", "assistant", "tool"]), "content": JSON}
    )
    | JSON
)


@given(st.lists(MESSAGES, max_size=8))
def test_whatever_is_stored_becomes_a_conversation_that_every_provider_takes(
    messages: list[Any],
) -> None:
    mended, _ = recover_history(messages)

    check_messages(mended)
    assert read_history(mended) == mended
