"""Answers of Responses: what each event says, however the bytes come and whatever is left out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtrio._core._chunks import Chunk, CompletionBuilder, Usage
from flowtrio._core._exceptions import ProviderError, RemoteProtocolError
from flowtrio.wire._openai_responses import decode_completion, responses_decoder
from flowtrio.wire._usage import read_usage
from tests.support.responses import USAGE, call, events, message, reasoning, response, sse


def hear(data: bytes) -> list[Chunk]:
    decoder = responses_decoder()
    return [*decoder.receive_data(data), *decoder.end_of_data()]


def fold(chunks: list[Chunk]) -> Any:
    builder = CompletionBuilder()
    done = [completion for chunk in chunks if (completion := builder.add(chunk)) is not None]
    [completion] = done
    return completion


def answer(*told: Any) -> Any:
    return fold(hear(sse(*told)))


def item_event(kind: str, item: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": f"response.output_item.{kind}", "output_index": 0, "item": item, **more}


END = {"type": "response.completed", "response": response()}

SEARCH = {
    "type": "web_search_call",
    "id": "ws_1",
    "status": "completed",
    "action": {"type": "search", "query": "q"},
}


def test_a_streamed_answer_says_what_a_whole_one_says() -> None:
    items = (
        reasoning("**First**\nhm"),
        message("I look."),
        call("look", {"at": "Paris"}, "call_1"),
        call("look", {}, "call_2"),
        SEARCH,
    )
    streamed = answer(*events(*items))

    assert streamed == fold(decode_completion(json.dumps(response(*items)).encode()))
    assert streamed.reasoning == "**First**\nhm"
    assert streamed.content == "I look."
    assert [(c.id, c.name, c.arguments) for c in streamed.tool_calls] == [
        ("call_1", "look", {"at": "Paris"}),
        ("call_2", "look", {}),
    ]
    assert (streamed.finish_reason, streamed.raw_finish_reason) == ("tool_calls", "completed")
    assert streamed.usage == Usage(
        prompt_tokens=7, completion_tokens=5, reasoning_tokens=2, cached_tokens=4
    )
    assert streamed.model == "loopback-1"
    assert streamed.carry == {"openai_responses": {"items": response(*items)["output"]}}


def test_calls_in_parallel_may_come_interleaved() -> None:
    def args(place: int, delta: str) -> dict[str, Any]:
        kind = "response.function_call_arguments.delta"
        return {"type": kind, "output_index": place, "delta": delta}

    heads = [call("f", {}, "a"), call("g", {}, "b")]
    told = answer(
        *(item_event("added", item, output_index=place) for place, item in enumerate(heads)),
        *(args(0, '{"x"'), args(1, '{"y"'), args(0, ":1}"), args(1, ":2}")),
        END,
    )

    assert [(c.id, c.arguments) for c in told.tool_calls] == [("a", {"x": 1}), ("b", {"y": 2})]


def test_arguments_that_do_not_parse_are_none() -> None:
    told = answer(item_event("done", {**call("f", {}), "arguments": '{"x'}), END)

    assert (told.tool_calls[0].arguments, told.tool_calls[0].raw) == (None, '{"x')


def test_arguments_may_come_decoded() -> None:
    told = answer(item_event("done", {**call("f", {}), "arguments": {"x": 1}}), END)

    assert told.tool_calls[0].arguments == {"x": 1}


@pytest.mark.parametrize(
    ("event", "content", "reason"),
    [
        ({"type": "response.output_text.done", "text": "a"}, "a", ""),
        ({"type": "response.refusal.done", "refusal": "a"}, "", ""),
        (item_event("done", message("a")), "a", ""),
        (item_event("done", reasoning("a")), "", "a"),
        (
            item_event("done", {"type": "reasoning", "content": [{"text": "a"}, {"text": 1}, 2]}),
            "",
            "a",
        ),
        (item_event("done", {"type": "reasoning", "summary": [{"text": 1}], "content": 2}), "", ""),
    ],
)
@pytest.mark.parametrize("times", [1, 2])
def test_what_came_in_no_fragment_is_heard_when_it_is_whole(
    event: dict[str, Any], content: str, reason: str, times: int
) -> None:
    told = answer(*[{"output_index": 0, **event}] * times, END)

    assert (told.content, told.reasoning) == (content, reason)


def test_the_parts_of_a_summary_are_paragraphs() -> None:
    def said(place: int, delta: str) -> dict[str, Any]:
        kind = "response.reasoning_summary_text.delta"
        return {"type": kind, "output_index": 0, "summary_index": place, "delta": delta}

    assert (
        answer(said(0, "a"), said(0, "b"), said(1, "c"), said(1, "d"), END).reasoning == "ab\n\ncd"
    )
    parts = [{"type": "summary_text", "text": text} for text in ("ab", "cd")]
    told = answer(item_event("done", {"type": "reasoning", "summary": parts}), END)
    assert told.reasoning == "ab\n\ncd"


def test_an_open_chain_of_thought_is_reasoning() -> None:
    delta = {"type": "response.reasoning_text.delta", "output_index": 0, "delta": "hm"}

    assert answer(delta, item_event("done", {"type": "reasoning"}), END).reasoning == "hm"


def test_a_refusal_is_a_part() -> None:
    deltas = [{"type": "response.refusal.delta", "delta": text} for text in ("I ", "won't")]
    whole = {"type": "message", "content": [{"type": "refusal", "refusal": "I won't"}]}
    told = answer(*deltas, item_event("done", whole, output_index=None), END)

    refusal = [{"type": "refusal", "text": "I "}, {"type": "refusal", "text": "won't"}]
    assert told.parts == refusal
    assert answer(item_event("done", whole), END).parts == [{"type": "refusal", "text": "I won't"}]


def test_annotations_are_told_once() -> None:
    found = [{"type": "url_citation", "url": url} for url in ("a", "b")]
    added = {
        "type": "response.output_text.annotation.added",
        "output_index": 0,
        "annotation": found[0],
    }
    whole = message("x", content=[{"type": "output_text", "text": "x", "annotations": found}])

    assert answer(added, item_event("done", whole), END).parts == [
        {"type": "citation", "url": "a"},
        {"type": "citation", "url": "b"},
    ]


@pytest.mark.parametrize(
    ("begun", "told", "done"),
    [
        (
            {"type": "mcp_call", "id": "x", "name": "n", "arguments": ""},
            {"type": "response.mcp_call_arguments.done", "arguments": '{"a": 1}'},
            {"output": "o"},
        ),
        (
            {"type": "code_interpreter_call", "id": "x", "code": ""},
            {"type": "response.code_interpreter_call_code.done", "code": "1"},
            {"outputs": []},
        ),
        (
            {"type": "image_generation_call", "id": "x"},
            {"type": "response.image_generation_call.generating"},
            {"result": "AAAA"},
        ),
    ],
)
def test_a_tool_of_the_providers_begins_when_its_arguments_are_known(
    begun: dict[str, Any], told: dict[str, Any], done: dict[str, Any]
) -> None:
    decoder = responses_decoder()
    before = [
        *decoder.receive_data(sse(item_event("added", begun))),
        *decoder.receive_data(sse({**told, "output_index": 0})),
    ]
    after = decoder.receive_data(
        sse(item_event("done", {**begun, **told, **done, "type": begun["type"]}))
    )

    assert [part["type"] for chunk in before for part in chunk.parts] == ["server_tool_call"]
    parts = [part for chunk in after for part in chunk.parts]
    assert "server_tool_call" not in [part["type"] for part in parts]
    assert (parts[-1]["type"], parts[-1]["id"]) == ("server_tool_result", "x")


def test_what_waits_for_us_is_shown_and_is_no_call() -> None:
    custom = {"type": "custom_tool_call", "call_id": "c", "name": "sql", "input": "SELECT"}
    delta = {"type": "response.custom_tool_call_input.delta", "output_index": 0, "delta": "SEL"}
    told = answer(item_event("added", custom), delta, item_event("done", custom), END)

    assert (told.parts, told.tool_calls, told.carry) == ([custom], [], None)


# How it ends


@pytest.mark.parametrize(
    ("details", "reason"),
    [
        ({"reason": "max_output_tokens"}, "length"),
        ({"reason": "content_filter"}, "content_filter"),
        ({"reason": 5}, "length"),
        (None, "length"),
    ],
)
def test_an_incomplete_answer_says_why(details: Any, reason: str) -> None:
    told = answer(*events(message("a"), status="incomplete", incomplete_details=details))

    assert (told.finish_reason, told.raw_finish_reason) == (reason, "incomplete")


def test_an_incomplete_answer_says_why_in_a_gateways_words() -> None:
    for word, reason in (("something else", "length"), ("SAFETY", "content_filter")):
        told = answer(
            *events(message("a"), status="incomplete", incomplete_details={"reason": word})
        )
        assert (told.finish_reason, told.raw_finish_reason) == (reason, word)


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"type": "error", "message": "sorry", "code": "server_error"}, "sorry"),
        ({"type": "error", "error": {"message": "sorry", "type": "t"}}, "sorry"),
        ({"error": {"message": "sorry"}}, "sorry"),
        ({"type": "response.failed", "response": {"error": {"message": "sorry"}}}, "sorry"),
        ({"type": "response.failed", "response": {}}, "response response.failed"),
        ({"type": "response.completed", "response": {"status": "cancelled"}}, "response cancelled"),
    ],
)
def test_an_error_is_told_with_the_providers_words(event: dict[str, Any], words: str) -> None:
    with pytest.raises(ProviderError) as caught:
        hear(b"data: " + json.dumps(event).encode() + b"\n\n")

    assert caught.value.detail is not None
    assert caught.value.detail["words"] == words


@pytest.mark.parametrize(
    "rest", [b"data: [DONE]\n\n", b"data:\n\n", b"data: [DONE]\n\ndata: {x\n\n"]
)
def test_what_ends_the_stream_may_follow_the_finish_mark(rest: bytes) -> None:
    told = fold(hear(sse(*events(message("a"))) + rest))

    assert told.content == "a"


@pytest.mark.parametrize("rest", [b"data: {x\n\n", sse({"type": "error", "message": "late"})])
def test_what_goes_wrong_behind_the_finish_mark_is_told(rest: bytes) -> None:
    with pytest.raises((RemoteProtocolError, ProviderError)):
        hear(sse(*events(message("a"))) + rest)


@pytest.mark.parametrize(
    "data", [b"", b"data: [DONE]\n\n", sse(*events(message("a")))[:-40], b"data: 1\n\n"]
)
def test_an_answer_without_its_finish_mark_is_an_error(data: bytes) -> None:
    with pytest.raises((RemoteProtocolError, ProviderError)):
        hear(data)


def test_another_answer_in_the_same_stream_takes_the_place_of_the_first() -> None:
    first, second = events(call("f", {}, "a")), events(message("b"))
    told = answer(*first, *second)

    assert (told.content, told.tool_calls, told.finish_reason) == ("b", [], "stop")


def test_calls_of_an_answer_that_begins_anew_are_not_among_its_own() -> None:
    first, second = events(call("f", {}, "a")), events(call("g", {"x": 1}, "b"))
    begun = [event for event in first if event["type"] != "response.completed"]
    chunks = hear(sse(*begun, *second))

    assert [chunk.reset for chunk in chunks if chunk.reset] == ["the host began its reply anew"]
    assert [(c.id, c.name) for c in chunks[-1].tool_calls] == [("b", "g")]
    written = [args.index for chunk in chunks for args in chunk.tool_args]
    assert set(written) == {0}


def test_the_last_event_may_be_the_only_one() -> None:
    whole = response(message("a", id=None), call("f", {"x": 1}))
    assert answer({"type": "response.completed", "response": whole}).content == "a"

    # Fragments without a place belong to the one item there is.
    delta = {"type": "response.output_text.delta", "delta": "a"}
    told = answer(delta, {"type": "response.completed", "response": response(message("a"))})
    assert told.content == "a"

    named = {**delta, "item_id": "item_0"}
    nameless = {"type": "response.completed", "response": {"output": 1, "model": 2, "usage": 3}}
    told = answer(named, nameless)
    assert (told.content, told.model, told.usage) == ("a", None, None)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"{}", b'{"status": "in_progress"}', b'{"status": 1, "output": []}'],
)
def test_what_is_no_whole_answer_is_refused(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_completion(body)
    assert caught.value.code == "bad_answer"


def test_a_whole_answer_may_be_an_error() -> None:
    with pytest.raises(ProviderError):
        decode_completion(b'{"error": {"message": "no"}}')


def test_usage_is_never_negative_nor_of_another_kind() -> None:
    assert read_usage(None) is None
    assert read_usage({"input_tokens": -1, "output_tokens": True}) == Usage()
    assert read_usage(USAGE).cached_tokens == 4  # type: ignore[union-attr]


# Whatever comes

KINDS = (
    *("created", "completed", "incomplete", "failed", "output_text.delta", "output_text.done"),
    *("output_item.added", "output_item.done", "function_call_arguments.delta", "refusal.done"),
    *("function_call_arguments.done", "output_text.annotation.added", "mcp_call_arguments.done"),
    *("code_interpreter_call_code.done", "reasoning_summary_text.delta", "unheard.of"),
)
ITEMS = ("message", "reasoning", "function_call", "mcp_call", "web_search_call", "custom_tool_call")
KEYS = (
    *("output_index", "content_index", "item_id", "item", "response", "delta", "text", "type"),
    *("arguments", "annotation", "error", "output", "status", "content", "summary", "id", "name"),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from(["", "a", "{}", *ITEMS]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=8,
)
EVENTS = st.builds(
    lambda kind, rest: {**rest, "type": f"response.{kind}"},
    st.sampled_from(KINDS),
    st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5),
)


@given(st.lists(EVENTS, max_size=8), st.integers(1, 60))
def test_only_our_errors_come_out_whatever_comes_in(told: list[Any], size: int) -> None:
    def listen(pieces: list[bytes]) -> tuple[list[Chunk], str]:
        decoder, chunks = responses_decoder(), list[Chunk]()
        try:
            for piece in pieces:
                chunks += decoder.receive_data(piece)
            chunks += decoder.end_of_data()
        except (ProviderError, RemoteProtocolError) as exc:
            return chunks, repr(exc)
        return chunks, ""

    data = sse(*told)
    heard = listen([data])

    assert heard == listen([data[place : place + size] for place in range(0, len(data), size)])
    finals = [chunk.is_final for chunk in heard[0]]
    assert finals.count(True) == (heard[1] == "")


@given(st.binary(max_size=300))
def test_only_our_errors_come_out_of_bytes(data: bytes) -> None:
    for prefix in (b"", b"data: ", b'data: {"type":"response.completed","response":{"output":[{'):
        with pytest.raises((ProviderError, RemoteProtocolError)):
            hear(prefix + data)
        with pytest.raises((ProviderError, RemoteProtocolError)):
            decode_completion(prefix + data)


def test_an_event_that_does_not_end_is_refused_before_memory_is() -> None:
    decoder = responses_decoder(max_event_bytes=1000)
    with pytest.raises(RemoteProtocolError):
        for _ in range(30):
            decoder.receive_data(b"data: " + b"x" * 100)


def test_json_that_is_nested_without_end_is_refused() -> None:
    deep = b'{"type":"response.created","response":' + b'{"a":' * 5000 + b"1" + b"}" * 5001
    with pytest.raises(RemoteProtocolError):
        hear(b"data: " + deep + b"\n\n")
