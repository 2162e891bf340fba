"""Gemini's replies and requests, the requests held to the SDK's own types."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
from typing import Any, Final

import pydantic
import pytest
from google.genai import types
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtrio._core._chunks import Chunk, ToolCall, Usage
from flowtrio._core._exceptions import ProviderError, RemoteProtocolError
from flowtrio.wire._gemini import decode_completion, encode_request, gemini_decoder

PROPERTY: Final = settings(max_examples=150, deadline=None, database=None, derandomize=True)


def payload(*parts: Any, **candidate: Any) -> dict[str, Any]:
    content = {"role": "model", "parts": list(parts)}
    return {"candidates": [{"content": content, **candidate}], "modelVersion": "gem-1"}


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\r\n\r\n"


def hear(*pieces: bytes) -> list[Chunk]:
    decoder = gemini_decoder()
    chunks = [chunk for piece in pieces for chunk in decoder.receive_data(piece)]
    return chunks + decoder.end_of_data()


def says(*parts: Any, finish: str = "STOP", **candidate: Any) -> list[Chunk]:
    return hear(*(event(payload(part)) for part in parts), END(finish, **candidate))


def END(reason: str = "STOP", **candidate: Any) -> bytes:
    return event(payload(finishReason=reason, **candidate))


def parts_of(chunks: list[Chunk]) -> list[dict[str, Any]]:
    return [part for chunk in chunks for part in chunk.parts]


# Replies


def test_text_and_thoughts_come_as_they_are_written() -> None:
    usage = {
        "promptTokenCount": 7,
        "toolUsePromptTokenCount": 2,
        "candidatesTokenCount": 3,
        "thoughtsTokenCount": 5,
        "cachedContentTokenCount": 4,
        "totalTokenCount": 17,
    }
    chunks = hear(
        event(payload({"text": "hm", "thought": True})),
        event(payload({"text": "Zü"}, {"text": ""}, {"odd": 1})),
        event({**payload({"text": "rich"}, finishReason="STOP"), "usageMetadata": usage}),
    )

    assert [(chunk.content, chunk.reasoning) for chunk in chunks] == [
        ("", "hm"),
        ("Zü", ""),
        ("rich", ""),
        ("", ""),
    ]
    final = chunks[-1]
    assert (final.finish_reason, final.raw_finish_reason, final.model) == ("stop", "STOP", "gem-1")
    assert final.usage == Usage(
        prompt_tokens=9, completion_tokens=8, reasoning_tokens=5, cached_tokens=4
    )


def test_usage_that_is_none_is_none() -> None:
    strange = {"promptTokenCount": -1, "candidatesTokenCount": True}

    assert says({"text": "a"})[-1].usage is None
    assert hear(event({**payload(finishReason="STOP"), "usageMetadata": strange}))[-1].usage == (
        Usage()
    )


def test_calls_come_whole_with_their_signatures() -> None:
    first = {"functionCall": {"id": "f1", "name": "look", "args": {"at": "Ü"}}}
    chunks = says(
        {**first, "thoughtSignature": "c2ln"},
        {"functionCall": {"name": "look", "args": {"at": "R"}}},
        {"functionCall": {"name": "now"}},
    )

    assert [a.text for chunk in chunks for a in chunk.tool_args] == [
        '{"at": "Ü"}',
        '{"at": "R"}',
        "{}",
    ]
    carry = {"gemini": {"signature": "c2ln"}}
    assert chunks[-1].tool_calls == [
        ToolCall("f1", "look", {"at": "Ü"}, '{"at": "Ü"}', carry),
        ToolCall("", "look", {"at": "R"}, '{"at": "R"}'),
        ToolCall("", "now", {}, "{}"),
    ]
    assert chunks[-1].finish_reason == "tool_calls"


def test_what_is_signed_goes_back_as_it_came_and_text_in_one_piece() -> None:
    signed = {"text": "!", "thoughtSignature": "c2ln"}
    chunks = says(
        {"text": "h", "thought": True},
        {"text": "m", "thought": True},
        *({"text": "ab"},) * 2,
        signed,
    )

    assert chunks[-1].carry == {
        "gemini": {"parts": [{"text": "hm", "thought": True}, {"text": "abab"}, signed]}
    }
    assert says({"text": "ab"})[-1].carry is None
    assert says({"text": 5}, {"text": 5}, {"text": ""}, {"a": 1})[-1].carry is not None


def test_programs_that_run_at_the_provider_are_calls_of_its_own() -> None:
    chunks = says(
        {"executableCode": {"language": "PYTHON", "code": "1+1"}},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "2"}},
        {"executableCode": {"id": "x", "language": "PYTHON", "code": "1/0"}},
        {"codeExecutionResult": {"id": "x", "outcome": "OUTCOME_FAILED", "output": "?"}},
    )
    call = {"type": "server_tool_call", "name": "code_execution"}

    assert parts_of(chunks) == [
        {**call, "id": "code_1", "arguments": {"language": "PYTHON", "code": "1+1"}},
        {
            "type": "server_tool_result",
            "id": "code_1",
            "result": {"outcome": "OUTCOME_OK", "output": "2"},
        },
        {**call, "id": "x", "arguments": {"language": "PYTHON", "code": "1/0"}},
        {
            "type": "server_tool_result",
            "id": "x",
            "result": {"outcome": "OUTCOME_FAILED", "output": "?"},
            "error": "OUTCOME_FAILED",
        },
    ]


def test_files_are_parts() -> None:
    chunks = says(
        {"inlineData": {"mimeType": "image/png", "data": "aQ=="}},
        {"fileData": {"fileUri": "https://files.example/a", "mimeType": "text/plain"}},
    )

    assert parts_of(chunks) == [
        {"type": "file", "mime_type": "image/png", "data": "aQ=="},
        {"type": "file", "mime_type": "text/plain", "url": "https://files.example/a"},
    ]


def test_what_an_answer_rests_on_is_told_once() -> None:
    grounds = {
        "groundingChunks": [
            {"web": {"uri": "http://a", "title": "A"}},
            {"retrievedContext": {"uri": None, "title": "B", "text": "b"}},
            "odd",
        ]
    }
    cites = {"citationSources": [{"uri": "http://c", "title": "C"}, "odd"]}
    chunks = hear(
        event(payload({"text": "a"}, groundingMetadata=grounds)),
        event(payload(groundingMetadata=grounds, citationMetadata=cites)),
        END(citationMetadata={"citations": "odd"}, groundingMetadata={"groundingChunks": 1}),
    )

    assert parts_of(chunks) == [
        {"type": "citation", "url": "http://a", "title": "A", "text": None},
        {"type": "citation", "url": None, "title": "B", "text": "b"},
        {"type": "citation", "url": "http://c", "title": "C"},
    ]


@pytest.mark.parametrize("odd", [{}, [], [1], 3, True])
def test_a_citation_of_odd_types_tells_nothing(odd: Any) -> None:
    grounds = {"groundingChunks": [{"web": {"uri": odd, "title": "A", "text": odd}}]}
    cites = {"citations": [{"uri": "http://c", "title": odd}]}
    chunks = hear(END(citationMetadata=cites, groundingMetadata=grounds))

    assert parts_of(chunks) == [
        {"type": "citation", "url": None, "title": "A", "text": None},
        {"type": "citation", "url": "http://c", "title": None},
    ]


REASONS: Final = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "ESCALATION": "content_filter",
    "MODEL_ARMOR": "content_filter",
}
"""Google's reasons for an end that is an answer, or one that was held back."""

FAILURES: Final = {
    "OTHER": True,
    "MALFORMED_FUNCTION_CALL": True,
    "MALFORMED_RESPONSE": True,
    "UNEXPECTED_TOOL_CALL": True,
    "TOO_MANY_TOOL_CALLS": True,
    "IMAGE_OTHER": True,
    "NO_IMAGE": True,
    "MISSING_THOUGHT_SIGNATURE": False,
    "PUP_LIMITED_DISABLED": False,
}
"""Its other reasons, and whether another attempt may help."""


def test_a_reason_of_servers_that_imitate_google_is_known() -> None:
    call = {"functionCall": {"name": "look", "args": {}}}
    final = says(call, finish="FUNCTION_CALL")[-1]

    assert (final.raw_finish_reason, final.finish_reason) == ("FUNCTION_CALL", "tool_calls")
    assert [call.name for call in final.tool_calls] == ["look"]


@pytest.mark.parametrize("raw", REASONS)
def test_why_it_stopped_is_told_in_both_words(raw: str) -> None:
    final = says({"text": "a"}, finish=raw)[-1]

    assert (final.raw_finish_reason, final.finish_reason) == (raw, REASONS[raw])


IN_THE_SDK: Final = {reason.value for reason in types.FinishReason}
NEITHER: Final = sorted(IN_THE_SDK - REASONS.keys() - {"FINISH_REASON_UNSPECIFIED"})


@pytest.mark.parametrize("raw", [*dict.fromkeys([*FAILURES, *NEITHER, "new"])])
def test_any_other_reason_is_an_error(raw: str) -> None:
    decoder = gemini_decoder()
    call = {"functionCall": {"name": "look", "args": {}}}
    quoted = payload({"text": "a"}, call, finishReason=raw, finishMessage="print(secret)")
    heard = decoder.receive_data(event(quoted))

    assert [chunk.content for chunk in heard] == ["a", ""]
    for _ in range(2):
        with pytest.raises(
            ProviderError, match=f"without an answer: finish reason {raw}$"
        ) as caught:
            decoder.end_of_data()
    assert caught.value.code == "stream_error"
    assert caught.value.retryable is FAILURES.get(raw, False)
    assert caught.value.detail is not None
    assert caught.value.detail["code"] == raw
    assert "secret" not in repr(caught.value) + repr(caught.value.detail)
    with pytest.raises(ProviderError, match=raw):
        decode_completion(json.dumps(quoted).encode())


@pytest.mark.parametrize("raw", ["a\nb", "x" * 65, "é"])
def test_a_reason_that_is_no_word_is_not_repeated(raw: str) -> None:
    with pytest.raises(ProviderError, match=r"finish reason unknown$"):
        says({"text": "a"}, finish=raw)


def test_a_blocked_prompt_is_an_answer_held_back() -> None:
    final = hear(event({"promptFeedback": {"blockReason": "WHATEVER"}}))[-1]

    assert (final.finish_reason, final.raw_finish_reason) == ("content_filter", "WHATEVER")
    assert says({"text": "a"})[-1].finish_reason == "stop"
    blocked = hear(
        event(payload({"text": "a"})), event({"promptFeedback": {"blockReason": "OTHER"}})
    )
    assert blocked[-1].finish_reason == "content_filter"
    with pytest.raises(RemoteProtocolError) as caught:
        hear(event({"promptFeedback": {"blockReason": 5}}))
    assert caught.value.code == "empty_reply"


def test_of_several_candidates_the_first_is_heard() -> None:
    second = {"index": 1, "content": {"parts": [{"text": "B"}]}, "finishReason": "STOP"}
    both = {"candidates": [second, {"index": 0, "content": {"parts": [{"text": "a"}]}}]}
    chunks = hear(event(both), event({"candidates": [second]}), b"data:\n\n", END())

    assert "".join(chunk.content for chunk in chunks) == "a"


def test_an_unspecified_reason_is_no_finish_mark_and_of_several_the_gravest_stands() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        says({"text": "a"}, finish="FINISH_REASON_UNSPECIFIED")
    assert caught.value.code == "stream_cut"
    assert hear(END("MAX_TOKENS"), END("STOP"))[-1].raw_finish_reason == "MAX_TOKENS"


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [
        ({"code": 503, "message": "busy", "status": "UNAVAILABLE"}, "stream_error", True),
        ({"code": 429, "message": "slow", "status": "X"}, "rate_limited", True),
        ({"code": 400, "message": "bad", "status": "INVALID_ARGUMENT"}, "stream_error", False),
    ],
)
def test_an_error_in_mid_stream_is_told(error: Any, code: str, retryable: bool) -> None:
    with pytest.raises(ProviderError) as caught:
        hear(event(payload({"text": "a"})), event({"error": error}))

    assert (caught.value.code, caught.value.retryable) == (code, retryable)


@pytest.mark.parametrize("data", [b"{", b"[1]", b"5"])
def test_what_is_malformed_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="not the expected JSON"):
        hear(b"data: " + data + b"\n\n")


def test_a_whole_answer_is_heard_as_a_streamed_one() -> None:
    chunks = decode_completion(json.dumps(payload({"text": "ab"}, finishReason="STOP")).encode())

    assert [chunk.content for chunk in chunks] == ["ab", ""]
    assert chunks[-1].is_final
    with pytest.raises(RemoteProtocolError, match="no finishReason"):
        decode_completion(b"{}")


WHOLE: Final = b"".join(
    [
        event(payload({"text": "hm", "thought": True})),
        event(payload({"text": "Zürich 😀"})),
        event(payload({"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "c2lnbmVk"})),
        END(),
    ]
)


@PROPERTY
@given(st.lists(st.integers(0, len(WHOLE)), max_size=20))
def test_pieces_make_no_difference(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(WHOLE)]

    assert hear(*(WHOLE[a:b] for a, b in itertools.pairwise(places))) == hear(WHOLE)


def test_an_event_too_large_behind_the_finish_mark_is_told() -> None:
    decoder = gemini_decoder(1000)
    decoder.receive_data(END())

    with pytest.raises(RemoteProtocolError) as caught:
        decoder.receive_data(b"data: " + b"x" * 2000)
    assert caught.value.code == "too_large"


KEYS: Final = st.sampled_from(
    [
        *("candidates", "content", "parts", "text", "thought", "functionCall", "name", "args"),
        *("executableCode", "codeExecutionResult", "inlineData", "fileData", "finishReason"),
        *("groundingMetadata", "groundingChunks", "web", "citationMetadata", "citations", "uri"),
        *("usageMetadata", "promptFeedback", "error", "id", "index", "thoughtSignature"),
    ]
)
ANYTHING: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.text("aß\0"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
CANDIDATES: Final = st.builds(
    lambda parts, rest: {"candidates": [{"content": {"parts": parts}, **rest}]},
    st.lists(st.dictionaries(KEYS, ANYTHING, max_size=3), max_size=4),
    st.dictionaries(KEYS, ANYTHING, max_size=3),
)


@settings(PROPERTY, max_examples=400)
@given(st.lists(ANYTHING | CANDIDATES, max_size=5), st.binary(max_size=8))
def test_only_our_errors_come_out_of_events_of_any_shape(values: list[Any], junk: bytes) -> None:
    stream = b"".join(map(event, values)) + junk
    with contextlib.suppress(RemoteProtocolError, ProviderError):
        assert hear(stream, END())[-1].is_final


# Requests

HELLO: Final = [{"role": "user", "content": "hello"}]
TOOL: Final = {
    "type": "function",
    "function": {"name": "look", "description": "Look.", "parameters": {"type": "object"}},
}


def encode(messages: Any = HELLO, tools: Any = None, **options: Any) -> dict[str, Any]:
    """A request's body that the SDK's types agree to."""
    body = encode_request(messages, tools, options)
    check(body)
    return body


def check(body: dict[str, Any]) -> None:
    """The SDK has no type of the whole body: hold each part of it to its own."""
    kinds = {
        "contents": list[types.Content],
        "systemInstruction": types.Content,
        "tools": list[types.Tool],
        "generationConfig": types.GenerationConfig,
        "safetySettings": list[types.SafetySetting],
    }
    for key, value in body.items():
        pydantic.TypeAdapter(kinds[key]).validate_python(value)


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "parts": list(parts)}


def call(id: str, name: str, arguments: str, **rest: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": id, "type": "function", "function": function, **rest}


def test_a_single_turn() -> None:
    assert encode() == {"contents": [user({"text": "hello"})]}
    with pytest.raises(pydantic.ValidationError):
        check({"contents": [user({"txt": "hello"})]})


def test_instructions_stand_apart_and_neighbours_are_one_message() -> None:
    system = [{"role": "system", "content": "Be brief."}, {"role": "developer", "content": "Now."}]
    body = encode([*system, *HELLO, {"role": "user", "content": ""}, *HELLO])

    assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}, {"text": "Now."}]}
    assert body["contents"] == [user({"text": "hello"}, {"text": "(no text)"}, {"text": "hello"})]
    assert encode([{"role": "user", "content": ""}, *HELLO])["contents"] == [
        user({"text": "(no text)"}, {"text": "hello"})
    ]


def test_a_round_of_parallel_tools_from_another_providers_history() -> None:
    signed = {"flowtrio": {"carry": {"gemini": {"signature": "c2ln"}}}}
    calls = [call("c1", "look", '{"at":1}', **signed), call("c2", "now", "")]
    body = encode(
        [
            *HELLO,
            {"role": "assistant", "content": "I look.", "tool_calls": calls},
            {"role": "tool", "tool_call_id": "c1", "content": '{"sky":"blue"}'},
            {"role": "tool", "tool_call_id": "c2", "content": "noon"},
            {"role": "tool", "tool_call_id": "c3", "content": "[1]"},
        ],
        [TOOL, {"type": "function", "function": {"name": "now"}}],
    )

    assert body["contents"][1:] == [
        {
            "role": "model",
            "parts": [
                {"text": "I look."},
                {"functionCall": {"name": "look", "args": {"at": 1}}, "thoughtSignature": "c2ln"},
                {"functionCall": {"name": "now", "args": {}}},
            ],
        },
        user(
            {"functionResponse": {"name": "look", "response": {"sky": "blue"}}},
            {"functionResponse": {"name": "now", "response": {"result": "noon"}}},
            {"functionResponse": {"name": "c3", "response": {"result": [1]}}},
        ),
    ]
    assert body["tools"] == [
        {
            "functionDeclarations": [
                {
                    "name": "look",
                    "description": "Look.",
                    "parametersJsonSchema": {"type": "object"},
                },
                {"name": "now", "description": ""},
            ]
        }
    ]


def test_what_was_carried_goes_back_unchanged_and_results_under_the_providers_ids() -> None:
    parts = [
        {"text": "hm", "thought": True},
        {"functionCall": {"id": "f1", "name": "look", "args": {}}, "thoughtSignature": "c2ln"},
        {"functionCall": {"name": "look", "args": {}}},
    ]
    reply = {
        "role": "assistant",
        "content": None,
        "tool_calls": [call("own_1", "look", "{}"), call("own_2", "look", "{}")],
        "flowtrio": {"carry": {"gemini": {"parts": parts}}},
    }
    results = [{"role": "tool", "tool_call_id": f"own_{n}", "content": "{}"} for n in (1, 2)]
    contents = encode([*HELLO, reply, *results])["contents"]

    assert contents[1] == {"role": "model", "parts": parts}
    assert contents[2]["parts"] == [
        {"functionResponse": {"name": "look", "id": "f1", "response": {}}},
        {"functionResponse": {"name": "look", "response": {}}},
    ]


def test_results_go_to_the_name_that_the_provider_gave() -> None:
    """The conversation's name was made fit; what was carried still has the other."""
    parts = [{"functionCall": {"name": "functions.look", "args": {}}}, {"functionCall": {}}]
    reply = {
        "role": "assistant",
        "content": None,
        "tool_calls": [call("a", "functions_look", "{}"), call("b", "look", "{}")],
        "flowtrio": {"carry": {"gemini": {"parts": parts}}},
    }
    results = [{"role": "tool", "tool_call_id": id, "content": "{}"} for id in ("a", "b")]
    contents = encode([*HELLO, reply, *results])["contents"]

    assert contents[2]["parts"] == [
        {"functionResponse": {"name": "functions.look", "response": {}}},
        {"functionResponse": {"name": "look", "response": {}}},
    ]


@pytest.mark.parametrize("carry", [None, {"anthropic": {}}, {"gemini": 5}])
def test_what_others_carried_is_not_sent(carry: Any) -> None:
    said = {"role": "assistant", "content": "x", "flowtrio": {"carry": carry}}

    assert encode([*HELLO, said])["contents"][1] == {"role": "model", "parts": [{"text": "x"}]}


def test_what_was_carried_of_other_calls_than_the_conversation_has_stays_behind() -> None:
    carry = {"gemini": {"parts": [{"functionCall": {"name": "look", "args": {}}}] * 2}}
    reply = {
        "role": "assistant",
        "content": None,
        "tool_calls": [call("a", "look", "{}")],
        "flowtrio": {"carry": carry},
    }

    body = encode([*HELLO, reply, {"role": "tool", "tool_call_id": "a", "content": "fine"}])

    assert len(body["contents"][1]["parts"]) == 1


def test_a_name_that_google_takes_from_nobody_is_sent_as_another() -> None:
    written = {"functionCall": {"name": "l o o k", "args": {}}, "thoughtSignature": "c2lnbmVk"}
    carried = {"flowtrio": {"carry": {"gemini": {"parts": [written]}}}}
    result = {"role": "tool", "tool_call_id": "a", "content": "{}"}
    for private in ({}, carried):
        reply = {"role": "assistant", "tool_calls": [call("a", "3d_view", "{}")], **private}
        asked, answered = encode([*HELLO, reply, result])["contents"][1:]

        assert asked["parts"][0]["functionCall"]["name"] == "_3d_view"
        assert answered["parts"][0]["functionResponse"]["name"] == "_3d_view"


def test_the_user_is_first_and_empty_instructions_are_none() -> None:
    greeting = {"role": "assistant", "content": "How can I help?"}
    body = encode([{"role": "system", "content": ""}, greeting, *HELLO])

    assert [content["role"] for content in body["contents"]] == ["user", "model", "user"]
    assert "systemInstruction" not in body


def test_images_by_address_and_as_data() -> None:
    images = [
        {"type": "image_url", "image_url": {"url": url}}
        for url in ("data:image/png;base64,iVBORw0KGgo=", "https://files.example/a")
    ]

    assert encode([{"role": "user", "content": images}])["contents"] == [
        user(
            {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}},
            {"fileData": {"fileUri": "https://files.example/a"}},
        )
    ]
    with pytest.raises(ProviderError, match="no content part of type 'input_audio'"):
        encode([{"role": "user", "content": [{"type": "input_audio"}]}])
    with pytest.raises(ProviderError, match="data: URL"):
        encode([{"role": "user", "content": [copy.deepcopy(images[0]) | BROKEN]}])


BROKEN: Final = {"image_url": {"url": "data:image/png,x"}}


def test_options_go_where_they_belong() -> None:
    safety = [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]
    search = {"tools": [{"googleSearch": {}}]}
    body = encode_request(
        HELLO,
        [TOOL],
        {
            "temperature": 0,
            "max_tokens": 5,
            "stop": "END",
            "seed": None,
            "generationConfig": {"thinkingConfig": {"includeThoughts": True}},
            "safetySettings": safety,
            **search,
        },
    )
    check(body)

    assert body["generationConfig"] == {
        "temperature": 0,
        "maxOutputTokens": 5,
        "stopSequences": ["END"],
        "thinkingConfig": {"includeThoughts": True},
    }
    assert body["safetySettings"] == safety
    assert [list(tool) for tool in body["tools"]] == [["functionDeclarations"], ["googleSearch"]]
    assert encode_request(HELLO, None, search)["tools"] == search["tools"]
    assert encode(stop=["a", "b"])["generationConfig"] == {"stopSequences": ["a", "b"]}


def test_an_output_of_a_type_is_asked_for_by_its_schema() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}

    assert encode(output_schema=("Thing", schema))["generationConfig"] == {
        "responseMimeType": "application/json",
        "responseJsonSchema": schema,
    }


def test_parts_that_say_nothing_do_not_go_out_and_signatures_do() -> None:
    empty, thought = {"text": ""}, {"text": "", "thought": True}
    signature = {"text": "", "thoughtSignature": "c2ln"}

    def reply(*parts: dict[str, Any]) -> dict[str, Any]:
        private = {"carry": {"gemini": {"parts": list(parts)}}}
        return {"role": "assistant", "content": "x", "flowtrio": private}

    sent = encode([*HELLO, reply(empty, {"text": "x"}, thought, signature)])["contents"]
    assert sent[1]["parts"] == [{"text": "x"}, signature]
    assert encode([*HELLO, reply(empty, thought)])["contents"] == [user({"text": "hello"})]


def test_instructions_without_a_text_are_none() -> None:
    image = {"type": "image_url", "image_url": {"url": "http://x/y.png"}}

    assert "systemInstruction" not in encode([{"role": "system", "content": [image]}, *HELLO])
