"""A run's log as the body of an answer: Server-Sent Events, or lines of JSON.

An ASGI application that only sends never learns that its client has gone. So beside the sender
stands a task that listens for just that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import attrs
import trio

from flowtrio._core._events import AgentEvent, StreamMode
from flowtrio.serving.commands._clients import Hosting
from flowtrio.serving.commands._showing import Showing, asks_for_links
from flowtrio.wire._frames import encode_events, encode_rejected
from flowtrio.wire._sse import encode_comment, encode_event

from ._request import STATUSES, Exchange

if TYPE_CHECKING:
    from flowtrio._hosting._follower import Follower

_RETRY: Final = 1000
"""Milliseconds after which an EventSource comes back."""
COMMENT: Final = 15.0
"""Seconds after which a quiet answer gets a comment, or an empty line; sooner where the limits'
pings come sooner. Readers count on it: one that hears nothing for much longer takes its connection
for dead."""
_SSE: Final = {"content-type": "text/event-stream", "x-accel-buffering": "no"}
_LINES: Final = {"content-type": "application/x-ndjson", "x-accel-buffering": "no"}


async def follow(
    hosting: Hosting,
    exchange: Exchange,
    tenant_id: str,
    run_id: str,
    after: int,
    mode: StreamMode | None,
    started: contextlib.AsyncExitStack | None = None,
) -> None:
    """Answer with a run's events until DONE, or say why not.

    Args:
      hosting: What hosts the run.
      exchange: What is answered.
      tenant_id: Whose run it is.
      run_id: The run.
      after: The last sequence number that was seen; -1 for none.
      mode: Which events to show; the orchestrator's own by default.
      started: What whoever started the run holds of it, let go as soon as its log is followed: who
        is stuck in a send holds nothing.

    """
    showing = hosting.showing(mode, after, is_linked=asks_for_links(exchange.request))
    follower = hosting.follow(tenant_id, run_id, showing)
    with hosting.connecting(), contextlib.ExitStack() as held:
        held.enter_context(hosting.reading())
        held.callback(follower.let_go)
        try:
            await follower.__aenter__()
        except Exception as exc:
            code, error = hosting.refusal_of(run_id, exc)
            return await exchange.refuse(STATUSES[code], code, error)
        if started is not None:
            await started.aclose()
        if follower.is_over:
            return await exchange.answer(204)
        wants_lines = "application/x-ndjson" in exchange.request.headers.get("accept", "")
        log = _Log(hosting, exchange, follower, showing, wants_lines)
        return await log.send(held)


@attrs.define(eq=False)
class _Log:
    """A log that is being sent."""

    hosting: Hosting
    exchange: Exchange
    follower: Follower
    showing: Showing
    is_lines: bool
    _due: float = attrs.field(default=0, init=False)
    """When a comment is due: what is not shown is no sign of life."""

    async def send(self, held: contextlib.ExitStack) -> None:
        """Send it to its end; what is *held* is let go as soon as the client has gone."""
        exchange, is_whole = self.exchange, False
        async with trio.open_nursery() as nursery:
            exchange.scope = nursery.cancel_scope
            nursery.start_soon(_let_go, exchange, nursery.cancel_scope, held)
            is_whole = await self._send_pieces()
            nursery.cancel_scope.cancel(reason="the log has ended")
        exchange.scope = None
        if is_whole:
            # Here, where nobody listens any more: a server says that the exchange is over as if the
            # client had left, in the midst of this, and then has the connection to close.
            await exchange.send(b"", more=False)

    async def _send_pieces(self) -> bool:
        """Send piece after piece; True at the log's end."""
        await self.exchange.begin(200, _LINES if self.is_lines else _SSE)
        if not self.is_lines:
            await self.exchange.send(f"retry: {_RETRY}\n\n".encode())
        is_last, body = False, b"begun"
        while not is_last:
            if body:
                quiet = min(COMMENT, self.hosting.limits.ping_interval)
                self._due = trio.current_time() + quiet
            body, is_last = await self._next()
            if body:
                await self.exchange.send(body)
        return True

    async def _next(self) -> tuple[bytes, bool]:
        """Wait for the answer's next piece; give it, and whether it is the last."""
        encode = _encode_lines if self.is_lines else _encode_sse
        with trio.move_on_at(self._due):
            try:
                batch = await self.follower.receive_batch()
            except trio.EndOfChannel:
                return b"", True
            except Exception as exc:
                # The status is told already. So this is the frame that a WebSocket would get.
                rejected = encode_rejected(
                    None, *self.hosting.refusal_of(self.follower.run_id, exc)
                )
                body = f"{rejected}\n".encode() if self.is_lines else encode_event(rejected)
                return body, True
            return encode(self.showing.show(batch)), False
        return b"\n" if self.is_lines else encode_comment("still here"), False


async def _let_go(exchange: Exchange, scope: trio.CancelScope, held: contextlib.ExitStack) -> None:
    """Wait until the client has gone; then, or when it takes nothing, hold nothing for it.

    Apart from who sends, since that one may be stuck where no cancellation comes.
    """
    try:
        await exchange.wait_left()
        scope.cancel(reason="the client left")
    finally:
        if exchange.is_late:
            exchange.tell_late()
        held.close()


def _encode_sse(events: Sequence[AgentEvent]) -> bytes:
    texts = encode_events(events, is_batch=False)
    return b"".join(
        encode_event(text, id=f"{event.run_id}:{event.seq}")
        for event, text in zip(events, texts, strict=True)
    )


def _encode_lines(events: Sequence[AgentEvent]) -> bytes:
    return "".join(f"{text}\n" for text in encode_events(events, is_batch=False)).encode()
