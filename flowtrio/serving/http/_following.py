"""A run's log as the body of an answer, sent while the run goes on.

An ASGI application that only sends never learns that its client has gone. So beside the sender
stands a task that listens for just that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import attrs
import trio

from flowtrio.serving.commands._clients import Hosting, Refusal

from ._answers import Answer
from ._request import Exchange, Left, refused
from ._segments import MOMENT, Segment

if TYPE_CHECKING:
    from flowtrio._core._events import AgentEvent
    from flowtrio._hosting._follower import Follower

COMMENT: Final = 15.0
"""Seconds after which a quiet answer gets a sign of life; sooner where the limits' pings come
sooner. Readers count on it: one that hears nothing for much longer takes its connection for dead.
"""


async def follow(
    hosting: Hosting,
    exchange: Exchange,
    tenant_id: str,
    run_id: str,
    answer: Answer,
    started: contextlib.AsyncExitStack | None = None,
) -> None:
    """Answer with a run's events until DONE, or until the answer is over; or say why not.

    Args:
      hosting: What hosts the run.
      exchange: What is answered.
      tenant_id: Whose run it is.
      run_id: The run.
      answer: What its log is told as.
      started: What whoever started the run holds of it, let go as soon as its log is followed: who
        is stuck in a send holds nothing.

    """
    is_only_here = answer.is_only_here
    with _reading(hosting, tenant_id, run_id, answer, is_only_here) as (follower, held):
        if refusal := await _attach(hosting, follower, started):
            told = refused(refusal)
            return await exchange.refuse(told.status, told.code, told.error)
        if follower.is_over:
            return await exchange.answer(204)
        return await _Log(hosting, exchange, follower, answer).send(held)


async def gather(
    hosting: Hosting,
    exchange: Exchange,
    tenant_id: str,
    run_id: str,
    answer: Answer,
    started: contextlib.AsyncExitStack | None = None,
) -> Refusal | None:
    """Feed *answer* a run's events and send nothing; give why they cannot be read, if so.

    For those who answer when all is known. See `follow` for the arguments.

    Raises:
      Left: the client has gone meanwhile.

    """
    with _reading(hosting, tenant_id, run_id, answer, True) as (follower, held):
        if refusal := await _attach(hosting, follower, started):
            return refusal
        return await _Log(hosting, exchange, follower, answer).gather(held)


@contextlib.contextmanager
def _reading(
    hosting: Hosting, tenant_id: str, run_id: str, answer: Answer, is_only_here: bool
) -> Iterator[tuple[Follower, contextlib.ExitStack]]:
    """A reader of the log, and what is let go as soon as its client has left."""
    follower = hosting.follow(tenant_id, run_id, answer.after, answer.start)
    with hosting.connecting(), contextlib.ExitStack() as held:
        held.enter_context(hosting.reading(follower, is_only_here=is_only_here))
        held.callback(follower.let_go)
        yield follower, held


async def _attach(
    hosting: Hosting, follower: Follower, started: contextlib.AsyncExitStack | None
) -> Refusal | None:
    try:
        await follower.__aenter__()
    except Exception as exc:
        return hosting.refusal_of(follower.run_id, exc)
    if started is not None:
        await started.aclose()
    return None


@attrs.define(eq=False)
class _Log:
    """A log that is being told."""

    hosting: Hosting
    exchange: Exchange
    follower: Follower
    answer: Answer
    _due: float = attrs.field(default=0, init=False)
    """When a sign of life is due: what is not shown is none."""

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

    async def gather(self, held: contextlib.ExitStack) -> Refusal | None:
        """Read it to its end; give why it cannot be read on, if so."""
        refusal, is_whole = None, False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_let_go, self.exchange, nursery.cancel_scope, held)
            refusal = await self._read()
            is_whole = True
            nursery.cancel_scope.cancel(reason="the log has ended")
        if not is_whole:
            raise Left
        return refusal

    async def _read(self) -> Refusal | None:
        while not self.answer.is_over:
            try:
                self.answer.feed(await self._receive())
            except trio.EndOfChannel:
                break
            except Exception as exc:
                return self.hosting.refusal_of(self.follower.run_id, exc)
        return None

    async def _send_pieces(self) -> bool:
        """Send piece after piece; True at the answer's end."""
        await self.exchange.begin(200, self.answer.headers)
        if begun := self.answer.begin():
            await self.exchange.send(begun)
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
        answer = self.answer
        with trio.move_on_at(self._due):
            try:
                batch = await self._receive()
            except trio.EndOfChannel:
                return answer.end(), True
            except Exception as exc:
                return answer.fail(self.hosting.refusal_of(self.follower.run_id, exc)), True
            return answer.feed(batch), answer.is_over
        return answer.quiet(), answer.is_over

    async def _receive(self) -> Sequence[AgentEvent]:
        """Wait for events of the log, and where the answer may end behind them, for more.

        What was taken is given: it is no time to be cancelled.
        """
        batch, answer = await self.follower.receive_batch(), self.answer
        due = trio.current_time() + MOMENT
        with trio.CancelScope(shield=True, deadline=due), contextlib.suppress(trio.EndOfChannel):
            while isinstance(answer, Segment) and answer.may_end(batch):
                batch = [*batch, *await self.follower.receive_batch()]
        return batch


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
