"""Requests for OpenAI hold what its SDK says that a request may hold, and nothing else."""

from __future__ import annotations

from typing import Any, Final

import pytest
from openai.types.chat import completion_create_params as chat_params
from openai.types.responses import response_create_params as responses_params

from flowtrio.wire import _openai_chat_requests, _openai_input
from flowtrio.wire._openai_items import carry_of
from tests.support.responses import call, message, reasoning, response
from tests.support.sdk_types import check_typed

TYPES: Final[dict[tuple[str, bool], Any]] = {
    ("chat", True): chat_params.CompletionCreateParamsStreaming,
    ("chat", False): chat_params.CompletionCreateParamsNonStreaming,
    ("responses", True): responses_params.ResponseCreateParamsStreaming,
    ("responses", False): responses_params.ResponseCreateParamsNonStreaming,
}
ENCODERS: Final[dict[str, Any]] = {
    "chat": _openai_chat_requests.encode_request,
    "responses": _openai_input.encode_request,
}

TOOLS: Final = [
    {
        "type": "function",
        "function": {
            "name": "look",
            "description": "Look at a place.",
            "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
        },
    },
    {"type": "function", "function": {"name": "wait", "parameters": {"type": "object"}}},
]
SCHEMA: Final = ("Answer", {"type": "object", "properties": {"n": {"type": "integer"}}})
USER: Final = {"role": "user", "content": "hello"}
PICTURE: Final = {
    "role": "user",
    "content": [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:;base64,AAAA"}},
    ],
}


def called(*names: str, text: str | None = None, **private: Any) -> list[dict[str, Any]]:
    """A reply with calls, and their results."""
    ids = [f"call_{place}" for place in range(len(names))]
    calls = [
        {"id": id, "type": "function", "function": {"name": name, "arguments": '{"at": "x"}'}}
        for id, name in zip(ids, names, strict=True)
    ]
    reply = {"role": "assistant", "content": text, "tool_calls": calls}
    if private:
        reply["flowtrio"] = private
    results = [{"role": "tool", "tool_call_id": id, "content": "sunny"} for id in ids]
    return [reply, *results]


def thought(*names: str) -> list[dict[str, Any]]:
    """The same with what the model thought before its calls."""
    calls = [call(name, {"at": "x"}, f"call_{place}") for place, name in enumerate(names)]
    items = response(reasoning("Hm."), message("I look.", phase="commentary"), *calls)["output"]
    return called(*names, text="I look.", carry=carry_of(items, False))


FROM_GEMINI: Final = {"carry": {"gemini": {"parts": [{"text": "x", "thoughtSignature": "s"}]}}}
GEMINI_CALL: Final = {
    "id": "call_run_c1",
    "type": "function",
    "function": {"name": "look", "arguments": "{}"},
    "flowtrio": {"carry": {"gemini": {"signature": "s"}}},
}

CASES: Final[dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]]] = {
    "one turn": ([USER], [], {}),
    "instructions": ([{"role": "system", "content": "Be brief."}, USER], [], {"temperature": 0}),
    "several turns": ([USER, {"role": "assistant", "content": "hi"}, USER], [], {}),
    "partial text": (
        [USER, {"role": "assistant", "content": "h", "flowtrio": {"partial": True}}, USER],
        [],
        {},
    ),
    "tools": ([USER], TOOLS, {"tool_choice": "auto"}),
    "a call": ([USER, *called("look")], TOOLS, {}),
    "parallel calls": ([USER, *called("look", "wait", text="both"), USER], TOOLS, {}),
    "thoughts": ([USER, *thought("look", "wait"), USER], TOOLS, {}),
    "from another provider": (
        [
            USER,
            {"role": "assistant", "content": "x", "flowtrio": FROM_GEMINI},
            USER,
            {"role": "assistant", "content": None, "tool_calls": [GEMINI_CALL]},
            {"role": "tool", "tool_call_id": "call_run_c1", "content": "{}"},
        ],
        TOOLS,
        {},
    ),
    "pictures": ([PICTURE], [], {}),
    "an answer of a type": ([USER], [], {"output_schema": SCHEMA, "reasoning_effort": "low"}),
    "no such answer": ([USER], [], {"output_schema": None}),
}


def check(api: str, stream: bool, body: dict[str, Any]) -> None:
    check_typed(TYPES[api, stream], body)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_a_request_is_one_of_the_sdks(api: str, stream: bool, case: str) -> None:
    messages, tools, options = CASES[case]
    body = ENCODERS[api]("gpt-5", messages, tools, options, stream=stream)

    check(api, stream, body)


@pytest.mark.parametrize(
    ("api", "tool"),
    [
        ("responses", {"type": "web_search"}),
        ("responses", {"type": "mcp", "server_label": "a", "server_url": "https://a.example"}),
        ("chat", {"type": "custom", "custom": {"name": "sql"}}),
    ],
)
def test_tools_of_the_providers_join_the_others(api: str, tool: dict[str, Any]) -> None:
    body = ENCODERS[api]("gpt-5", [USER], TOOLS, {"tools": [tool]}, stream=True)

    assert len(body["tools"]) == 3
    assert body["tools"][-1] == tool
    check(api, True, body)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"inputs": []}, "inputs"),
        ({"stream": 1.5}, "stream"),
        ({"input": [{"role": "user"}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}, "input"),
        ({"input": [USER | {"flowtrio": {}}]}, "input"),
        ({"tools": [TOOLS[0]]}, "tools[0]"),
        ({"text": "x"}, "text"),
        ({"include": "x"}, "include"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"metadata": 1}, "metadata"),
        ({"temperature": True}, "temperature"),
    ],
)
def test_a_wrong_request_is_found_out(change: dict[str, Any], place: str) -> None:
    body = ENCODERS["responses"]("gpt-5", [USER], [], {}, stream=True) | change

    with pytest.raises(TypeError) as caught:
        check("responses", True, body)
    assert place in str(caught.value)
