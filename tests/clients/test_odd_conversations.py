"""What one host's reply leaves in a conversation, all hosts take in the next request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flowtrio import Agent, StreamEngine, tool
from flowtrio.testing import check_events
from tests.support.conversations import (
    Body,
    anthropic_problems,
    gemini_problems,
    log_problems,
    ollama_problems,
    openai_problems,
    refusals,
    responses_problems,
)
from tests.support.model_server import Answer, open_model_server, sends
from tests.support.protocols import PROTOCOLS, Protocol, Said

JUDGES: dict[str, Callable[[Body], Iterator[str]]] = {
    "chat": openai_problems,
    "responses": responses_problems,
    "azure": openai_problems,
    "anthropic": anthropic_problems,
    "gemini": gemini_problems,
    "ollama": ollama_problems,
    "dashscope": openai_problems,
}

LONG = b"chatcmpl-tool-" + b"0123456789abcdef" * 2
IDS: dict[str, Callable[[bytes], bytes]] = {
    "as they are": lambda piece: piece,
    "one for all": lambda piece: _each(piece, b"x", b"x"),
    "of 46 characters": lambda piece: _each(piece, LONG, LONG[:-1] + b"x"),
    "of odd letters": lambda piece: _each(piece, b"a.b:c/+", b"a.b:c/-"),
}
ODD = Said(
    text=" \n",
    calls=(("functions.look", {"at": 1}), ("look", {"at": 2}), ("l" * 70, {})),
)


def _each(piece: bytes, first: bytes, second: bytes) -> bytes:
    for kind in (b"call_", b"toolu_"):
        piece = piece.replace(kind + b"0", first).replace(kind + b"1", second)
    return piece


@tool
async def look(at: int) -> str:
    """Look."""
    return "found"


def _says(protocol: Protocol, ids: str, said: Said) -> Answer:
    pieces = [IDS[ids](piece) for piece in protocol.stream(said)]
    return sends(*pieces, content_type=protocol.content_type)


@pytest.mark.parametrize("ids", IDS)
@pytest.mark.parametrize("name", PROTOCOLS)
async def test_an_odd_reply_is_made_fit_for_its_own_host_and_for_others(
    name: str, ids: str
) -> None:
    protocol = PROTOCOLS[name]
    answers = [_says(protocol, ids, said) for said in (ODD, Said(text=" "), ODD, Said(text="so"))]
    told: list[str] = []
    history: list[dict[str, Any]] = []
    async with open_model_server(answers) as server, protocol.to(server) as client:
        agent = Agent(llm_client=client, tools=[look])
        for question in (" ", "and?"):
            async with StreamEngine().stream(agent, question, history=history) as stream:
                events = [event async for event in stream]
            check_events(events)
            told += log_problems(stream.messages, events, history)
            history = stream.messages
        for exchange in server.exchanges:
            told += JUDGES[name](exchange.body)

    assert len(server.exchanges) == 4
    assert not told, "\n".join(told)
    assert refusals([*history, {"role": "user", "content": "and now?"}]) == []
