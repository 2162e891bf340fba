"""The judges of conversations notice each kind of fault; a sound conversation passes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import trio

from flowtrio import Agent, AgentEvent, RunContext, StreamEngine, ToolCall, tool
from flowtrio.testing import ScriptedModel
from tests.support.conversations import (
    anthropic_problems,
    gemini_problems,
    log_problems,
    ollama_problems,
    openai_problems,
    refusals,
    responses_problems,
)

Conversation = list[dict[str, Any]]
PNG = "data:image/png;base64,iVBORw0KGgo="


def sound() -> Conversation:
    """A conversation with all there is."""
    call = {"id": "a", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    image = {"type": "image_url", "image_url": {"url": PNG}}
    return [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "hi"}, image]},
        {"role": "assistant", "content": None, "tool_calls": [call, {**call, "id": "b"}]},
        {"role": "tool", "tool_call_id": "a", "content": "fine"},
        {"role": "tool", "tool_call_id": "b", "content": ""},
        {"role": "assistant", "content": "so", "flowtrio": {"partial": True}},
        {"role": "user", "content": "and now?"},
    ]


def _set(*path: Any) -> Callable[[Conversation], None]:
    """Put the last of *path* into the place that the others name."""

    def spoil(messages: Conversation) -> None:
        holder: Any = messages
        for key in path[:-2]:
            holder = holder[key]
        holder[path[-2]] = path[-1]

    return spoil


def _call(*path: Any) -> Callable[[Conversation], None]:
    """The same in the first call."""
    return _set(2, "tool_calls", 0, *path)


def _rename(id: str) -> Callable[[Conversation], None]:
    """Give the first call another id, and its result too."""

    def spoil(messages: Conversation) -> None:
        messages[2]["tool_calls"][0]["id"] = messages[3]["tool_call_id"] = id

    return spoil


def _name(name: str) -> Callable[[Conversation], None]:
    return _call("function", "name", name)


def _again(messages: Conversation) -> None:
    """The same calls twice, each answered."""
    messages[5:5] = copy.deepcopy(messages[2:5])


SPOILT: dict[str, tuple[Callable[[Conversation], None], set[str]]] = {
    "an unknown role": (
        _set(5, "role", "bot"),
        {"openai", "responses", "ollama"},
    ),
    "a blank message": (
        _set(6, "content", " "),
        {"openai", "responses", "anthropic", "ollama"},
    ),
    "an empty message": (
        _set(1, "content", ""),
        {"openai", "responses", "ollama"},
    ),
    "a blank part": (
        _set(1, "content", 0, "text", ""),
        {"openai", "responses", "anthropic", "gemini"},
    ),
    "a blank instruction": (_set(0, "content", " "), {"openai", "responses", "anthropic"}),
    "an image of no kind": (
        _set(1, "content", 1, "image_url", "url", "data:text/x;base64,eA=="),
        {"openai"},
    ),
    "an image that is nowhere": (
        _set(1, "content", 1, "image_url", "url", "file:///x"),
        {"openai", "anthropic"},
    ),
    "a blank answer": (_set(5, "content", "\n"), {"openai", "responses", "ollama"}),
    "nothing said": (_set(5, "content", None), {"openai", "ollama"}),
    "a long id": (_rename("x" * 46), {"openai"}),
    "a very long id": (_rename("x" * 65), {"openai", "responses", "anthropic"}),
    "an empty id": (_rename(""), {"openai", "responses", "anthropic"}),
    "an id twice in a reply": (_rename("b"), {"openai", "responses", "anthropic"}),
    "an id twice": (_again, {"openai", "responses", "anthropic"}),
    "a name with a dot": (_name("a.b"), {"openai", "responses", "anthropic", "ollama"}),
    "a name of blanks": (
        _name("a b"),
        {"openai", "responses", "anthropic", "gemini", "ollama"},
    ),
    "a long name": (
        _name("x" * 65),
        {"openai", "responses", "anthropic", "ollama"},
    ),
    "arguments that do not parse": (
        _call("function", "arguments", "{"),
        {"openai", "responses", "anthropic", "gemini", "ollama"},
    ),
    "arguments that are no object": (
        _call("function", "arguments", "[]"),
        {"openai", "responses", "anthropic", "gemini", "ollama"},
    ),
    "a missing result": (
        lambda m: m.pop(3),
        {"openai", "responses", "anthropic", "gemini"},
    ),
    "a result twice": (
        lambda m: m.insert(3, m[3]),
        {"openai", "responses", "anthropic", "gemini"},
    ),
    "a result without a call": (
        lambda m: m.append({"role": "tool", "tool_call_id": "z", "content": ""}),
        {"openai", "responses", "anthropic", "gemini"},
    ),
    "a result behind another message": (
        lambda m: m.append(m.pop(4)),
        {"openai", "responses", "anthropic", "gemini"},
    ),
    "a call at the end": (
        lambda m: m.__delitem__(slice(3, None)),
        {"openai", "responses", "anthropic", "gemini"},
    ),
    "a key of nobody's": (_set(6, "mood", "good"), {"openai"}),
    "an empty list of calls": (_set(5, "tool_calls", []), {"openai"}),
    "a lone surrogate": (
        _set(6, "content", "\ud800"),
        {"openai", "responses", "anthropic", "gemini", "ollama"},
    ),
}


def _told(messages: Conversation) -> set[str]:
    return {problem.partition(":")[0] for problem in refusals(messages)}


def test_a_sound_conversation_is_taken() -> None:
    assert refusals(sound()) == []


@pytest.mark.parametrize("fault", SPOILT)
def test_each_fault_is_refused_by_whom_it_concerns(fault: str) -> None:
    spoil, by = SPOILT[fault]
    messages = sound()
    spoil(messages)

    assert _told(messages) >= by


# What our codecs do not make, and another one might

TEXT = {"type": "text", "text": "hi"}
USE = {"type": "tool_use", "id": "a", "name": "look", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "a", "content": "fine"}


def _said(*blocks: tuple[str, list[Any]]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in blocks]}


ANTHROPIC: list[tuple[str, dict[str, Any]]] = [
    ("no messages", _said()),
    ("'assistant' first", _said(("assistant", [TEXT]), ("user", [TEXT]))),
    ("twice in a row", _said(("user", [TEXT]), ("user", [TEXT]))),
    ("content []", _said(("user", [TEXT]), ("assistant", []))),
    (
        "behind other content",
        _said(("user", [TEXT]), ("assistant", [USE]), ("user", [TEXT, RESULT])),
    ),
    ("without tool_result", _said(("user", [TEXT]), ("assistant", [USE]), ("user", [TEXT]))),
    ("ends with white space", _said(("user", [TEXT]), ("assistant", [{**TEXT, "text": "so "}]))),
    ("without a signature", _said(("user", [TEXT]), ("assistant", [{"type": "thinking"}]))),
    ("a block", _said(("user", [{"type": "sound"}]))),
    ("role 'tool'", _said(("user", [TEXT]), ("tool", [RESULT]))),
]


@pytest.mark.parametrize(("told", "body"), ANTHROPIC, ids=[told for told, _ in ANTHROPIC])
def test_anthropic_would_refuse_it(told: str, body: dict[str, Any]) -> None:
    assert any(told in problem for problem in anthropic_problems(body))


def test_others_would_refuse_it() -> None:
    part = {"functionCall": {"name": "look", "args": {}}}
    user, model = {"role": "user", "parts": [{"text": "hi"}]}, {"role": "model", "parts": [part]}
    item = {"type": "function_call", "call_id": "a", "name": "look", "arguments": "{}"}

    assert list(gemini_problems({"contents": [{**user, "role": "model"}, user]}))
    assert list(gemini_problems({"contents": [user, model, user]}))
    assert list(gemini_problems({"contents": [user, model]}))
    assert list(gemini_problems({"contents": [{**user, "parts": []}]}))
    assert list(responses_problems({"input": [{"role": "user", "content": "hi"}, item]}))
    assert list(responses_problems({"input": [{"type": "item_reference", "id": "x"}]}))
    assert list(openai_problems({"messages": [{"role": "function", "content": "x"}]}))
    assert list(openai_problems({"messages": [{"role": "assistant", "content": "x"}]}))
    assert list(ollama_problems({"messages": [{"role": "user", "content": None}]}))


# What happened


@tool
async def look(city: str) -> str:
    """Look."""
    return f"{city} is fine"


@tool
async def fails() -> None:
    """Fail."""
    raise ValueError("no luck")


async def told_twice(ctx: RunContext, message: str) -> str:
    """An agent that says one thing and returns another."""
    agent = Agent(
        llm_client=ScriptedModel(
            ["well", ToolCall("a", "look", {"city": "Rome"}), ToolCall("b", "fails", {})], "said"
        ),
        tools=[look, fails],
    )
    await agent(ctx, message)
    return "said"


def _play(agent: Any) -> tuple[Conversation, list[AgentEvent]]:
    async def main() -> tuple[Conversation, list[AgentEvent]]:
        async with StreamEngine().stream(agent, "go") as stream:
            log = [event async for event in stream]
        return stream.messages, log

    return trio.run(main)


UNTRUE: dict[str, Callable[[Conversation], None]] = {
    "another result": _set(2, "content", "Rome is not fine"),
    "cancelled where it was ok": _set(2, "content", "error: the call was cancelled"),
    "not run where it was": _set(2, "content", "error: this call was not run"),
    "ok where it was an error": _set(3, "content", "fine"),
    "another error": _set(3, "content", "error: bad luck"),
    "a text that nobody said": _set(1, "content", "very well"),
    "a text that is missing": lambda m: m.__delitem__(slice(1, 4)),
    "a call that nobody made": lambda m: (
        m[1]["tool_calls"].append({"id": "c", "function": {"name": "look"}}),
        m.insert(4, {"role": "tool", "tool_call_id": "c", "content": "fine"}),
    )[0],
    "a mark of partial text": _set(1, "flowtrio", {"partial": True}),
    "an answer that is missing": lambda m: m.__delitem__(4),
    "an answer that nobody gave": lambda m: m.append({"role": "assistant", "content": "more"}),
    "another message of the user's": _set(0, "content", "stop"),
}


def test_a_true_conversation_passes() -> None:
    messages, log = _play(told_twice)

    assert [message["role"] for message in messages] == [
        *("user", "assistant", "tool", "tool", "assistant")
    ]
    assert log_problems(messages, log) == []


@pytest.mark.parametrize("fault", UNTRUE)
def test_what_did_not_happen_is_noticed(fault: str) -> None:
    messages, log = _play(told_twice)
    messages = copy.deepcopy(messages)
    UNTRUE[fault](messages)

    assert log_problems(messages, log) != []
