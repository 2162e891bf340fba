"""Ollama's replies and requests, the requests held to the SDK's own types."""

from __future__ import annotations

import contextlib
import itertools
import json
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ollama._types import ChatRequest, Image, Message

from flowtrio._core._chunks import Chunk, ToolCall, Usage
from flowtrio._core._exceptions import ProviderError, RemoteProtocolError
from flowtrio.wire._ollama import decode_completion, encode_request, ollama_decoder

PROPERTY: Final = settings(max_examples=150, deadline=None, database=None, derandomize=True)


def line(done: bool = False, **message: Any) -> bytes:
    value: dict[str, Any] = {"model": "llama-1", "done": done}
    if message:
        value["message"] = {"role": "assistant", **message}
    if done:
        value |= {"done_reason": "stop", "prompt_eval_count": 7, "eval_count": 3}
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def hear(*pieces: bytes) -> list[Chunk]:
    decoder = ollama_decoder()
    chunks = [chunk for piece in pieces for chunk in decoder.receive_data(piece)]
    return chunks + decoder.end_of_data()


END: Final = line(done=True, content="")


def done(**keys: Any) -> bytes:
    return json.dumps({"done": True, **keys}).encode()


# Replies


def test_text_and_thinking_come_as_they_are_written() -> None:
    chunks = hear(line(thinking="hm"), line(content="Zü"), line(), line(content="rich"), END)

    assert [(chunk.content, chunk.reasoning) for chunk in chunks] == [
        ("", "hm"),
        ("Zü", ""),
        ("rich", ""),
        ("", ""),
    ]
    final = chunks[-1]
    assert (final.finish_reason, final.raw_finish_reason) == ("stop", "stop")
    assert final.model == "llama-1"
    assert final.usage == Usage(prompt_tokens=7, completion_tokens=3)
    assert final.carry is None


def test_calls_come_whole_and_what_was_thought_before_them_goes_back() -> None:
    calls = [
        {"id": "a", "function": {"name": "look", "arguments": {"at": "Ü"}}},
        {"function": {"name": "look", "arguments": '{"at":"R"}'}},
        {"function": {"name": "now", "arguments": 5}},
        {},
    ]
    chunks = hear(line(thinking="h"), line(thinking="m"), line(content="", tool_calls=calls), END)

    assert chunks[-1].tool_calls == [
        ToolCall("a", "look", {"at": "Ü"}, '{"at": "Ü"}'),
        ToolCall("", "look", {"at": "R"}, '{"at":"R"}'),
        ToolCall("", "now", None, "5"),
        ToolCall("", "", {}, ""),
    ]
    assert chunks[-1].finish_reason == "tool_calls"
    assert chunks[-1].carry == {"ollama": {"thinking": "hm"}}


@pytest.mark.parametrize(
    ("raw", "ours"), [("stop", "stop"), ("length", "length"), ("load", "stop"), (None, "stop")]
)
def test_why_it_stopped_is_told_in_both_words(raw: str | None, ours: str) -> None:
    final = hear(done(done_reason=raw))[-1]

    assert (final.raw_finish_reason, final.finish_reason) == (raw, ours)


def test_usage_may_be_told_in_part_or_not_at_all() -> None:
    assert hear(done())[-1].usage is None
    assert hear(done(eval_count=3))[-1].usage == Usage(completion_tokens=3)
    assert hear(done(prompt_eval_count=-2))[-1].usage == Usage()
    odd = hear(done(prompt_eval_count="7", eval_count=3.0))[-1]
    assert odd.usage == Usage(prompt_tokens=7, completion_tokens=3)
    assert hear(done(prompt_eval_count=10**30, eval_count=[]))[-1].usage == Usage()


def test_text_in_the_line_that_is_done_is_heard_and_nothing_after_it() -> None:
    last = line(done=True, content="b")

    assert [chunk.content for chunk in hear(line(content="a"), last, line(content="c"))] == [
        "a",
        "b",
        "",
    ]


def test_the_last_lines_end_may_be_missing() -> None:
    assert hear(line(content="a"), END.rstrip())[-1].is_final


def test_a_reply_without_the_line_that_is_done_is_an_error() -> None:
    stream = line(content="a") + END
    for cut in range(len(stream) - 2):
        with pytest.raises((RemoteProtocolError, ProviderError)) as caught:
            hear(stream[:cut])
        is_empty = caught.value.code == "empty_reply"

        assert is_empty or caught.value.code == "stream_cut"
        assert not is_empty or cut < len(line(content="a"))


def test_an_error_in_mid_stream_is_told_after_what_came_before_it() -> None:
    decoder = ollama_decoder()
    chunks = decoder.receive_data(line(content="a") + b'{"error":"out of memory"}\n')
    with pytest.raises(ProviderError) as caught:
        decoder.receive_data(b"")

    assert [chunk.content for chunk in chunks] == ["a"]
    assert caught.value.detail is not None
    assert caught.value.detail["words"] == "out of memory"


@pytest.mark.parametrize("data", [b"{", b"[1]", b"5"])
def test_what_is_malformed_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="not the expected JSON"):
        hear(line(content="a"), data + b"\n")


def test_a_whole_answer_is_heard_as_a_streamed_one() -> None:
    assert [c.content for c in decode_completion(line(done=True, content="ab"))] == ["ab", ""]
    with pytest.raises(RemoteProtocolError, match="is not done"):
        decode_completion(line(content="ab"))


WHOLE: Final = line(thinking="hm") + line(content="Zürich 😀") + END


@PROPERTY
@given(st.lists(st.integers(0, len(WHOLE)), max_size=20))
def test_pieces_make_no_difference(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(WHOLE)]

    assert hear(*(WHOLE[a:b] for a, b in itertools.pairwise(places))) == hear(WHOLE)


KEYS: Final = st.sampled_from(
    [
        *("model", "message", "content", "thinking", "tool_calls", "function", "name"),
        *("arguments", "done", "done_reason", "eval_count", "error", "id"),
    ]
)
ANYTHING: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.text("aß\0"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(PROPERTY, max_examples=400)
@given(st.lists(ANYTHING, max_size=5), st.binary(max_size=8))
def test_only_our_errors_come_out_of_lines_of_any_shape(values: list[Any], junk: bytes) -> None:
    stream = b"".join(json.dumps(value).encode() + b"\n" for value in values) + junk
    with contextlib.suppress(RemoteProtocolError, ProviderError):
        assert hear(stream, b"\n", END)[-1].is_final


# Requests

HELLO: Final = [{"role": "user", "content": "hello"}]
TOOL: Final = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look.",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
    },
}


def encode(
    messages: Any = HELLO, tools: Any = None, stream: bool = True, **options: Any
) -> dict[str, Any]:
    """A request's body that the SDK's types agree to."""
    body = encode_request("llama-1", messages, tools, options, stream=stream)
    check(body)
    return body


def check(body: dict[str, Any]) -> None:
    """The types pass over keys that they do not know: what they know has to be all."""
    request = ChatRequest.model_validate(body)
    known = []
    for message in body["messages"]:
        # The SDK wraps images before it sends them as they are.
        wrapped = [Image(value=data) for data in message.get("images", ())]
        typed = Message.model_validate(message | ({"images": wrapped} if wrapped else {}))
        known.append(typed.model_dump(exclude_none=True))

    assert {**request.model_dump(exclude_none=True), "messages": known} == body


def test_a_single_turn() -> None:
    assert encode() == {"model": "llama-1", "messages": HELLO, "stream": True}
    assert encode(stream=False)["stream"] is False
    with pytest.raises(AssertionError):
        check({"model": "m", "messages": [{"role": "user", "txt": "a"}], "stream": True})


def test_a_round_of_parallel_tools_with_what_was_thought() -> None:
    calls = [
        {"id": "c1", "function": {"name": "look", "arguments": '{"at":"P"}'}},
        {"id": "c2", "function": {"name": "now", "arguments": ""}},
    ]
    carry = {"carry": {"ollama": {"thinking": "hm"}}}
    body = encode(
        [
            {"role": "developer", "content": "Be brief."},
            *HELLO,
            {"role": "assistant", "content": None, "tool_calls": calls, "flowtrio": carry},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
            {"role": "tool", "tool_call_id": "c3", "content": "noon"},
        ],
        [TOOL],
    )

    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        *HELLO,
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"function": {"name": "look", "arguments": {"at": "P"}}},
                {"function": {"name": "now", "arguments": {}}},
            ],
            "thinking": "hm",
        },
        {"role": "tool", "content": "sunny", "tool_name": "look"},
        {"role": "tool", "content": "noon", "tool_name": "c3"},
    ]
    assert body["tools"] == [TOOL]


@pytest.mark.parametrize("carry", [None, {"gemini": {}}, {"ollama": 5}])
def test_what_others_carried_is_not_sent(carry: Any) -> None:
    said = {"role": "assistant", "content": "x", "flowtrio": {"carry": carry}}

    assert encode([*HELLO, said])["messages"][1] == {"role": "assistant", "content": "x"}


def test_images_are_data() -> None:
    parts = [
        {"type": "text", "text": "what is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
    ]

    assert encode([{"role": "user", "content": parts}])["messages"] == [
        {"role": "user", "content": "what is it?", "images": ["iVBORw0KGgo="]}
    ]


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"type": "input_audio"}, "no content part of type 'input_audio'"),
        (
            {"type": "image_url", "image_url": {"url": "https://a.example"}},
            "but the content of images",
        ),
    ],
)
def test_other_parts_are_refused(part: dict[str, Any], words: str) -> None:
    with pytest.raises(ProviderError, match=words):
        encode([{"role": "user", "content": [part]}])


def test_options_go_where_they_belong() -> None:
    body = encode(
        temperature=0, max_tokens=5, stop="END", seed=None, think=True, options={"num_ctx": 9}
    )

    assert body["options"] == {
        "temperature": 0,
        "num_predict": 5,
        "stop": ["END"],
        "num_ctx": 9,
    }
    assert body["think"] is True
    assert encode(stop=["a", "b"])["options"] == {"stop": ["a", "b"]}


def test_a_clients_own_tools_stand_behind_the_agents() -> None:
    def named(name: str) -> dict[str, Any]:
        return {"type": "function", "function": {"name": name}}

    for mine in ([], [named("a")]):
        body = encode_request(
            "m", [], mine, {"tools": [named("b")], "output_schema": ("x", {})}, stream=True
        )

        assert body["tools"] == [*mine, named("b")]
        # Held to a schema, the model could not call them.
        assert "format" not in body


def test_an_output_of_a_type_is_asked_for_by_its_schema() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}

    assert encode(output_schema=("Thing", schema))["format"] == schema
    assert "format" not in encode(output_schema=None)
