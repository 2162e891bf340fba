"""A model's host without sockets: virtual time may pass while it answers."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator, Sequence
from types import ModuleType
from typing import Any, TypeAlias

import attrs
import trio

DONE = b"data: [DONE]\n\n"

Step: TypeAlias = bytes | float | str
"""Bytes of the body, so many seconds of silence, or the name of the library's error that is raised
there."""


def event(payload: Any) -> bytes:
    """One event of a stream."""
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


def delta(text: str) -> bytes:
    """A piece of text."""
    return event({"model": "fake-1", "choices": [{"index": 0, "delta": {"content": text}}]})


FINISH = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})

USAGE = event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})


def whole(text: str) -> bytes:
    """An answer that is not streamed."""
    choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop"}
    return json.dumps({"model": "fake-1", "choices": [choice]}).encode()


@attrs.frozen(kw_only=True)
class Answer:
    """What the host does with one request."""

    status: int = 200
    headers: dict[str, str] = attrs.field(factory=lambda: {"content-type": "text/event-stream"})
    steps: Sequence[Step] = ()
    delay: float = 0
    """Seconds before the head."""
    error: str | None = None
    """The library's error, instead of an answer."""
    text: str = "fake"
    """What that error says."""


def streams(*steps: Step, **headers: str) -> Answer:
    """Answer with a stream; headers are written with underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(steps=steps, headers={"content-type": "text/event-stream"} | named)


def speaks(*words: str) -> Answer:
    """Answer with a whole stream of text."""
    return streams(*map(delta, words), FINISH, USAGE, DONE)


def answers(body: bytes, content_type: str = "application/json", status: int = 200) -> Answer:
    """Answer with a whole body."""
    return Answer(status=status, steps=[body], headers={"content-type": content_type})


def refuses(status: int, words: str = "no", **headers: str) -> Answer:
    """Answer with an error."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = json.dumps({"error": {"message": words}}).encode()
    return Answer(status=status, steps=[body], headers={"content-type": "application/json"} | named)


def fails(error: str, text: str = "fake", delay: float = 0) -> Answer:
    """Raise the library's error of this name instead of answering."""
    return Answer(error=error, text=text, delay=delay)


@attrs.frozen
class Asked:
    """One request as the host saw it."""

    at: float
    """Trio's clock."""
    url: str
    headers: dict[str, str]
    body: dict[str, Any]
    timeout: dict[str, Any]


@attrs.define(eq=False)
class FakeHost:
    """Gives one answer a request, the last one again and again."""

    library: ModuleType
    """httpx, or httpx2."""
    answers: deque[Answer] = attrs.field(converter=deque)
    asked: list[Asked] = attrs.Factory(list)
    open_bodies: int = 0
    """Bodies begun and not closed."""
    most_open: int = 0

    def http_client(self, **options: Any) -> Any:
        """A client of the library that talks to this host."""
        transport = self.library.MockTransport(self._answer)
        return self.library.AsyncClient(transport=transport, **options)

    @property
    def times(self) -> list[float]:
        """When it was asked, from the first time on."""
        return [asked.at - self.asked[0].at for asked in self.asked]

    async def _answer(self, request: Any) -> Any:
        body = json.loads(request.content)
        timeout = request.extensions["timeout"]
        headers = dict(request.headers)
        self.asked.append(Asked(trio.current_time(), str(request.url), headers, body, timeout))
        answer = self.answers.popleft() if len(self.answers) > 1 else self.answers[0]
        await trio.sleep(answer.delay)
        if answer.error is not None:
            raise getattr(self.library, answer.error)(answer.text)
        return self.library.Response(
            answer.status, headers=answer.headers, content=self._body(answer.steps)
        )

    async def _body(self, steps: Sequence[Step]) -> AsyncIterator[bytes]:
        self.open_bodies += 1
        self.most_open = max(self.most_open, self.open_bodies)
        try:
            for step in steps:
                await trio.lowlevel.checkpoint()
                if isinstance(step, bytes):
                    yield step
                elif isinstance(step, str):
                    raise getattr(self.library, step)("fake")
                else:
                    await trio.sleep(step)
        finally:
            self.open_bodies -= 1
