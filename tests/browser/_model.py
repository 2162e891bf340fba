"""A model that says the next thing when the test says so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import trio

from flowtrio import Chunk, ToolCall, Usage


class Puppet:
    """A client whose replies are made up as the test goes along.

    `say` and `call` hand the next piece over to the reply that is being read, or will be.
    """

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Chunk](1000)
        self.requests: list[Any] = []
        """What it was asked: each time the conversation."""

    def say(self, text: str) -> None:
        self._send.send_nowait(Chunk(content=text))

    def end(self, usage: Usage | None = None) -> None:
        self._send.send_nowait(Chunk(is_final=True, finish_reason="stop", usage=usage))

    def answer(self, *texts: str, usage: Usage | None = None) -> None:
        for text in texts:
            self.say(text)
        self.end(usage)

    def call(self, *calls: ToolCall) -> None:
        """End the reply with calls."""
        self._send.send_nowait(
            Chunk(is_final=True, tool_calls=list(calls), finish_reason="tool_calls")
        )

    async def stream_completion(self, messages: Any, **_: Any) -> AsyncIterator[Chunk]:
        self.requests.append(messages)
        async for chunk in self._receive:
            yield chunk
            if chunk.is_final:
                return
