"""Anthropic's replies: what is heard in them, and what has to go back."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
import tracemalloc
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtrio._core._chunks import Chunk, Completion, CompletionBuilder, ToolCall, Usage
from flowtrio._core._exceptions import ProviderError, RemoteProtocolError
from flowtrio.wire._anthropic import anthropic_decoder, decode_completion, is_paused

PROPERTY: Final = settings(max_examples=150, deadline=None, database=None, derandomize=True)


def event(type: str, **rest: Any) -> bytes:
    data = json.dumps({"type": type, **rest}, ensure_ascii=False)
    return f"event: {type}\ndata: {data}\n\n".encode()


def begin(index: int, type: str, **rest: Any) -> bytes:
    return event("content_block_start", index=index, content_block={"type": type, **rest})


def grow(index: int, type: str, **rest: Any) -> bytes:
    return event("content_block_delta", index=index, delta={"type": type, **rest})


def stop(index: int) -> bytes:
    return event("content_block_stop", index=index)


def end(reason: str | None = "end_turn", **rest: Any) -> bytes:
    delta = {"stop_reason": reason, "stop_sequence": None, **rest}
    return event("message_delta", delta=delta, usage={"output_tokens": 9}) + event("message_stop")


def text(index: int, *words: str) -> bytes:
    deltas = b"".join(grow(index, "text_delta", text=word) for word in words)
    return begin(index, "text", text="") + deltas + stop(index)


START: Final = event(
    "message_start",
    message={
        "id": "msg_1",
        "model": "claude-test-1",
        "content": [],
        "stop_reason": None,
        "usage": {
            "input_tokens": 7,
            "cache_creation_input_tokens": 20,
            "cache_read_input_tokens": 300,
            "output_tokens": 1,
        },
    },
)

USAGE: Final = Usage(prompt_tokens=327, completion_tokens=9, cached_tokens=300)


def hear(*pieces: bytes) -> list[Chunk]:
    decoder = anthropic_decoder()
    chunks = [chunk for piece in pieces for chunk in decoder.receive_data(piece)]
    return chunks + decoder.end_of_data()


def folded(*pieces: bytes) -> Completion:
    builder = CompletionBuilder()
    return [builder.add(chunk) for chunk in hear(*pieces)][-1]  # type: ignore[return-value]


def parts_of(*pieces: bytes) -> list[dict[str, Any]]:
    return [part for chunk in hear(*pieces) for part in chunk.parts]


def said(content: str = "", **rest: Any) -> Completion:
    given = {"finish_reason": "stop", "raw_finish_reason": "end_turn", "usage": USAGE}
    return Completion(**{"content": content, "model": "claude-test-1", **given, **rest})


# What is heard


def test_text_comes_as_it_is_written() -> None:
    chunks = hear(START, event("ping"), text(0, "Zü", "rich 😀"), end())

    assert [chunk.content for chunk in chunks] == ["Zü", "rich 😀", ""]
    assert folded(START, text(0, "Zü", "rich 😀"), end()) == said("Zürich 😀")


def test_calls_come_in_fragments_that_may_overlap() -> None:
    stream = [
        START,
        begin(0, "tool_use", id="t1", name="look", input={}),
        begin(1, "tool_use", id="t2", name="book", input={}),
        grow(0, "input_json_delta", partial_json=""),
        grow(0, "input_json_delta", partial_json='{"at":'),
        grow(1, "input_json_delta", partial_json='{"n":2'),
        grow(0, "input_json_delta", partial_json='"Paris"}'),
        grow(1, "input_json_delta", partial_json="}"),
        stop(0),
        stop(1),
        end("tool_use"),
    ]
    args = [(a.index, a.id, a.name, a.text) for chunk in hear(*stream) for a in chunk.tool_args]

    assert args == [
        (0, "t1", "look", ""),
        (1, "t2", "book", ""),
        (0, "t1", "look", '{"at":'),
        (1, "t2", "book", '{"n":2'),
        (0, "t1", "look", '"Paris"}'),
        (1, "t2", "book", "}"),
    ]
    assert folded(*stream) == said(
        tool_calls=[
            ToolCall("t1", "look", {"at": "Paris"}, '{"at":"Paris"}'),
            ToolCall("t2", "book", {"n": 2}, '{"n":2}'),
        ],
        finish_reason="tool_calls",
        raw_finish_reason="tool_use",
    )


@pytest.mark.parametrize("ending", [stop(0), b""], ids=["stopped", "never stopped"])
def test_arguments_that_come_whole_are_told_once(ending: bytes) -> None:
    call = begin(0, "tool_use", id="t1", name="look", input={"at": "Ü"})
    chunks = hear(START, call, ending, end("tool_use"))

    assert [a.text for chunk in chunks for a in chunk.tool_args] == ["", '{"at": "Ü"}']
    assert [call.arguments for call in chunks[-1].tool_calls] == [{"at": "Ü"}]


def test_a_call_without_arguments_has_none_unless_it_was_cut_before_them() -> None:
    call = begin(0, "tool_use", id="t1", name="now", input={})
    whole = hear(START, call, stop(0), end("tool_use"))[-1].tool_calls
    cut = hear(START, call, end("max_tokens"))[-1].tool_calls
    after = hear(START, call, stop(0), text(1, "and"), end("max_tokens"))[-1].tool_calls

    assert [call.arguments for call in whole + cut + after] == [{}, None, None]


def test_arguments_that_are_cut_are_no_arguments() -> None:
    call = begin(0, "tool_use", id="t1", name="look", input={})
    cut = grow(0, "input_json_delta", partial_json='{"at":"Pa')
    final = hear(START, call, cut, end("max_tokens"))[-1]

    assert final.tool_calls == [ToolCall("t1", "look", None, '{"at":"Pa')]
    assert final.finish_reason == "length"


@pytest.mark.parametrize(
    ("raw", "ours"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("tool_use", "tool_calls"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("pause_turn", "length"),
        ("compaction", "length"),
        ("refusal", "content_filter"),
        ("something_new", "stop"),
    ],
)
def test_why_it_stopped_is_told_in_both_words(raw: str, ours: str) -> None:
    final = hear(START, text(0, "a"), end(raw))[-1]

    assert (final.raw_finish_reason, final.finish_reason) == (raw, ours)


def test_calls_are_what_it_stopped_for_though_it_says_another_thing() -> None:
    call = begin(0, "tool_use", id="t1", name="now", input={})

    assert hear(START, call, stop(0), end("end_turn"))[-1].finish_reason == "tool_calls"


def test_a_refusal_is_a_part_and_nothing_of_it_goes_back() -> None:
    details = {"type": "refusal", "category": "cyber", "explanation": "Not that."}
    thought = begin(0, "thinking", thinking="hm", signature="s")
    chunks = hear(START, thought, stop(0), end("refusal", stop_details=details))

    assert chunks[-1].parts == [{"type": "refusal", "text": "Not that."}]
    assert chunks[-1].carry is None
    assert parts_of(START, end("refusal")) == [{"type": "refusal", "text": ""}]
    words = {"explanation": ["no", "text"]}
    assert parts_of(START, end("refusal", stop_details=words)) == [{"type": "refusal", "text": ""}]


def test_usage_is_cumulative_and_counts_cached_tokens_among_the_prompts() -> None:
    usage = {
        "input_tokens": 8,
        "cache_read_input_tokens": None,
        "output_tokens": 40,
        "output_tokens_details": {"thinking_tokens": 30},
    }
    delta = event("message_delta", delta={"stop_reason": "end_turn"}, usage=usage)

    assert hear(START, delta)[-1].usage == Usage(
        prompt_tokens=328, completion_tokens=40, reasoning_tokens=30, cached_tokens=300
    )
    assert hear(event("message_delta", delta={"stop_reason": "end_turn"}))[-1].usage is None
    strange = {"input_tokens": -4, "output_tokens": True, "cache_read_input_tokens": "7"}
    delta = event("message_delta", delta={"stop_reason": "end_turn"}, usage=strange)
    assert hear(delta)[-1].usage == Usage(prompt_tokens=7, cached_tokens=7)


# What goes back

PLAIN: Final = [{"type": "text", "text": "ab"}]
CALL: Final = {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": 1}}
DIRECT: Final = {**CALL, "caller": {"type": "direct"}}
THOUGHT: Final = {"type": "thinking", "thinking": "I see.", "signature": "c2ln"}
REDACTED: Final = {"type": "redacted_thinking", "data": "cmVk"}


def carried(*pieces: bytes) -> Any:
    carry = hear(START, *pieces, end())[-1].carry
    return None if carry is None else carry["anthropic"]


def test_what_the_conversation_says_is_not_carried() -> None:
    call = begin(1, **{**CALL, "input": {}}) + grow(1, "input_json_delta", partial_json='{"at":1}')

    assert carried(text(0, "a", "b"), call, stop(1)) is None


def test_thoughts_go_back_as_they_came_with_all_that_stood_beside_them() -> None:
    stream = [
        begin(0, "thinking", thinking="", signature=""),
        grow(0, "thinking_delta", thinking="I "),
        grow(0, "thinking_delta", thinking="see."),
        grow(0, "thinking_delta", thinking=""),
        grow(0, "signature_delta", signature="c2ln"),
        stop(0),
        begin(1, **REDACTED),
        stop(1),
        text(2, "a", "b"),
        begin(3, **{**DIRECT, "input": {}}),
        grow(3, "input_json_delta", partial_json='{"at":1}'),
        stop(3),
    ]
    reasoning = "".join(chunk.reasoning for chunk in hear(START, *stream, end()))

    assert reasoning == "I see."
    assert carried(*stream) == {"content": [THOUGHT, REDACTED, *PLAIN, DIRECT]}


def test_a_thought_that_begins_with_words_keeps_them() -> None:
    stream = [
        begin(0, "thinking", thinking="I "),
        grow(0, "thinking_delta", thinking="see."),
        grow(0, "signature_delta", signature="c2ln"),
    ]

    assert carried(*stream) == {"content": [THOUGHT]}
    assert "".join(chunk.reasoning for chunk in hear(START, *stream, end())) == "I see."


def test_a_call_of_unreadable_arguments_goes_back_with_none() -> None:
    call = begin(0, **{**DIRECT, "input": {}}) + grow(0, "input_json_delta", partial_json='{"at"')

    assert carried(call) == {"content": [{**DIRECT, "input": {}}]}


def test_a_compaction_is_told_and_goes_back() -> None:
    stream = [
        begin(0, "compaction", content=None),
        grow(0, "compaction_delta", content="They said ", encrypted_content="ZW5j"),
        grow(0, "compaction_delta", content="hello."),
        stop(0),
    ]
    block = {"type": "compaction", "content": "They said hello.", "encrypted_content": "ZW5j"}

    assert parts_of(START, *stream, end()) == [{"type": "compaction", "text": "They said hello."}]
    assert carried(*stream) == {"content": [block]}


def test_blocks_and_events_of_kinds_to_come_are_passed_over_and_carried() -> None:
    stream = [
        event("weather_report", index=0),
        begin(0, "dream", depth=2),
        grow(0, "dream_delta", dream="z"),
        stop(0),
        text(1, "a", "b"),
    ]

    assert folded(START, *stream, end()).content == "ab"
    assert carried(*stream) == {"content": [{"type": "dream", "depth": 2}, *PLAIN]}


def test_where_a_program_waits_goes_back() -> None:
    container = {"id": "container_1", "expires_at": "2026-01-01T00:00:00Z"}
    chunks = hear(START, text(0, "ab"), end(container=container))

    assert chunks[-1].carry == {"anthropic": {"container": "container_1"}}
    assert hear(START, end(container={"id": 5}))[-1].carry is None


# Tools of the provider's own

SEARCH: Final = {
    "type": "web_search_tool_result",
    "tool_use_id": "s1",
    "content": [
        {"type": "web_search_result", "url": "http://a", "title": "A", "encrypted_content": "eA=="}
    ],
}


def test_the_providers_own_calls_are_parts_and_go_back_whole() -> None:
    stream = [
        begin(0, "server_tool_use", id="s1", name="web_search", input={}),
        grow(0, "input_json_delta", partial_json='{"query":'),
        grow(0, "input_json_delta", partial_json='"a"}'),
        stop(0),
        stop(0),
        begin(1, **SEARCH),
        stop(1),
    ]
    call = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "a"}}

    assert parts_of(START, *stream, end()) == [
        {
            "type": "server_tool_call",
            "id": "s1",
            "name": "web_search",
            "arguments": {"query": "a"},
        },
        {
            "type": "server_tool_result",
            "id": "s1",
            "result": [{"type": "web_search_result", "url": "http://a", "title": "A"}],
        },
    ]
    assert carried(*stream) == {"content": [call, SEARCH]}


def test_a_call_of_the_providers_that_nobody_stops_is_told_at_the_end() -> None:
    call = begin(0, "server_tool_use", id="s1", name="web_search", input=["not", "an", "object"])

    assert hear(START, call, end())[-1].parts == [
        {"type": "server_tool_call", "id": "s1", "name": "web_search", "arguments": {}}
    ]


@pytest.mark.parametrize(
    ("result", "error"),
    [
        ({"content": {"type": "web_search_tool_result_error", "error_code": "busy"}}, "busy"),
        ({"content": {"type": "web_search_tool_result_error"}}, "error"),
        ({"content": [{"type": "text", "text": "no"}], "is_error": True}, "error"),
        ({"content": [{"type": "text", "text": "yes"}], "is_error": False}, None),
    ],
)
def test_a_call_that_failed_at_the_provider_says_so(
    result: dict[str, Any], error: str | None
) -> None:
    block = begin(0, "mcp_tool_result", tool_use_id="s1", **result)
    [part] = parts_of(START, block, stop(0), end())

    assert part["result"] == result["content"]
    assert part.get("error") == error


def test_files_that_a_program_wrote_are_parts() -> None:
    content = {
        "type": "bash_code_execution_result",
        "return_code": 0,
        "content": [{"type": "bash_code_execution_output", "file_id": "file_1"}, "?", {}],
    }
    result = begin(0, "bash_code_execution_tool_result", tool_use_id="s1", content=content)
    upload = begin(1, "container_upload", file_id="file_2")
    parts = parts_of(START, result, stop(0), upload, stop(1), end())

    assert [p for p in parts if p["type"] == "file"] == [
        {"type": "file", "file_id": "file_1"},
        {"type": "file", "file_id": "file_2"},
    ]


def test_citations_are_parts_without_what_is_encrypted_and_go_back_with_it() -> None:
    found = {
        "type": "web_search_result_location",
        "url": "http://a",
        "title": "A",
        "cited_text": "so it is",
        "encrypted_index": "aQ==",
    }
    placed = {
        "type": "char_location",
        "document_index": 0,
        "document_title": "D",
        "cited_text": "there",
        "start_char_index": 1,
        "end_char_index": 6,
    }
    stream = [
        begin(0, "text", text="", citations=[]),
        grow(0, "citations_delta", citation=found),
        grow(0, "citations_delta", citation="none"),
        grow(0, "text_delta", text="ab"),
        stop(0),
        begin(1, "text", text="c", citations=[placed, None]),
        stop(1),
    ]

    assert parts_of(START, *stream, end()) == [
        {
            "type": "citation",
            "url": "http://a",
            "title": "A",
            "text": "so it is",
            "kind": "web_search_result_location",
        },
        {
            "type": "citation",
            "url": None,
            "title": "D",
            "text": "there",
            "kind": "char_location",
            "document_index": 0,
            "start_char_index": 1,
            "end_char_index": 6,
        },
    ]
    assert carried(*stream) == {
        "content": [
            {"type": "text", "text": "ab", "citations": [found]},
            {"type": "text", "text": "c", "citations": [placed]},
        ]
    }


# What servers make of it


def test_a_message_that_begins_with_blocks_has_them() -> None:
    message = {"content": [DIRECT], "stop_reason": "tool_use", "model": "m", "container": None}
    chunks = hear(event("message_start", message=message), event("message_stop"))

    assert [call.arguments for call in chunks[-1].tool_calls] == [{"at": 1}]
    assert chunks[-1].carry == {"anthropic": {"content": [DIRECT]}}


def test_indices_and_beginnings_may_be_missing() -> None:
    delta = {"type": "text_delta", "text": "a"}
    bare = event("content_block_delta", delta=delta)
    call = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
    json_delta = {"type": "input_json_delta", "partial_json": '{"a":1}'}
    stream = [
        event("content_block_stop"),
        event("content_block_delta", delta=json_delta),
        bare,
        bare,
        event("content_block_start", content_block=call),
        event("content_block_delta", delta=json_delta),
        event("content_block_stop"),
        bare,
        grow(7, "input_json_delta", partial_json="lost"),
        grow(0, "text_delta", text=None),
        event("content_block_delta"),
        event("content_block_start"),
        event("message_start"),
        b"data: [DONE]\n\n",
        b"data:  \n\n",
        event("message_delta"),
        event("message_delta", delta={"stop_reason": "tool_use"}),
    ]
    heard = folded(*stream)

    assert heard.content == "aaa"
    assert [call.arguments for call in heard.tool_calls] == [{"a": 1}]


def test_the_end_of_the_message_finishes_it_also_without_a_reason() -> None:
    final = hear(START, text(0, "a"), event("message_stop"))[-1]

    assert (final.finish_reason, final.raw_finish_reason) == ("stop", None)


def test_nothing_is_read_after_the_end() -> None:
    assert folded(START, text(0, "a"), end(), START + text(1, "b") + end()).content == "a"


# Failing


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [
        ({"type": "overloaded_error", "message": "Overloaded"}, "stream_error", True),
        ({"type": "api_error", "message": "Internal"}, "stream_error", True),
        ({"type": "rate_limit_error", "message": "slow"}, "rate_limited", True),
        ({"type": "invalid_request_error", "message": "bad"}, "stream_error", False),
        (None, "stream_error", False),
    ],
)
def test_an_error_in_mid_stream_is_told_after_what_came_before_it(
    error: Any, code: str, retryable: bool
) -> None:
    decoder = anthropic_decoder()
    chunks = decoder.receive_data(START + text(0, "a") + event("error", error=error))
    with pytest.raises(ProviderError) as caught:
        decoder.receive_data(b"")

    assert [chunk.content for chunk in chunks] == ["a"]
    assert (caught.value.code, caught.value.retryable) == (code, retryable)
    assert caught.value.detail is not None
    assert caught.value.detail["words"] == ("" if error is None else error["message"])


def test_an_error_behind_the_stop_reason_is_told_and_none_behind_the_end() -> None:
    finish = event("message_delta", delta={"stop_reason": "end_turn"})
    failed = event("error", error={"type": "overloaded_error"})

    assert hear(START, text(0, "a"), finish, event("message_stop"), failed)[-1].is_final
    with pytest.raises(ProviderError):
        hear(START, text(0, "a"), finish, failed)


@pytest.mark.parametrize(
    "data",
    [
        "{",
        "[1]",
        "5",
        '{"type":"content_block_start","content_block":' + "[" * 200 + "]" * 200 + "}",
        '{"type":"content_block_start","content_block":{"a":' + "[" * 200 + "]" * 200 + "}}",
        '{"type":"content_block_start","content_block":{"a":' + "[" * 99_999,
    ],
)
def test_what_is_malformed_is_refused_without_a_word_of_it(data: str) -> None:
    with pytest.raises(
        RemoteProtocolError, match=r"is not (the expected )?JSON \(\d+ bytes\)"
    ) as caught:
        hear(START, f"data: {data}\n\n".encode())

    assert caught.value.retryable


def test_a_stream_cut_anywhere_before_its_finish_mark_is_an_error() -> None:
    stream = START + text(0, "a", "b") + end()
    mark = stream.index(b"event: message_delta")
    for cut in range(mark):
        with pytest.raises((RemoteProtocolError, ProviderError)) as caught:
            hear(stream[:cut])
        assert caught.value.code in ("stream_cut", "empty_reply")


def test_lone_surrogates_are_replaced() -> None:
    delta = (
        r'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\ud800"}}'
    )

    assert folded(START, f"data: {delta}\n\n".encode(), end()).content == "�"


# Answers that are not streamed


def test_a_whole_answer_is_heard_as_a_streamed_one() -> None:
    search = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "a"}}
    body = {
        "type": "message",
        "model": "claude-test-1",
        "content": [THOUGHT, search, SEARCH, {"type": "text", "text": "ab"}, CALL],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 27, "cache_read_input_tokens": 300, "output_tokens": 9},
    }
    builder = CompletionBuilder()
    chunks = decode_completion(json.dumps(body).encode())
    heard = [builder.add(chunk) for chunk in chunks][-1]

    assert heard is not None
    assert (heard.content, heard.reasoning, heard.usage) == ("ab", "I see.", USAGE)
    assert [part["type"] for part in heard.parts] == ["server_tool_call", "server_tool_result"]
    assert heard.tool_calls == [ToolCall("t1", "look", {"at": 1}, '{"at": 1}')]
    assert heard.carry == {"anthropic": {"content": body["content"]}}


def test_a_whole_answer_that_is_none_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="no stop_reason"):
        decode_completion(b'{"content": []}')
    with pytest.raises(RemoteProtocolError, match="not the expected JSON"):
        decode_completion(b"<html>")
    with pytest.raises(ProviderError):
        decode_completion(b'{"type":"error","error":{"type":"api_error","message":"x"}}')


# Whatever comes

WHOLE: Final = b"".join(
    [
        START,
        begin(0, "thinking", thinking=""),
        grow(0, "thinking_delta", thinking="Ü"),
        grow(0, "signature_delta", signature="c2ln"),
        stop(0),
        begin(1, "server_tool_use", id="s1", name="web_search", input={}),
        grow(1, "input_json_delta", partial_json='{"q":1}'),
        stop(1),
        begin(2, **SEARCH),
        stop(2),
        text(3, "a", "ß"),
        begin(4, "tool_use", id="t1", name="look", input={}),
        grow(4, "input_json_delta", partial_json='{"at":1}'),
        stop(4),
        end("tool_use"),
    ]
)


@PROPERTY
@given(st.lists(st.integers(0, len(WHOLE)), max_size=20))
def test_pieces_make_no_difference(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(WHOLE)]
    pieces = [WHOLE[a:b] for a, b in itertools.pairwise(places)]

    assert hear(*pieces) == hear(WHOLE)


KEYS: Final = st.sampled_from(
    [
        *("type", "index", "message", "content_block", "delta", "usage", "error", "content", "id"),
        *("text", "thinking", "partial_json", "citation", "citations", "stop_reason", "input"),
        *("stop_details", "container", "tool_use_id", "model", "name", "signature"),
    ]
)
WORDS: Final = st.sampled_from(
    [
        *("message_start", "content_block_start", "content_block_delta", "content_block_stop"),
        *("message_delta", "message_stop", "error", "text", "tool_use", "server_tool_use", "ping"),
        *("web_search_tool_result", "text_delta", "input_json_delta", "citations_delta", "refusal"),
        *("thinking", "thinking_delta", "compaction", "compaction_delta", "end_turn", '{"a"'),
    ]
)
ANYTHING: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
EVENTS: Final = st.dictionaries(KEYS, ANYTHING, max_size=6)
TYPED: Final = st.builds(lambda word, rest: {**rest, "type": word}, WORDS, EVENTS)


@settings(PROPERTY, max_examples=400)
@given(st.lists(EVENTS | TYPED, max_size=8))
def test_only_our_errors_come_out_of_events_of_any_shape(events: list[dict[str, Any]]) -> None:
    stream = b"".join(b"data: " + json.dumps(item).encode() + b"\n\n" for item in events)
    try:
        chunks = hear(START, stream)
    except (RemoteProtocolError, ProviderError):
        return
    assert chunks[-1].is_final


@PROPERTY
@given(st.data())
def test_only_our_errors_come_out_of_spoilt_bytes(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(WHOLE)))
    spoilt = WHOLE[:place] + data.draw(st.binary(max_size=5)) + WHOLE[place + 3 :]
    with contextlib.suppress(RemoteProtocolError, ProviderError):
        hear(spoilt)


@PROPERTY
@given(ANYTHING)
def test_only_our_errors_come_out_of_whole_answers(value: Any) -> None:
    with contextlib.suppress(RemoteProtocolError, ProviderError):
        decode_completion(json.dumps(value).encode())


def test_a_long_reply_costs_linear_time_and_little_memory() -> None:
    delta = grow(0, "text_delta", text="word ")

    def seconds(count: int) -> float:
        decoder = anthropic_decoder()
        decoder.receive_data(START + begin(0, "text", text=""))
        begun = time.process_time()
        for _ in range(count // 100):
            decoder.receive_data(delta * 100)
        decoder.receive_data(end())
        return time.process_time() - begun

    tracemalloc.start()
    seconds(20_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    small = min(seconds(2_000) for _ in range(3))

    assert peak < 2_000_000
    assert seconds(20_000) < 60 * small


# Going on


def test_a_part_that_goes_on_begins_with_what_was_kept() -> None:
    [*_, paused] = hear(START, text(0, "a"), end("pause_turn", container={"id": "box"}))
    decoder = anthropic_decoder(paused=paused)
    [*_, final] = [*decoder.receive_data(START + text(0, "b") + end()), *decoder.end_of_data()]
    blocks = [{"type": "text", "text": word} for word in "ab"]

    assert is_paused(paused)
    assert not is_paused(final)
    assert final.carry == {"anthropic": {"content": blocks, "container": "box"}}
    assert final.usage == USAGE + USAGE


def test_usage_that_only_one_part_tells_is_kept() -> None:
    bare = event("message_delta", delta={"stop_reason": "pause_turn"})
    for pieces, usage in (((START, text(0, "a"), bare), 327), ((text(0, "a"), bare), None)):
        [*_, paused] = hear(*pieces)
        decoder = anthropic_decoder(paused=paused)
        decoder.receive_data(event("message_delta", delta={"stop_reason": "end_turn"}))
        [final] = decoder.end_of_data()

        assert (final.usage and final.usage.prompt_tokens) == usage


@pytest.mark.parametrize("chunk", [Chunk(is_final=True), Chunk(raw_finish_reason="pause_turn")])
def test_without_blocks_and_a_pause_nothing_goes_on(chunk: Chunk) -> None:
    assert not is_paused(chunk)
