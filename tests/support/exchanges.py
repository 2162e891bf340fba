"""A reply asked of a host without sockets: what tests of requests and of reading share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio

from flowtrio._core._chunks import fold
from flowtrio.clients._host import ModelHost
from flowtrio.clients._request import HostRequest, HttpRequest
from flowtrio.clients._stream import CompletionStream, stream_reply
from flowtrio.wire._openai_chat import ChatDecoder, decode_completion
from tests.support.fake_host import FakeHost

KEY = "sk-canary-8531"

NOW = 1_700_000_000.0
"""The wall clock's time in all tests."""


@attrs.define(eq=False)
class Setting:
    """A host that gives these answers, and what a client knows of it."""

    fake: FakeHost
    model: ModelHost

    def ask(self, **changes: Any) -> CompletionStream:
        """Begin a reply."""
        request = HostRequest(
            ask=lambda stream: HttpRequest("http://models.example/v1/chat", {"stream": stream}),
            decoder=ChatDecoder,
            decode_whole=decode_completion,
        )
        return stream_reply(self.model, attrs.evolve(request, **changes))

    async def text(self, **changes: Any) -> str:
        """Ask for a reply and give its text."""
        return (await fold(self.ask(**changes))).content

    async def fails(
        self, kind: type[Exception] | tuple[type[Exception], ...], **changes: Any
    ) -> Any:
        """Ask for a reply that fails in this way; nothing of it may be left."""
        with pytest.raises(kind) as caught:
            await fold(self.ask(**changes))
        self.check_left()
        return caught.value

    def check_left(self) -> None:
        assert self.fake.open_bodies == 0
        assert self.model.statistics().open_replies == 0
        assert self.model.statistics().waiting_replies == 0


Make = Callable[..., Setting]


async def read(stream: CompletionStream) -> tuple[str, Exception | None, list[float]]:
    """What was said, how it failed, and when each chunk came, from the first step on."""
    begun = trio.current_time()
    text, times = "", []
    try:
        async for chunk in stream:
            text += chunk.content
            times.append(round(trio.current_time() - begun, 3))
    except Exception as exc:
        return text, exc, times
    return text, None, times
