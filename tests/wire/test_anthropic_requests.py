"""Requests to Anthropic, each held to the SDK's own types."""

from __future__ import annotations

import copy
from typing import Any, Final

import msgspec
import pytest
from anthropic.types.message_create_params import (
    MessageCreateParamsNonStreaming,
    MessageCreateParamsStreaming,
)

from flowtrio import ProviderError
from flowtrio._agents._output import Output
from flowtrio.wire._anthropic_requests import MAX_TOKENS, encode_request, made_under
from tests.support.sdk_types import check_typed

HELLO: Final = [{"role": "user", "content": "hello"}]
TOOL: Final = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look.",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
    },
}
EPHEMERAL: Final = {"type": "ephemeral"}
SEARCH: Final = {"type": "web_search_20250305", "name": "web_search"}
PIXEL: Final = "data:image/png;base64,iVBORw0KGgo="


def encode(
    messages: Any = HELLO, tools: Any = None, stream: bool = True, **options: Any
) -> dict[str, Any]:
    """A request's body that the SDK's types agree to."""
    body = encode_request("claude-test-1", messages, tools, options, stream=stream)
    kind = MessageCreateParamsStreaming if stream else MessageCreateParamsNonStreaming
    check_typed(kind, body)
    return body


def call(id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def user(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def test_a_single_turn() -> None:
    assert encode() == {
        "model": "claude-test-1",
        "max_tokens": MAX_TOKENS,
        "messages": [user(text("hello"))],
        "stream": True,
    }
    assert "stream" not in encode(stream=False)


def test_the_sdks_types_refuse_what_they_do_not_know() -> None:
    for spoilt in (
        {"messages": [{"role": "user", "content": [{"type": "text", "txt": "a"}]}]},
        {"messages": [{"role": "tool", "content": "a"}]},
        {"max_tokns": 5},
    ):
        with pytest.raises(TypeError):
            check_typed(MessageCreateParamsStreaming, encode() | spoilt)


def test_instructions_stand_apart_and_neighbours_of_one_role_are_one_message() -> None:
    body = encode(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [text("And kind.")]},
            {"role": "user", "content": "a"},
            {"role": "user", "content": [text("b")]},
            {"role": "assistant", "content": " "},
            {"role": "assistant", "content": "c"},
            {"role": "assistant", "content": None},
            {"role": "user", "content": ""},
        ]
    )

    assert body["system"] == [text("Be brief."), text("And kind.")]
    assert body["messages"] == [
        user(text("a"), text("b")),
        {"role": "assistant", "content": [text("c")]},
        user(text("(no text)")),
    ]


def test_a_round_of_parallel_tools_from_another_providers_history() -> None:
    calls = [call("call|1", "look", '{"at":"Paris"}'), call("c2", "look", "")]
    body = encode(
        [
            *HELLO,
            {"role": "assistant", "content": "I look.", "tool_calls": calls},
            {"role": "tool", "tool_call_id": "call|1", "content": "sunny"},
            {"role": "tool", "tool_call_id": "c2", "content": [text("rainy")]},
            {"role": "user", "content": "and?"},
        ],
        [TOOL],
    )
    use = {"type": "tool_use", "id": "call_1", "name": "look", "input": {"at": "Paris"}}

    assert body["messages"][1:] == [
        {"role": "assistant", "content": [text("I look."), use, {**use, "id": "c2", "input": {}}]},
        user(
            {"type": "tool_result", "tool_use_id": "call_1", "content": "sunny"},
            {"type": "tool_result", "tool_use_id": "c2", "content": [text("rainy")]},
            text("and?"),
        ),
    ]
    assert body["tools"] == [
        {
            "name": "look",
            "description": "Look.",
            "input_schema": TOOL["function"]["parameters"],
        }
    ]


def test_images_by_address_and_as_data() -> None:
    parts = [
        text("what is it?"),
        {"type": "image_url", "image_url": {"url": "https://pictures.example/a.png"}},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
    ]

    assert encode([{"role": "user", "content": parts}])["messages"] == [
        user(
            text("what is it?"),
            {"type": "image", "source": {"type": "url", "url": "https://pictures.example/a.png"}},
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
            },
        )
    ]


def test_the_providers_own_parts_pass_and_others_are_refused() -> None:
    document = {"type": "document", "source": {"type": "url", "url": "https://a.example/b.pdf"}}

    assert encode([{"role": "user", "content": [document]}])["messages"] == [user(document)]
    with pytest.raises(ProviderError, match="takes no content part of type 'input_audio'"):
        encode([{"role": "user", "content": [{"type": "input_audio"}]}])


def test_what_is_to_be_cached_says_so_wherever_it_stands() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    body = encode(
        [
            {"role": "system", "content": [text("Be brief.") | mark]},
            {"role": "user", "content": [text("a") | mark]},
            {"role": "assistant", "content": None, "tool_calls": [call("c1", "look", "{}")]},
            {"role": "tool", "tool_call_id": "c1", "content": "b"} | mark,
        ],
        [TOOL | mark],
        **mark,
    )

    places = [body, body["system"][0], body["tools"][0]]
    places += [body["messages"][n]["content"][0] for n in (0, 2)]
    assert [place["cache_control"] for place in places] == [mark["cache_control"]] * 5


def test_options_go_where_they_belong() -> None:
    search = {"type": "web_search_20250305", "name": "web_search"}
    body = encode(
        tools=[TOOL],
        stop="END",
        max_tokens=5,
        metadata=None,
        tools_=None,
        thinking={"type": "adaptive"},
    )

    assert (body["stop_sequences"], body["max_tokens"]) == (["END"], 5)
    assert body["thinking"] == {"type": "adaptive"}
    assert body.keys() & {"metadata", "tools_"} == set()
    assert encode(stop=["a", "b"], max_tokens=None)["max_tokens"] == MAX_TOKENS
    both = encode_request("m", HELLO, [TOOL], {"tools": [search]}, stream=True)
    assert both["tools"][1] == search
    assert encode_request("m", HELLO, None, {"tools": [search]}, stream=True)["tools"] == [search]


def test_a_tool_may_say_nothing_but_its_name_and_be_strict() -> None:
    bare = {"type": "function", "function": {"name": "now", "strict": True}}

    assert encode(tools=[bare])["tools"] == [
        {
            "name": "now",
            "description": "",
            "input_schema": {"type": "object", "properties": {}},
            "strict": True,
        }
    ]


# Structured output


class Place(msgspec.Struct):
    name: str
    stars: int


class Trip(msgspec.Struct):
    places: list[Place]
    note: str | None = None


@pytest.mark.parametrize("effort_first", [True, False])
def test_an_output_of_a_type_is_asked_for_by_its_schema(effort_first: bool) -> None:
    output = Output.of(Trip)
    asked = {"output_schema": (output.name, output.schema)}
    effort = {"output_config": {"effort": "low"}}
    config = encode(**(effort | asked if effort_first else asked | effort))["output_config"]

    assert config["effort"] == "low"
    assert config["format"]["type"] == "json_schema"
    schema = config["format"]["schema"]
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Place"]["additionalProperties"] is False
    assert schema["properties"]["places"] == {
        "type": "array",
        "items": {"$ref": "#/$defs/Place"},
    }


# What was carried

THOUGHT: Final = {"type": "thinking", "thinking": "I see.", "signature": "c2ln"}
REDACTED: Final = {"type": "redacted_thinking", "data": "cmVk"}
USE: Final = {
    "type": "tool_use",
    "id": "t1",
    "name": "look",
    "input": {"at": 1},
    "caller": {"type": "direct"},
}


def carrying(content: Any, **message: Any) -> dict[str, Any]:
    private = {"carry": {"anthropic": content}}
    return {"role": "assistant", "content": "x", **message, "flowtrio": private}


def test_signed_thoughts_go_back_unchanged_and_calls_under_the_conversations_ids() -> None:
    calls = [call("t1", "look", '{"at":1}'), call("own_2", "look", '{"at":1}')]
    blocks = [text("\n\n"), THOUGHT, REDACTED, text("x"), USE, USE]
    under = made_under(encode(HELLO, [TOOL]))
    body = encode(
        [
            *HELLO,
            carrying({"content": blocks, "under": under}, tool_calls=calls),
            {"role": "tool", "tool_call_id": "t1", "content": "1"},
            {"role": "tool", "tool_call_id": "own_2", "content": "2"},
        ],
        [TOOL],
    )

    sent = body["messages"][1]["content"]
    assert sent == [THOUGHT, REDACTED, text("x"), USE, {**USE, "id": "own_2"}]
    results = body["messages"][2]["content"]
    assert [result["tool_use_id"] for result in results] == ["t1", "own_2"]


SYSTEM: Final = {"role": "system", "content": "Be brief."}
GREETING: Final = {"role": "assistant", "content": "How can I help?"}
CONDITIONS: Final[dict[str, tuple[list[Any], list[Any], dict[str, Any], bool]]] = {
    "the same": ([SYSTEM, *HELLO], [TOOL], {}, True),
    "marks of a cache": (
        [SYSTEM, {"role": "user", "content": [{**text("hello"), "cache_control": EPHEMERAL}]}],
        [{**TOOL, "cache_control": EPHEMERAL}],
        {},
        True,
    ),
    "options": ([SYSTEM, *HELLO], [TOOL], {"temperature": 1, "max_tokens": 1}, True),
    "another system prompt": ([{**SYSTEM, "content": "Be kind."}, *HELLO], [TOOL], {}, False),
    "no system prompt": (HELLO, [TOOL], {}, False),
    "other tools": ([SYSTEM, *HELLO], [], {}, False),
    "one tool more": ([SYSTEM, *HELLO], [TOOL], {"tools": [SEARCH]}, False),
    "another message": ([SYSTEM, {"role": "user", "content": "hi"}], [TOOL], {}, False),
    "a message more": ([SYSTEM, *HELLO, *HELLO], [TOOL], {}, False),
    "a message less": ([SYSTEM], [TOOL], {}, False),
}


@pytest.mark.parametrize("asked", [[SYSTEM, *HELLO], [SYSTEM, GREETING, *HELLO]])
@pytest.mark.parametrize("name", CONDITIONS)
def test_signed_thoughts_go_back_under_what_they_were_made_under_alone(
    asked: list[Any], name: str
) -> None:
    """The provider refuses them elsewhere, and then each later turn too."""
    messages, tools, options, is_same = CONDITIONS[name]
    if GREETING in asked:
        messages = [*messages[:1], GREETING, *messages[1:]]
    under = made_under(encode(asked, [TOOL]))
    blocks = [THOUGHT, REDACTED, text("x"), USE]
    reply = carrying({"content": blocks, "under": under}, tool_calls=[call("t1", "look", "{}")])
    result = {"role": "tool", "tool_call_id": "t1", "content": "1"}

    body = encode_request("m", [*messages, reply, result], tools, options, stream=True)

    [sent] = [m for m in body["messages"] if USE in m["content"]]
    kept = [block for block in sent["content"] if block in blocks]
    assert kept == (blocks if is_same else blocks[2:])


def test_thoughts_behind_others_that_were_left_out_are_left_out_too() -> None:
    def think(messages: list[Any]) -> Any:
        under = made_under(encode_request("m", messages, None, {}, stream=True))
        return carrying({"content": [THOUGHT, text("x")], "under": under})

    first = think(HELLO)
    second = think([*HELLO, first, *HELLO])
    elsewhere = think([SYSTEM, *HELLO, first, *HELLO])

    assert str(encode([*HELLO, first, *HELLO, second, *HELLO])).count("I see.") == 2
    assert str(encode([SYSTEM, *HELLO, first, *HELLO, second, *HELLO])).count("I see.") == 0
    # What was made after the first had been left out stands behind the same again.
    assert str(encode([SYSTEM, *HELLO, first, *HELLO, elsewhere, *HELLO])).count("I see.") == 1


def test_thoughts_of_which_nobody_knows_what_they_were_made_under_stay_here() -> None:
    sent = encode([*HELLO, carrying({"content": [THOUGHT, text("x")]}), *HELLO])["messages"][1]

    assert sent["content"] == [text("x")]
    assert encode([*HELLO, carrying({"content": [THOUGHT]})])["messages"] == [user(text("hello"))]


def test_a_citation_goes_back_without_the_file_behind_it() -> None:
    citation = {
        "type": "char_location",
        "cited_text": "there",
        "document_index": 0,
        "document_title": None,
        "start_char_index": 1,
        "end_char_index": 6,
    }
    block = {**text("x"), "citations": [{**citation, "file_id": None}]}

    sent = encode([*HELLO, carrying({"content": [block]}), *HELLO])["messages"][1]["content"]
    assert sent == [{**text("x"), "citations": [citation]}]


def test_a_waiting_program_is_named_until_it_has_its_results() -> None:
    reply = carrying({"container": "container_1"}, tool_calls=[call("t1", "look", "{}")])
    result = {"role": "tool", "tool_call_id": "t1", "content": "1"}

    assert encode([*HELLO, reply, result], [TOOL])["container"] == "container_1"
    assert "container" not in encode([*HELLO, reply, result, *HELLO], [TOOL])
    assert "container" not in encode([{"role": "tool", "tool_call_id": "t1", "content": "1"}])


def test_what_was_carried_of_calls_goes_back_by_the_conversations_names() -> None:
    use = {"type": "tool_use", "id": "t1", "name": "functions.look", "input": {"at": "x"}}
    result = {"role": "tool", "tool_call_id": "c1", "content": "fine"}
    for blocks, kept in (([use], {"at": "x"}), ([use, use], {})):
        reply = carrying({"content": blocks}, tool_calls=[call("c1", "look", "{}")])

        *_, sent = encode([*HELLO, reply, result])["messages"][1]["content"]

        assert sent == {"type": "tool_use", "id": "c1", "name": "look", "input": kept}


def test_the_user_is_first() -> None:
    greeting = {"role": "assistant", "content": "How can I help?"}

    assert encode([greeting, *HELLO])["messages"] == [
        user(text("(no text)")),
        {"role": "assistant", "content": [text("How can I help?")]},
        user(text("hello")),
    ]


@pytest.mark.parametrize("carry", [None, "x", {"anthropic": None}, {"gemini": {"parts": []}}])
def test_what_others_carried_is_not_sent(carry: Any) -> None:
    said = {"role": "assistant", "content": "x", "flowtrio": {"carry": carry, "partial": True}}

    assert encode([*HELLO, said, *HELLO])["messages"][1] == {
        "role": "assistant",
        "content": [text("x")],
    }


def test_encoding_changes_nothing_that_was_given() -> None:
    output = Output.of(Trip)
    given = (
        [*HELLO, *HELLO, carrying({"content": [THOUGHT, text("x")]})],
        [TOOL],
        {"output_schema": (output.name, output.schema), "output_config": {"effort": "low"}},
    )
    before = copy.deepcopy(given)
    encode_request("m", *given, stream=True)

    assert given == before
