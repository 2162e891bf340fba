"""The ASGI application without a server: messages in, messages out, under virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias

import trio

Message: TypeAlias = dict[str, Any]


async def exchange(
    app: Any,
    path: str = "/",
    *,
    kind: str = "http",
    told: Iterable[Message | trio.Event] = ({"type": "http.request", "body": b""},),
    take: Callable[[Message], Awaitable[None]] | None = None,
    headers: Iterable[tuple[str, str]] = (),
    **scope: Any,
) -> list[Message]:
    """Have the application serve one connection; gives what it sent.

    Args:
      app: The application.
      path: What is asked for.
      kind: ``http`` or ``websocket``.
      told: What the server tells, behind an event when that is set; after that it has no news.
      take: Called with each message before it counts as sent.
      headers: Beside the Host.
      scope: What else is in the scope.

    """
    whole: Message = {
        "type": kind,
        "method": "GET",
        "path": path,
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1234),
        "headers": [(k.encode(), v.encode()) for k, v in (("host", "localhost"), *headers)],
        **scope,
    }
    news, sent = iter(told), list[Message]()

    async def receive() -> Message:
        await trio.lowlevel.checkpoint()
        for message in news:
            if not isinstance(message, trio.Event):
                return message
            await message.wait()
        await trio.sleep_forever()
        raise AssertionError

    async def send(message: Message) -> None:
        await trio.lowlevel.checkpoint()
        if take is not None:
            await take(message)
        sent.append(message)

    await app(whole, receive, send)
    return sent
