"""One WebSocket under ASGI: thin pumps around a `Session`."""

from __future__ import annotations

import contextlib
import logging
import math

import trio

from flowtrio.abc import Request
from flowtrio.serving.commands._clients import Hosting
from flowtrio.serving.commands._outgoing import Goodbye
from flowtrio.serving.commands._session import (
    Session,
    TooManyBadMessages,
    choose_subprotocol,
)
from flowtrio.serving.commands._showing import asks_for_links
from flowtrio.wire._frames import BATCH_SUBPROTOCOL, TooLarge

from ._request import Left, Receive, Scope, Send

logger: logging.Logger = logging.getLogger("flowtrio")

_TOO_LITTLE = "the client takes too little"


async def serve_socket(
    hosting: Hosting,
    tenant_id: str,
    request: Request,
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Accept a handshake and serve until one of both closes.

    Args:
      hosting: What the sessions of one application share.
      tenant_id: Whose connection it is.
      request: Its first one.
      scope: Of the connection, as the next two by ASGI's rules.
      receive: Gives what the client sends.
      send: Takes what it gets.

    """
    subprotocol = choose_subprotocol(scope.get("subprotocols", ()))
    await send({"type": "websocket.accept", "subprotocol": subprotocol})
    async with trio.open_nursery() as nursery:
        session = Session(
            hosting=hosting,
            tenant_id=tenant_id,
            nursery=nursery,
            is_batch=subprotocol == BATCH_SUBPROTOCOL,
            is_linked=asks_for_links(request),
            may_come_back=subprotocol is not None,
        )
        nursery.start_soon(_write, session, send, hosting.limits.send, nursery.cancel_scope)
        with session.living():
            try:
                await _read(session, receive, hosting.limits.whole_message)
            finally:
                if trio.current_time() >= nursery.cancel_scope.deadline:
                    words = (
                        "a client took nothing for %g s of what is sent to it: its WebSocket is "
                        "dropped"
                    )
                    logger.info(words, hosting.limits.send)
        nursery.cancel_scope.cancel(reason="the client left")


async def _read(session: Session, receive: Receive, most: int) -> None:
    """Take what the client says until it leaves."""
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        text = message.get("text")
        if text is None:
            return await _refuse(session, 1003, "expected text")
        if len(text.encode("utf-8", "surrogatepass")) > most:
            return await _refuse(session, 1009, "the message is too large")
        try:
            await session.receive(text)
        except TooManyBadMessages:
            return await _refuse(session, 1008, "too many bad messages")
        except TooLarge:
            return await _refuse(session, 1009, "the message is too large")


async def _refuse(session: Session, code: int, reason: str) -> None:
    """Have the writer say goodbye, which ends this task too."""
    await session.outgoing.say_goodbye(code, reason)
    await trio.sleep_forever()


async def _write(session: Session, send: Send, seconds: float, scope: trio.CancelScope) -> None:
    """Send what the session says; the only task that does.

    The deadline is that of the whole session: a server may shield its sends (Hypercorn does), and
    then this task alone stays with one that the client does not take.
    """
    try:
        async for item in session.outgoing:
            if isinstance(item, Goodbye):
                return await _close(send, seconds, item)
            for text in item:
                scope.deadline = trio.current_time() + seconds
                await send({"type": "websocket.send", "text": text})
                if scope.cancel_called:
                    if trio.current_time() >= scope.deadline:
                        # Taken, but too late. Without a word that would be 1011, as of a failure.
                        await _close(send, seconds, Goodbye(code=1013, reason=_TOO_LITTLE))
                    return
                scope.deadline = math.inf
    except Left:
        pass
    finally:
        scope.cancel(reason="the client takes nothing more")


async def _close(send: Send, seconds: float, goodbye: Goodbye) -> None:
    # Shielded: the server tells the reader that all is over in the midst of this.
    with trio.move_on_after(seconds, shield=True), contextlib.suppress(Left):
        await send({"type": "websocket.close", "code": goodbye.code, "reason": goodbye.reason})
