from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtrio._core._chunks import Chunk, Completion, CompletionBuilder, ToolCall, Usage
from flowtrio._core._exceptions import ProviderError, RemoteProtocolError
from flowtrio.wire._finish import FinishMark
from flowtrio.wire._openai_chat import (
    ChatDecoder,
    ChatReply,
    decode_completion,
)
from flowtrio.wire._openai_chat_requests import encode_message
from flowtrio.wire._sse import SSEDecoder
from flowtrio.wire._usage import read_usage

PROPERTY: Final = settings(
    max_examples=150, deadline=None, database=None, derandomize=True, report_multiple_bugs=False
)

Make: TypeAlias = Callable[[], ChatDecoder]


@attrs.frozen
class Reply:
    """A streamed reply, and what is to be heard in it."""

    data: bytes = attrs.field(converter=lambda text: text.encode())
    mark: str
    """Stands in the line that finishes the reply, and in none before it."""
    heard: Completion

    @property
    def finished_at(self) -> int:
        """The length from which on the finish mark is whole."""
        place = self.data.index(self.mark.encode())
        return place + len(self.data[place:].splitlines()[0])


def said(content: str = "", finish: str | None = "stop", **rest: Any) -> Completion:
    """What was heard; *finish* is the provider's word for it, and ours if nothing else is given."""
    return Completion(
        **{"content": content, "finish_reason": finish, "raw_finish_reason": finish, **rest}
    )


def call(id: str, name: str, raw: str) -> ToolCall:
    return ToolCall(id, name, json.loads(raw or "{}"), raw)


OPENAI: Final = """\
data: {"id":"x1","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4o-mini",\
"service_tier":"default","choices":[{"index":0,"delta":{"role":"assistant","content":"",\
"refusal":null},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"aB"}

data: {"id":"x1","model":"gpt-4o-mini","choices":[{"index":0,"delta":{"content":"Zürich"},\
"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"x1","model":"gpt-4o-mini","choices":[{"index":0,"delta":{"content":" is 😀\\n"},\
"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"x1","model":"gpt-4o-mini","choices":[{"index":0,"delta":{},"logprobs":null,\
"finish_reason":"stop"}],"usage":null}

data: {"id":"x1","model":"gpt-4o-mini","choices":[],"usage":{"prompt_tokens":12,\
"completion_tokens":5,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":4,\
"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":2,"audio_tokens":0}}}

data: [DONE]

"""

HEARD: Final = said(
    "Zürich is 😀\n",
    usage=Usage(prompt_tokens=12, completion_tokens=5, reasoning_tokens=2, cached_tokens=4),
    model="gpt-4o-mini",
)

STOP: Final = '"finish_reason":"stop"'
CALLS: Final = '"finish_reason":"tool_calls"'

REPLIES: Final[dict[str, Reply]] = {
    "text, with usage in a last chunk without choices": Reply(OPENAI, STOP, HEARD),
    "lines that end in CRLF": Reply(OPENAI.replace("\n", "\r\n"), STOP, HEARD),
    "lines that end in CR": Reply(OPENAI.replace("\n", "\r"), STOP, HEARD),
    "a byte order mark": Reply("\ufeff" + OPENAI, STOP, HEARD),
    "comments and no spaces": Reply(
        ": PROCESSING\n\n" + OPENAI.replace("data: ", ": PROCESSING\n\ndata:"), STOP, HEARD
    ),
    "no [DONE]": Reply(OPENAI.replace("data: [DONE]\n\n", ""), STOP, HEARD),
    "no blank line at the end": Reply(OPENAI.removesuffix("\n"), STOP, HEARD),
    "no line's end at the end": Reply(OPENAI.removesuffix("\n\n"), STOP, HEARD),
    "[DONE] without a finish_reason": Reply(
        'data: {"choices":[{"index":0,"delta":{"content":"4"}}]}\n\ndata: [DONE]\n\n',
        "[DONE]",
        said("4", None, finish_reason="stop"),
    ),
    "[DONE] without a finish_reason, after a call": Reply(
        """\
data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f"}}]}}]}

data: [DONE]
""",
        "[DONE]",
        said("", None, finish_reason="length", tool_calls=[ToolCall("a", "f", None, "")]),
    ),
    "an event of several lines": Reply(
        'data: {"choices":[{"delta":{"content":"a"},\ndata: "finish_reason":\ndata: "stop"}]}\n\n',
        '"stop"',
        said("a"),
    ),
    "Azure's content filter in a first chunk, and in chunks of its own": Reply(
        """\
data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":\
[{"prompt_index":0,"content_filter_results":{"hate":{"filtered":false,"severity":"safe"}}}]}

data: {"choices":[{"content_filter_results":{},"delta":{"content":"Good","role":"assistant"},\
"finish_reason":null,"index":0}],"created":1,"id":"x","model":"gpt-4o","usage":null}

data: {"choices":[{"content_filter_offsets":{"check_offset":0},"content_filter_results":{"hate":\
{"filtered":false}},"finish_reason":null,"index":0}],"model":"","object":""}

data: {"choices":[{"content_filter_results":{},"delta":{"content":" day"},"finish_reason":null,\
"index":0}],"created":1,"id":"x","model":"gpt-4o"}

data: {"choices":[{"delta":{},"finish_reason":"content_filter","index":0}],"model":"gpt-4o"}

data: [DONE]

""",
        '"finish_reason":"content_filter"',
        said("Good day", "content_filter", model="gpt-4o"),
    ),
    "several choices": Reply(
        """\
data: {"model":"m","choices":[{"index":0,"delta":{"content":"a"}},\
{"index":1,"delta":{"content":"b"}}]}

data: {"model":"m","choices":[{"index":1,"delta":{"content":"B"}}]}

data: {"model":"m","choices":[{"index":1,"delta":{},"finish_reason":"length"}]}

data: {"model":"m","choices":[{"index":0,"delta":{"content":"A"}}]}

data: {"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}

data: [DONE]

""",
        STOP,
        said("aA", model="m"),
    ),
    "several calls in fragments": Reply(
        """\
data: {"choices":[{"index":0,"delta":{"role":"assistant","content":null,"tool_calls":\
[{"index":0,"id":"call_a","type":"function","function":{"name":"look","arguments":""}}]}}]}

data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":\
{"arguments":"{\\"at\\""}}]}}]}

data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"call_b","type":"function",\
"function":{"name":"wait","arguments":""}}]}}]}

data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"function":\
{"arguments":"{\\"s\\":"}},{"index":0,"function":{"arguments":": \\"Zürich\\"}"}}]}}]}

data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"function":{"arguments":"3}"}}]}}]}

data: {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}

data: [DONE]

""",
        CALLS,
        said(
            "",
            "tool_calls",
            tool_calls=[
                call("call_a", "look", '{"at": "Zürich"}'),
                call("call_b", "wait", '{"s":3}'),
            ],
        ),
    ),
    "calls in one piece, with the finish mark": Reply(
        """\
data: {"model":"m","choices":[{"index":0,"delta":{"content":"","tool_calls":[{"id":"a","function":\
{"name":"look","arguments":"{\\"at\\": \\"Bern\\"}"},"index":0},{"id":"b","function":\
{"name":"look","arguments":"{\\"at\\": \\"Rome\\"}"},"index":1}]},"finish_reason":"tool_calls"}]}

data: [DONE]

""",
        CALLS,
        said(
            "",
            "tool_calls",
            model="m",
            tool_calls=[
                call("a", "look", '{"at": "Bern"}'),
                call("b", "look", '{"at": "Rome"}'),
            ],
        ),
    ),
    "calls without arguments": Reply(
        """\
data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f",\
"arguments":""}},{"index":1,"id":"b","function":{"name":"g","arguments":null}},\
{"index":2,"id":"c","function":{"name":"h"}},{"index":3,"id":"d"}]}}]}

data: {"choices":[{"delta":{"tool_calls":[]},"finish_reason":"stop"}]}

""",
        STOP,
        said(
            finish_reason="tool_calls",
            tool_calls=[
                *(call("a", "f", ""), call("b", "g", ""), call("c", "h", ""), call("d", "", ""))
            ],
        ),
    ),
    "arguments as an object": Reply(
        """\
data: {"choices":[{"delta":{"tool_calls":[{"id":"a","function":{"name":"f","arguments":\
{"at":"Zürich"}}},{"id":"b","function":{"name":"f","arguments":{}}}]}}]}

data: {"choices":[{"delta":{},"finish_reason":"tool_calls"}]}

""",
        CALLS,
        said(
            "",
            "tool_calls",
            tool_calls=[call("a", "f", '{"at": "Zürich"}'), call("b", "f", "{}")],
        ),
    ),
    "arguments of a type that nobody knows": Reply(
        """\
data: {"choices":[{"delta":{"tool_calls":[{"id":"a","function":{"name":"f","arguments":[1]}}]}}]}

data: {"choices":[{"delta":{},"finish_reason":"tool_calls"}]}

""",
        CALLS,
        said("", "tool_calls", tool_calls=[ToolCall("a", "f", None, "[1]")]),
    ),
    "arguments that do not parse": Reply(
        """\
data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f",\
"arguments":"{\\"at\\": \\"Be"}}]}}]}

data: {"choices":[{"delta":{},"finish_reason":"length"}]}

""",
        '"finish_reason":"length"',
        said("", "length", tool_calls=[ToolCall("a", "f", None, '{"at": "Be')]),
    ),
    "calls without an index": Reply(
        """\
data: {"choices":[{"delta":{"tool_calls":[{"id":"a","function":{"name":"f","arguments":"{"}}]}}]}

data: {"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"}"}}]}}]}

data: {"choices":[{"delta":{"tool_calls":[{"id":"b","function":{"name":"f","arguments":"{}"}}]}}]}

data: {"choices":[{"delta":{},"finish_reason":"tool_calls"}]}

""",
        CALLS,
        said("", "tool_calls", tool_calls=[call("a", "f", "{}"), call("b", "f", "{}")]),
    ),
    "a function call of the old kind": Reply(
        """\
data: {"choices":[{"delta":{"content":null,"function_call":{"name":"f","arguments":""}}}]}

data: {"choices":[{"delta":{"function_call":{"arguments":"{\\"a\\":"}}}]}

data: {"choices":[{"delta":{"function_call":{"arguments":"1}"}}}]}

data: {"choices":[{"delta":{},"finish_reason":"function_call"}]}

""",
        '"finish_reason":"function_call"',
        said(
            "",
            "function_call",
            finish_reason="tool_calls",
            tool_calls=[call("", "f", '{"a":1}')],
        ),
    ),
    "a refusal": Reply(
        """\
data: {"choices":[{"delta":{"role":"assistant","content":"","refusal":null}}]}

data: {"choices":[{"delta":{"refusal":"I can’t"}}]}

data: {"choices":[{"delta":{"content":"Sorry","refusal":" do that."}}]}

data: {"choices":[{"delta":{},"finish_reason":"stop"}]}

""",
        STOP,
        said(
            "Sorry",
            parts=[
                {"type": "refusal", "text": "I can’t"},
                {"type": "refusal", "text": " do that."},
            ],
        ),
    ),
    "reasoning by DeepSeek's name": Reply(
        """\
data: {"choices":[{"delta":{"content":null,"reasoning_content":"Let me "}}]}

data: {"choices":[{"delta":{"content":null,"reasoning_content":"see."}}]}

data: {"choices":[{"delta":{"content":"4","reasoning_content":null}}]}

data: {"choices":[{"delta":{"content":""},"finish_reason":"stop"}],"usage":\
{"prompt_tokens":9,"completion_tokens":3,"prompt_cache_hit_tokens":8}}

data: [DONE]

""",
        STOP,
        said(
            "4",
            reasoning="Let me see.",
            usage=Usage(prompt_tokens=9, completion_tokens=3, cached_tokens=8),
        ),
    ),
    "the thoughts behind a call, which DeepSeek wants back": Reply(
        """\
data: {"choices":[{"delta":{"reasoning_content":"Let me "}}]}

data: {"choices":[{"delta":{"reasoning_content":"look.","reasoning":"the same"}}]}

data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f"}}]},\
"finish_reason":"tool_calls"}]}

""",
        CALLS,
        said(
            "",
            "tool_calls",
            reasoning="Let me look.",
            tool_calls=[call("a", "f", "")],
            carry={"openai_chat": {"reasoning_content": "Let me look."}},
        ),
    ),
    "reasoning by vLLM's name behind a call": Reply(
        """\
data: {"choices":[{"delta":{"reasoning":"Let me "}}]}

data: {"choices":[{"delta":{"reasoning":"look."}}]}

data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f"}}]}}]}

data: {"choices":[{"delta":{},"finish_reason":"tool_calls"}]}

""",
        CALLS,
        said(
            "",
            "tool_calls",
            reasoning="Let me look.",
            tool_calls=[call("a", "f", "")],
            carry={"openai_chat": {"reasoning": "Let me look."}},
        ),
    ),
    "reasoning by OpenRouter's and Groq's name": Reply(
        """\
data: {"choices":[{"delta":{"content":"","reasoning":"Hm","reasoning_details":\
[{"type":"reasoning.text","text":"Hm","index":0}]}}]}

data: {"choices":[{"delta":{"content":"","reasoning":"","reasoning_details":\
[{"type":"reasoning.text","signature":"s1","index":0}]}}]}

data: {"choices":[{"delta":{"content":"4","reasoning":null},"finish_reason":"stop"}]}

""",
        STOP,
        said(
            "4",
            reasoning="Hm",
            carry={
                "openai_chat": {
                    "reasoning_details": [
                        {"type": "reasoning.text", "text": "Hm", "index": 0, "signature": "s1"},
                    ]
                }
            },
        ),
    ),
    "reasoning told in details only": Reply(
        """\
data: {"choices":[{"delta":{"reasoning_details":[{"type":"reasoning.text","text":"a"},\
{"type":"reasoning.summary","summary":"b"},{"type":"reasoning.encrypted","data":"x"},\
{"text":7},"hm"]}}]}

data: {"choices":[{"delta":{"content":"4"},"finish_reason":"stop"}]}

""",
        STOP,
        said(
            "4",
            reasoning="ab",
            carry={
                "openai_chat": {
                    "reasoning_details": [
                        {"type": "reasoning.text", "text": "a"},
                        {"type": "reasoning.summary", "summary": "b"},
                        {"type": "reasoning.encrypted", "data": "x"},
                        {"text": 7},
                    ]
                }
            },
        ),
    ),
    "Mistral's content of several parts": Reply(
        """\
data: {"choices":[{"delta":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"Hm"},\
"?"]},{"type":"thinking","thinking":", so"},{"type":"thinking","thinking":null}]}}]}

data: {"choices":[{"delta":{"content":[{"type":"text","text":"4"},{"type":"reference",\
"reference_ids":[1]},"?",{"type":"text","text":"2"}]}}]}

data: {"choices":[{"delta":{"content":7}}]}

data: {"choices":[{"delta":{"content":[]},"finish_reason":"stop"}]}

""",
        STOP,
        said("42", reasoning="Hm, so", parts=[{"type": "reference", "reference_ids": [1]}]),
    ),
    "annotations": Reply(
        """\
data: {"choices":[{"delta":{"content":"a","annotations":[{"type":"url_citation","url_citation":\
{"url":"https://a.example/","title":"A","start_index":0,"end_index":1,"type":"x"}},\
{"type":"file","file":{"name":"f"}},{"type":"url_citation"},{"hm":1},"hm"]}}]}

data: {"choices":[{"delta":{"annotations":{"hm":1}},"finish_reason":"stop"}]}

""",
        STOP,
        said(
            "a",
            parts=[
                {
                    "type": "citation",
                    "url": "https://a.example/",
                    "title": "A",
                    "start_index": 0,
                    "end_index": 1,
                },
                {"type": "file", "file": {"name": "f"}},
                {"type": "url_citation"},
                {"hm": 1, "type": "annotation"},
            ],
        ),
    ),
    "whole messages instead of deltas": Reply(
        """\
data: {"choices":[{"message":{"role":"assistant","content":"Good day"},"finish_reason":null}]}

data: {"choices":[{"finish_reason":"stop"}]}

""",
        STOP,
        said("Good day"),
    ),
    "Groq's usage": Reply(
        """\
data: {"choices":[{"delta":{"content":"4"}}],"x_groq":{"id":"r"},"usage":null}

data: {"choices":[{"delta":{},"finish_reason":"stop"}],"x_groq":{"usage":\
{"prompt_tokens":3,"completion_tokens":1,"queue_time":0.1}}}

""",
        STOP,
        said("4", usage=Usage(prompt_tokens=3, completion_tokens=1)),
    ),
    "usage told again and again": Reply(
        """\
data: {"choices":[{"delta":{"content":"4"}}],"usage":{"prompt_tokens":3,"completion_tokens":1}}

data: {"choices":[{"delta":{"content":"2"},"finish_reason":"stop"}],"usage":\
{"prompt_tokens":3,"completion_tokens":2}}

data: {"choices":null,"usage":null}

""",
        STOP,
        said("42", usage=Usage(prompt_tokens=3, completion_tokens=2)),
    ),
    "lone surrogates": Reply(
        """\
data: {"choices":[{"delta":{"content":"a\\ud83d"}}],"model":"m\\ude00"}

data: {"choices":[{"delta":{"content":"\\ud83d\\ude00b","tool_calls":[{"index":0,"id":"a",\
"function":{"name":"f","arguments":"{\\"x\\":\\"\\\\ud83d"}}]}}]}

data: {"choices":[{"delta":{"content":"\\udc00","tool_calls":[{"index":0,"function":\
{"arguments":"\\\\ude00\\\\ud83d\\"}"}}]},"finish_reason":"stop"}]}

""",
        STOP,
        said(
            "a\ufffd😀b\ufffd",
            model="m\ufffd",
            finish_reason="tool_calls",
            tool_calls=[
                ToolCall("a", "f", {"x": "😀\ufffd"}, '{"x":"\\ud83d\\ude00\\ud83d"}'),
            ],
        ),
    ),
    "text after the finish mark": Reply(
        """\
data: {"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}

data: {"choices":[{"delta":{"content":"b"},"finish_reason":"length"}]}

data: {"choices":[{"delta":{"content":"c"}}]}""",
        STOP,
        said("abc", "length"),
    ),
    "empty events": Reply(
        'data\n\ndata:  \n\ndata: {}\n\ndata: {"choices":[{"finish_reason":"stop"}]}\n\n',
        STOP,
        said(),
    ),
    "anything after [DONE]": Reply(
        OPENAI
        + 'data: {"choices":[{"delta":{"content":"c"}}]}\n\ndata: {"error":"x"}\n\ndata: {\n\n',
        STOP,
        HEARD,
    ),
}

FINISH_REASONS: Final = {
    "stop": "stop",
    "eos": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "STOP": "stop",
    "whatever": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "SAFETY": "content_filter",
}
"""The words of providers, and ours."""

FAILURE: Final = '{"message":"Overloaded","type":"server_error","code":503}'

FAILED: Final[dict[str, bytes]] = {
    name: f'data: {{"choices":[{{"delta":{{"content":"Good"}}}}]}}\n\n{event}\n\n'.replace(
        "FAILURE", FAILURE
    ).encode()
    for name, event in {
        "an error object": 'data: {"error":FAILURE}',
        "an error event": "event: error\ndata: FAILURE",
        "an error event around an error object": 'event: error\ndata: {"error":FAILURE}',
        "an error beside choices": 'data: {"choices":[{"delta":{"content":""}}],"error":FAILURE}',
        "an error in a choice": 'data: {"choices":[{"error":FAILURE,"finish_reason":"error"}]}',
        "an error in another choice": 'data: {"choices":[{},{"index":1,"error":FAILURE}]}',
        "an error that is text": 'data: {"error":"Overloaded"}',
    }.items()
}
"""Replies that fail after a chunk of text."""


# Reading


@attrs.frozen
class Heard:
    """What a decoder made of a stream: chunks, then the error if there was one."""

    chunks: list[Chunk]
    error: str | None

    @property
    def completion(self) -> Completion | None:
        builder = CompletionBuilder()
        whole = [completion for chunk in self.chunks if (completion := builder.add(chunk))]
        assert len(whole) <= 1
        return whole[0] if whole else None


def hear(pieces: list[bytes], make: Make = ChatDecoder) -> Heard:
    decoder, chunks = make(), list[Chunk]()
    try:
        for piece in pieces:
            chunks += decoder.receive_data(piece)
        chunks += decoder.end_of_data()
    except (ProviderError, RemoteProtocolError) as exc:
        return Heard(chunks, exc.code)
    return Heard(chunks, None)


def one_by_one(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@pytest.mark.parametrize("case", REPLIES)
def test_a_reply_is_heard(case: str) -> None:
    reply = REPLIES[case]
    heard = hear([reply.data])

    assert heard.completion == reply.heard
    assert heard.error is None
    assert [chunk.is_final for chunk in heard.chunks].index(True) == len(heard.chunks) - 1


def test_every_part_has_a_type() -> None:
    event = b'data: {"choices":[{"delta":{"content":[{"hm":1}]}}]}\n\n'

    assert all("type" in part for chunk in hear([event]).chunks for part in chunk.parts)


@pytest.mark.parametrize("case", REPLIES)
def test_the_fragments_of_a_call_add_up_to_it(case: str) -> None:
    chunks = hear([REPLIES[case].data]).chunks
    texts: dict[int, str] = {}
    for args in (args for chunk in chunks for args in chunk.tool_args):
        texts[args.index] = texts.get(args.index, "") + args.text

    assert list(texts) == list(range(len(texts)))
    assert list(texts.values()) == [call.raw for call in chunks[-1].tool_calls]


def test_only_the_last_chunk_is_empty() -> None:
    for reply in REPLIES.values():
        for chunk in hear([reply.data]).chunks[:-1]:
            assert chunk.content or chunk.reasoning or chunk.tool_args or chunk.parts


@pytest.mark.parametrize("case", FAILED)
def test_an_error_in_mid_stream_is_an_error_after_what_was_said(case: str) -> None:
    heard = hear(one_by_one(FAILED[case]))

    assert [chunk.content for chunk in heard.chunks] == ["Good"]
    assert heard.error == "stream_error"


@pytest.mark.parametrize("case", FAILED)
def test_an_error_is_told_although_its_blank_line_is_missing(case: str) -> None:
    heard = hear(one_by_one(FAILED[case].rstrip()))

    assert [chunk.content for chunk in heard.chunks] == ["Good"]
    assert heard.error == "stream_error"


@pytest.mark.parametrize("reason", ["error", "insufficient_system_resource"])
def test_a_finish_reason_may_be_a_failure(reason: str) -> None:
    decoder = ChatDecoder()
    event = f'data: {{"choices":[{{"delta":{{}},"finish_reason":"{reason}"}}]}}\n\n'
    decoder.receive_data(event.encode())

    with pytest.raises(ProviderError) as caught:
        decoder.end_of_data()

    assert caught.value.detail is not None
    assert caught.value.detail["words"] == f"finish reason {reason}"


@pytest.mark.parametrize("reason", FINISH_REASONS)
def test_the_provider_s_word_is_kept_beside_ours(reason: str) -> None:
    event = f'data: {{"choices":[{{"delta":{{"content":"a"}},"finish_reason":"{reason}"}}]}}\n\n'

    final = hear([event.encode()]).completion

    assert final is not None
    assert (final.finish_reason, final.raw_finish_reason) == (FINISH_REASONS[reason], reason)


# Any split of the same bytes gives the same chunks


def check_splits(data: bytes, make: Make = ChatDecoder) -> None:
    whole = hear([data], make)

    assert hear(one_by_one(data), make) == whole
    assert all(hear(cut(data, [place]), make) == whole for place in range(len(data)))


@pytest.mark.parametrize("case", REPLIES)
def test_any_split_of_a_reply_gives_the_same_chunks(case: str) -> None:
    check_splits(REPLIES[case].data)


@PROPERTY
@given(st.sampled_from(list(REPLIES)), st.lists(st.integers(0, 5000), max_size=20))
def test_many_pieces_give_the_same_chunks_too(case: str, places: list[int]) -> None:
    data = REPLIES[case].data

    assert hear(cut(data, places)) == hear([data])


@pytest.mark.parametrize("case", FAILED)
def test_any_split_of_a_failed_reply_gives_the_same_chunks(case: str) -> None:
    check_splits(FAILED[case])
    check_splits(FAILED[case] + b": bye\n\n")


class EndsWithEachPiece(ChatDecoder):
    def receive_data(self, data: bytes) -> list[Chunk]:
        self._frames = SSEDecoder()
        return super().receive_data(data)


class DropsWhatCameBefore(ChatDecoder):
    def receive_data(self, data: bytes) -> list[Chunk]:
        return super().receive_data(data)[-1:]


@pytest.mark.parametrize("wrong", [EndsWithEachPiece, DropsWhatCameBefore])
def test_a_decoder_that_depends_on_the_pieces_is_found_out(wrong: Make) -> None:
    with pytest.raises(AssertionError):
        check_splits(OPENAI.encode(), wrong)


# L10: a stream without its finish mark is an error, not a short answer


def check_cuts(reply: Reply, make: Make = ChatDecoder) -> None:
    whole = hear([reply.data], make).chunks
    for length in range(len(reply.data) + 1):
        heard = hear([reply.data[:length]], make)

        if length < reply.finished_at:
            assert heard.error is not None
        elif reply.data[:length].endswith(b"\n\n"):
            assert heard.error is None
        if heard.error is not None:
            assert heard.error == "stream_cut" or not heard.chunks
            assert heard.error in ("stream_cut", "empty_reply")
            assert not any(chunk.is_final for chunk in heard.chunks)
            assert heard.chunks == whole[: len(heard.chunks)]
        else:
            assert heard.chunks[-1].is_final


@pytest.mark.parametrize("case", REPLIES)
def test_a_reply_cut_before_its_finish_mark_is_an_error(case: str) -> None:
    check_cuts(REPLIES[case])


@pytest.mark.parametrize("case", FAILED)
def test_a_failed_reply_cut_anywhere_is_an_error(case: str) -> None:
    for length in range(len(FAILED[case])):
        heard = hear(one_by_one(FAILED[case][:length]))

        assert heard.error in ("stream_cut", "stream_error", "empty_reply")
        assert not any(chunk.is_final for chunk in heard.chunks)


class TakesWhatThereIs(ChatDecoder):
    def end_of_data(self) -> list[Chunk]:
        try:
            return super().end_of_data()
        except RemoteProtocolError:
            return [self._reply.final()]


class WaitsForDone(ChatDecoder):
    def end_of_data(self) -> list[Chunk]:
        if not self.is_complete:
            assert isinstance(self._reply, ChatReply)
            self._reply._mark = FinishMark()
        return super().end_of_data()


@pytest.mark.parametrize("wrong", [TakesWhatThereIs, WaitsForDone])
def test_a_decoder_that_is_wrong_about_the_finish_mark_is_found_out(wrong: Make) -> None:
    with pytest.raises(AssertionError):
        check_cuts(REPLIES["text, with usage in a last chunk without choices"], wrong)


def test_a_cut_stream_may_be_asked_for_again() -> None:
    decoder = ChatDecoder()
    decoder.receive_data(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n')
    with pytest.raises(RemoteProtocolError, match="without a finish_reason") as caught:
        decoder.end_of_data()

    assert caught.value.code == "stream_cut"
    assert caught.value.retryable


def test_the_decoder_tells_how_far_it_is() -> None:
    decoder = ChatDecoder()
    seen = []
    for event in OPENAI.split("\n\n"):
        decoder.receive_data(event.encode() + b"\n\n")
        seen.append((decoder.is_finished, decoder.is_complete))

    assert seen == [*[(False, False)] * 3, *[(True, False)] * 2, *[(True, True)] * 2]
    assert decoder.end_of_data() == []


# What is malformed

BROKEN: Final[dict[str, str]] = {
    "text": "hello",
    "cut JSON": '{"choices":[',
    "a list": "[1]",
    "a number": "1",
    "a number out of range": '{"usage":1e999}',
    "nesting": '{"usage":' + "[" * 100_000,
    "nesting beside a lone surrogate": '{"model":"\\ud800","usage":' + "[" * 200 + "]" * 200 + "}",
}


def broken(case: str) -> bytes:
    return f"data: {BROKEN[case]}\n\n".encode("utf-8", "surrogateescape")


@pytest.mark.parametrize("case", BROKEN)
def test_an_event_that_is_malformed_is_an_error_without_its_words(case: str) -> None:
    with pytest.raises(RemoteProtocolError, match=r"is not (JSON|the expected JSON) \(") as caught:
        ChatDecoder().receive_data(broken(case))

    assert caught.value.code == "bad_stream"
    assert caught.value.retryable
    assert "hello" not in str(caught.value)


@pytest.mark.parametrize("case", BROKEN)
def test_what_goes_wrong_behind_the_finish_mark_is_told_unless_the_reply_has_ended(
    case: str,
) -> None:
    finish = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
    failure = f"event: error\ndata: {FAILURE}\n\n".encode()

    assert hear([finish, broken(case)]).error == "bad_stream"
    assert hear([finish, failure]).error == "stream_error"
    assert hear([finish, b"data: [DONE]\n\n", broken(case), failure]).error is None


DEEP: Final = "[" * 200 + "]" * 200


@pytest.mark.parametrize(
    "event",
    [
        'data: {"choices":[{"delta":{"tool_calls":[{"id":"a","function":{"name":"f","arguments":'
        f'{{"x":{DEEP}}}}}}}]}}}}]}}\n\n',
        f'event: error\ndata: {{"x":{DEEP}}}\n\n',
    ],
    ids=["arguments as an object", "an error event"],
)
def test_nesting_is_malformed_wherever_it_is(event: str) -> None:
    with pytest.raises((RemoteProtocolError, ProviderError)):
        ChatDecoder().receive_data(event.encode())


@pytest.mark.parametrize(
    "delta",
    [
        f'"content":[{{"type":"x","x":{DEEP}}}]',
        f'"annotations":[{{"type":"x","x":{DEEP}}}]',
        f'"reasoning_details":[{{"type":"x","x":{DEEP}}}]',
    ],
    ids=["a part", "an annotation", "a detail"],
)
def test_what_is_handed_on_is_nested_no_deeper_than_readers_may_take(delta: str) -> None:
    event = f'data: {{"choices":[{{"delta":{{{delta}}}}}]}}\n\n'

    with pytest.raises(RemoteProtocolError):
        ChatDecoder().receive_data(event.encode())


# Events too large

LARGE: Final = b'data: {"choices":[{"delta":{"content":"' + b"x" * 100 + b'"}}]}\n\n'
FINISHED: Final = b'data: {"choices":[{"finish_reason":"stop"}]}\n\n'


def small() -> ChatDecoder:
    return ChatDecoder(max_event_bytes=80)


def test_an_event_too_large_is_an_error() -> None:
    for place in range(len(LARGE)):
        assert hear(cut(LARGE, [place]), small) == Heard([], "too_large")
    assert hear([LARGE, FINISHED]).error is None


def test_an_event_too_large_behind_the_finish_mark_is_told_unless_the_reply_has_ended() -> None:
    done = b"data: [DONE]\n\n"

    assert hear([FINISHED, *one_by_one(LARGE), done], small) == Heard([], "too_large")
    assert hear([FINISHED, done, *one_by_one(LARGE)], small).error is None


def test_what_came_before_an_event_too_large_is_given_whatever_the_pieces() -> None:
    check_splits(b'data: {"choices":[{"delta":{"content":"Good"}}]}\n\n' + LARGE, small)


# Answers that were not streamed

ANSWER: Final = b"""\
{"id":"x","object":"chat.completion","created":1,"model":"gpt-4o-mini","choices":[{"index":0,
 "message":{"role":"assistant","content":"Good day","refusal":null,"annotations":[],
  "reasoning_content":"Hm","tool_calls":[
   {"id":"a","type":"function","function":{"name":"look","arguments":"{\\"at\\": \\"Bern\\"}"}},
   {"id":"b","type":"function","function":{"name":"look","arguments":""}}]},
 "logprobs":null,"finish_reason":"tool_calls"}],
 "usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}
"""


def folded(chunks: list[Chunk]) -> Completion | None:
    return Heard(chunks, None).completion


def test_a_whole_answer_becomes_its_text_and_the_final_chunk() -> None:
    chunks = decode_completion(ANSWER)

    assert [chunk.content for chunk in chunks] == ["Good day", ""]
    assert folded(chunks) == said(
        "Good day",
        "tool_calls",
        reasoning="Hm",
        tool_calls=[call("a", "look", '{"at": "Bern"}'), call("b", "look", "")],
        usage=Usage(prompt_tokens=5, completion_tokens=2),
        model="gpt-4o-mini",
        carry={"openai_chat": {"reasoning_content": "Hm"}},
    )


def test_an_empty_answer_is_an_answer() -> None:
    body = b'{"choices":[{"message":{"content":null},"finish_reason":"stop"}]}'

    assert folded(decode_completion(body)) == said()


def test_every_cut_of_an_answer_is_an_error() -> None:
    for length in range(len(ANSWER.rstrip())):
        with pytest.raises(RemoteProtocolError):
            decode_completion(ANSWER[:length])


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"choices":[]}',
        b'{"choices":[{"message":{"content":"Good"}}]}',
        b'{"choices":[{"message":{"content":"Good"},"finish_reason":null}]}',
    ],
)
def test_an_answer_without_a_finish_reason_is_an_error(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="no finish_reason") as caught:
        decode_completion(body)

    assert caught.value.code == "bad_answer"


@pytest.mark.parametrize("body", [b"", b"[DONE]", b"<html>", b"[]", b'"Good day"', b"\xff"])
def test_what_is_no_answer_at_all_is_an_error(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match=r"not .*JSON"):
        decode_completion(body)


def test_an_error_in_place_of_an_answer_is_an_error() -> None:
    with pytest.raises(ProviderError):
        decode_completion(f'{{"error":{FAILURE}}}'.encode())


# Usage


@pytest.mark.parametrize("usage", [None, [], "12", 12])
def test_usage_that_is_no_object_is_none(usage: Any) -> None:
    assert read_usage(usage) is None


@pytest.mark.parametrize(
    ("given", "usage"),
    [
        ({}, Usage()),
        (
            {"prompt_tokens": 3, "completion_tokens": 2.0},
            Usage(prompt_tokens=3, completion_tokens=2),
        ),
        ({"prompt_tokens": None, "completion_tokens": "2"}, Usage(completion_tokens=2)),
        ({"prompt_tokens": True, "completion_tokens": -1}, Usage()),
        ({"prompt_tokens_details": {"cached_tokens": 4}}, Usage(cached_tokens=4)),
        ({"prompt_tokens_details": None, "prompt_cache_hit_tokens": 4}, Usage(cached_tokens=4)),
        ({"prompt_tokens_details": [], "completion_tokens_details": "x"}, Usage()),
        (
            {"completion_tokens_details": {"reasoning_tokens": 5}},
            Usage(completion_tokens=5, reasoning_tokens=5),
        ),
    ],
)
def test_usage_is_read_from_whatever_counts_there_are(given: dict[str, Any], usage: Usage) -> None:
    assert read_usage(given) == usage


# Citations


def test_addresses_beside_the_choices_are_citations_once() -> None:
    """xAI gives them at the end, others with every token."""
    choices = [{"delta": {"content": "a"}}]
    told = [
        {"choices": choices, "citations": ["u", 1, "u"]},
        {"choices": choices, "citations": ["u", "v"]},
        {"choices": [{"finish_reason": "stop"}], "citations": "none"},
    ]
    heard = hear([b"data: " + json.dumps(event).encode() + b"\n\n" for event in told])
    parts = [part for chunk in heard.chunks for part in chunk.parts]

    assert parts == [{"type": "citation", "url": "u"}, {"type": "citation", "url": "v"}]


# What goes back


def test_what_a_reply_gives_to_carry_goes_back_in_the_next_request() -> None:
    reply = hear([REPLIES["the thoughts behind a call, which DeepSeek wants back"].data]).completion
    assert reply is not None

    message = {"role": "assistant", "content": "", "flowtrio": {"carry": reply.carry}}

    assert encode_message(message)["reasoning_content"] == reply.reasoning
