"""One client's session, whatever carries it: texts in, texts out.

::

    texts ─ receive ─ command ─┬─ message, resume: a run's events ────────┐
                               ├─ cancel, approve, answer, …: controls    ├─ outgoing ─ texts
                               └─ accepted or rejected, one a command ────┘

The one who writes to the client takes from ``outgoing`` when there is room; until then runs wait
with their next events, and so do their models.

A client that named a subprotocol, or chose the id of its run, may come back: such a run is hosted,
and its events come from the store by a cursor. The runs of other clients live with their
connection, and are cancelled when it ends.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import attrs
import trio

from flowtrio._core._events import EventType, StreamMode
from flowtrio._core._exceptions import LimitExceeded, RunExists
from flowtrio._hosting._recorder import of_another_message
from flowtrio._run._controls import run_of
from flowtrio.wire._frames import (
    BATCH_SUBPROTOCOL,
    SUBPROTOCOL,
    BadFrame,
    Command,
    Control,
    MessageCommand,
    PingCommand,
    Ref,
    ResumeCommand,
    decode_command,
    decode_large,
    encode_accepted,
    encode_events,
    encode_rejected,
    said_by,
)

from ._clients import Hosting as Hosting
from ._clients import StoreFailed
from ._letting_in import check_start
from ._outgoing import Outgoing
from ._showing import Showing

if TYPE_CHECKING:
    from flowtrio._core._parts import UserMessage
    from flowtrio._hosting._follower import Follower
    from flowtrio._run._stream import EventStream


logger: logging.Logger = logging.getLogger("flowtrio")

_MOST_ENDED: Final = 64
"""Runs that lived with a session and have ended that it remembers."""
_ALONE: Final = 5.0
"""Seconds that a run elsewhere goes on if the process of its one reader is gone."""
_NOT_KEPT: Final = "this run lives with its connection, and its log is not kept"


def choose_subprotocol(offered: Iterable[str]) -> str | None:
    """The first subprotocol that a client offers and we speak."""
    return next((name for name in offered if name in (SUBPROTOCOL, BATCH_SUBPROTOCOL)), None)


class TooManyBadMessages(Exception):
    """A client sent more nonsense than it may."""


@attrs.define(eq=False, kw_only=True)
class Session:
    """One client's session."""

    hosting: Hosting
    tenant_id: str
    nursery: trio.Nursery
    """Where its runs live: they end with it."""
    is_batch: bool = False
    """Whether all events that are ready go into one frame."""
    is_linked: bool = False
    """Whether each event names the one before it."""
    may_come_back: bool = False
    """Whether its runs are hosted, so that it may leave and resume."""
    outgoing: Outgoing = attrs.field(factory=Outgoing, init=False)
    """What is said to the client."""
    _session_id: str = attrs.field(factory=lambda: secrets.token_urlsafe(16), init=False)
    _own: dict[str, trio.CancelScope] = attrs.field(factory=dict, init=False)
    """The runs that live with this session."""
    _ended: dict[str, None] = attrs.field(factory=dict, init=False)
    """The newest of those that have ended: who starts one again is told, and runs nothing twice."""
    _following: dict[str, trio.CancelScope] = attrs.field(factory=dict, init=False)
    """The hosted runs whose events are handed over now."""
    _elsewhere: set[str] = attrs.field(factory=set, init=False)
    """The runs that live with this session though another process runs them."""
    _live: int = attrs.field(default=0, init=False)
    _bad: int = attrs.field(default=0, init=False)
    _has_ended: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def receive(self, text: str) -> None:
        """Take one text from the client and reply to it.

        Raises:
          TooManyBadMessages: it was one bad message too many.
          TooLarge: it is larger than a message may be.

        """
        limits = self.hosting.limits
        said: UserMessage | None = None
        try:
            if len(text) > limits.message:
                command: Command = decode_large(text)
            else:
                command = decode_command(text, limits.json_depth)
            if isinstance(command, MessageCommand):
                said = said_by(command, limits)
        except BadFrame as exc:
            await self._reject(exc.ref, exc.code, exc.error)
            self._bad += 1
            if self._bad >= limits.bad_messages:
                raise TooManyBadMessages from None
            return
        match command:
            case MessageCommand():
                assert said is not None
                await self._start(command, said)
            case ResumeCommand():
                await self._resume(command)
            case PingCommand():
                await self._accept(command.ref, None)
            case _:
                await self._control(command)

    @contextmanager
    def living(self) -> Iterator[None]:
        """The time in which the client is listened to, and can be said goodbye to."""
        self.hosting.sessions.add(self)
        try:
            yield
        finally:
            self.hosting.sessions.discard(self)
            self._has_ended.set()
            cluster = self.hosting.service.cluster
            while self._elsewhere and cluster is not None:
                cluster.cancel_soon(self.tenant_id, self._elsewhere.pop(), "its reader left")

    async def dismiss(self) -> None:
        """Say that the server stops, and wait until the client is gone, or takes too long."""
        limits = self.hosting.limits
        with trio.move_on_after(limits.send + limits.close):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.outgoing.say_goodbye, 1012, "the server is shutting down")
                # One that is about to end may say nothing more.
                await self._has_ended.wait()
                nursery.cancel_scope.cancel(reason="the session has ended")

    def leave(self) -> None:
        """The client has gone: cancel the runs that live with it, and detach from the others."""
        for scope in [*self._own.values(), *self._following.values()]:
            scope.cancel(reason="the client left")

    # Starting and following

    async def _start(self, command: MessageCommand, said: UserMessage) -> None:
        hosting, ref, run_id = self.hosting, command.ref, command.run_id
        if run_id is not None:
            own = hosting.runs.get((self.tenant_id, run_id))
            if own is not None and run_of(own).info.said != said:
                exists = of_another_message(run_id)
                return await self._reject(ref, exists.code, str(exists))
            if run_id in self._own:
                return await self._accept(ref, run_id)
            if own is not None or run_id in self._ended:
                return await self._reject(ref, "not_resumable", _NOT_KEPT)
        if run_id not in self._following and self._live >= hosting.limits.runs_per_connection:
            return await self._reject_too_many(ref)
        if hosting.is_draining:
            try:
                is_new = run_id is None or not await hosting.is_known(self.tenant_id, run_id)
            except Exception as exc:
                return await self._reject(ref, *hosting.refusal_of(run_id or "", exc))
            if is_new:
                return await self._reject(ref, "shutting_down", "the server is shutting down")
        try:
            await check_start(hosting, self.tenant_id, run_id)
        except LimitExceeded as exc:
            return await self._reject(ref, exc.code, str(exc))
        except StoreFailed as failed:
            return await self._reject(ref, *hosting.refusal_of(run_id or "", failed.error))
        is_own = run_id is None and not self.may_come_back
        if is_own and hosting.service.cluster is None:
            return await self._start_own(command, said)
        session_id = command.session_id or self._session_id
        window = _ALONE if is_own else None
        starting = hosting.starting(self.tenant_id, said, session_id, run_id, resume_window=window)
        try:
            async with starting as started:
                if is_own:
                    self._elsewhere.add(started.run_id)
                # Not asked before: it may have given DONE while the store was waited for.
                if started.run_id in self._following:
                    # Starting twice is starting once: its events come on this connection.
                    return await self._accept(ref, started.run_id)
                showing = hosting.showing(command.mode, -1, is_linked=self.is_linked)
                return await self._begin_to_follow(ref, started.run_id, showing)
        except (LimitExceeded, RunExists) as exc:
            return await self._reject(ref, exc.code, str(exc))
        except StoreFailed as failed:
            return await self._reject(ref, *hosting.refusal_of(run_id or "", failed.error))

    async def _resume(self, command: ResumeCommand) -> None:
        ref, run_id = command.ref, command.run_id
        if (self.tenant_id, run_id) in self.hosting.runs:
            return await self._reject(ref, "not_resumable", _NOT_KEPT)
        following = self._following.get(run_id)
        if following is None and self._live >= self.hosting.limits.runs_per_connection:
            return await self._reject_too_many(ref)
        with self.hosting.seated(self.tenant_id, run_id):
            if following is not None:
                # Whoever resumes what he follows here has lost his place, and begins anew. In
                # between he has not left.
                following.cancel(reason="the client resumed elsewhere in the log")
            newest = -1
            if command.snapshot:
                try:
                    newest = await self.hosting.service.recorder.newest(self.tenant_id, run_id)
                except Exception as exc:
                    return await self._reject(ref, *self.hosting.refusal_of(run_id, exc))
            showing = self.hosting.showing(
                command.mode,
                command.after,
                is_linked=self.is_linked,
                newest=newest,
                is_compacted=command.snapshot == "log",
            )
            return await self._begin_to_follow(ref, run_id, showing)

    async def _begin_to_follow(self, ref: Ref, run_id: str, showing: Showing) -> None:
        follower = self.hosting.follow(self.tenant_id, run_id, showing.after, showing.start)
        try:
            await follower.__aenter__()
        except Exception as exc:
            return await self._reject(ref, *self.hosting.refusal_of(run_id, exc))
        if follower.is_over:
            return await self._accept(ref, run_id, is_over=True)
        self._live += 1
        following = self._following[run_id] = trio.CancelScope()
        if follower.is_beginning:
            await self.outgoing.say_with_next(encode_accepted(ref, run_id))
        else:
            await self._accept(ref, run_id)
        name = f"follow {run_id}"
        self.nursery.start_soon(self._follow, follower, showing, following, name=name)
        return None

    async def _follow(
        self, follower: Follower, showing: Showing, following: trio.CancelScope
    ) -> None:
        """Hand a hosted run's events over until DONE; leaving ends nothing but this."""
        try:
            is_own = follower.run_id in self._elsewhere
            with following, self.hosting.reading(follower, is_only_here=is_own):
                async with follower:
                    await self._hand_over(follower, showing)
        except Exception as exc:
            # No fault of the connection, whose other runs go on.
            await self._reject(None, *self.hosting.refusal_of(follower.run_id, exc))
        finally:
            self._live -= 1
            if self._following.get(follower.run_id) is following:
                del self._following[follower.run_id]
            if follower.is_over:
                self._elsewhere.discard(follower.run_id)

    # A run that ends with its connection

    async def _start_own(self, command: MessageCommand, said: UserMessage) -> None:
        orchestrator = self.hosting.orchestrator
        stream = orchestrator.process_stream(
            said,
            tenant_id=self.tenant_id,
            session_id=command.session_id or self._session_id,
            mode=StreamMode.EVENTS,
        )
        showing = self.hosting.showing(command.mode, -1, is_linked=self.is_linked)
        self._live += 1
        name = f"follow {stream.run_id}"
        await self.nursery.start(self._run, stream, showing, command.ref, name=name)

    async def _run(
        self,
        stream: EventStream,
        showing: Showing,
        ref: Ref,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run a run: reply to its command, then hand its events over until DONE."""
        scope = trio.CancelScope()
        try:
            with scope, self.hosting.holding(self.tenant_id, stream):
                async with stream:
                    if stream.refusal is not None:
                        await self._reject(ref, stream.refusal.code, str(stream.refusal))
                        return task_status.started()
                    self._own[stream.run_id] = scope
                    await self._accept(ref, stream.run_id)
                    task_status.started()
                    await self._hand_over(stream, showing)
        finally:
            self._live -= 1
            if self._own.pop(stream.run_id, None) is not None:
                self._ended[stream.run_id] = None
                if len(self._ended) > _MOST_ENDED:
                    del self._ended[next(iter(self._ended))]

    async def _hand_over(self, stream: EventStream | Follower, showing: Showing) -> None:
        is_over = False
        with suppress(trio.EndOfChannel):
            while not is_over:
                batch = await stream.receive_batch()
                # Whoever asked once more would be told so, a schedule point later.
                is_over = batch[-1].type is EventType.DONE
                texts = encode_events(showing.show(batch), is_batch=self.is_batch)
                if texts or self.outgoing.is_holding:
                    await self.outgoing.say(texts)

    # Controlling

    async def _control(self, command: Control) -> None:
        try:
            await self.hosting.control(self.tenant_id, command)
        except BadFrame as exc:
            return await self._reject(exc.ref, exc.code, exc.error)
        except StoreFailed as failed:
            refusal = self.hosting.refusal_of(command.run_id, failed.error)
            return await self._reject(command.ref, *refusal)
        return await self._accept(command.ref, command.run_id)

    # Replying

    async def _accept(self, ref: Ref, run_id: str | None, *, is_over: bool = False) -> None:
        await self.outgoing.say([encode_accepted(ref, run_id, is_over=is_over)])

    async def _reject_too_many(self, ref: Ref) -> None:
        error = f"{self._live} runs of this connection are under way"
        await self._reject(ref, "too_many_runs", error)

    async def _reject(self, ref: Ref, code: str, error: str) -> None:
        await self.outgoing.say([encode_rejected(ref, code, error)])
