"""One client's session, whatever carries it: texts in, texts out.

::

    texts ─ receive ─ command ─┬─ message: a run of its own, its events ──┐
                               ├─ cancel, approve, answer, …: controls    ├─ outgoing ─ texts
                               └─ accepted or rejected, one a command ────┘

The one who writes to the client takes from ``outgoing`` when there is room; until then runs wait
with their next events, and so do their models.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, assert_never

import attrs
import trio

from flowtrio._core._events import StreamMode
from flowtrio._core._limits import ServerLimits
from flowtrio._core._modes import View
from flowtrio.wire._frames import (
    AnswerCommand,
    ApproveCommand,
    BadFrame,
    CancelCommand,
    CancelToolCommand,
    Command,
    DenyCommand,
    MessageCommand,
    Ref,
    ResumeCommand,
    decode_command,
    encode_accepted,
    encode_events,
    encode_rejected,
)

from ._conceal import conceal

if TYPE_CHECKING:
    from flowtrio._core._events import AgentEvent
    from flowtrio._runtime._orchestrator import Orchestrator
    from flowtrio._runtime._stream import EventStream


class TooManyBadMessages(Exception):
    """A client sent more nonsense than it may."""


@attrs.frozen
class Goodbye:
    """The last that is said to a client: why its connection is closed."""

    code: int
    """Of RFC 6455, section 7.4."""
    reason: str


@attrs.define(eq=False)
class Hosting:
    """What the sessions of one server share."""

    orchestrator: Orchestrator
    limits: ServerLimits
    debug: bool = False
    is_draining: bool = False
    """Whether the server is stopping, and starts no more runs."""
    runs: dict[tuple[str, str], EventStream] = attrs.field(factory=dict, init=False)
    """The runs that live, by tenant and run id."""
    _idle: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def drain(self, seconds: float) -> None:
        """Give the runs *seconds* to end, then end them with ERROR ``shutdown``."""
        self.is_draining = True
        with trio.move_on_after(seconds):
            await self._wait_idle()
        for stream in list(self.runs.values()):
            stream._fail("shutdown", "internal", "the server is shutting down")
        # Each has its grace to clean up, and its reader the time to take the end.
        with trio.move_on_after(self.orchestrator.limits.grace + self.limits.send):
            await self._wait_idle()

    async def _wait_idle(self) -> None:
        while self.runs:
            self._idle = trio.Event()
            await self._idle.wait()

    def forget(self, key: tuple[str, str]) -> None:
        """A run has ended."""
        del self.runs[key]
        self._idle.set()


@attrs.define(eq=False, kw_only=True)
class Session:
    """One client's session."""

    hosting: Hosting
    tenant_id: str
    nursery: trio.Nursery
    """Where its runs live: they end with it."""
    is_batch: bool = False
    """Whether all events that are ready go into one frame."""
    outgoing: trio.MemoryReceiveChannel[list[str] | Goodbye] = attrs.field(init=False)
    """What is to be sent, in order; nobody else sends."""
    _send: trio.MemorySendChannel[list[str] | Goodbye] = attrs.field(init=False)
    _session_id: str = attrs.field(factory=lambda: secrets.token_urlsafe(16), init=False)
    _run_ids: set[str] = attrs.field(factory=set, init=False)
    """Ids of the runs that this session started, those that ended included."""
    _live: int = attrs.field(default=0, init=False)
    _bad: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        # No buffer: what was not handed over waits in its run, where it counts.
        self._send, self.outgoing = trio.open_memory_channel[list[str] | Goodbye](0)

    async def receive(self, text: str) -> None:
        """Take one text from the client and reply to it.

        Raises:
          TooManyBadMessages: it was one bad message too many.

        """
        limits = self.hosting.limits
        try:
            command = decode_command(text, limits.json_depth)
        except BadFrame as exc:
            await self._reject(exc.ref, exc.code, exc.error)
            self._bad += 1
            if self._bad >= limits.bad_messages:
                raise TooManyBadMessages from None
            return
        if isinstance(command, MessageCommand):
            await self._start(command)
        elif isinstance(command, ResumeCommand):
            await self._reject(command.ref, "not_resumable", "this server keeps no logs of runs")
        else:
            await self._control(command)

    async def say_goodbye(self, code: int, reason: str) -> None:
        """Close the connection, behind all that was handed over before."""
        await self._send.send(Goodbye(code, reason))

    # Starting

    async def _start(self, command: MessageCommand) -> None:
        hosting, ref, run_id = self.hosting, command.ref, command.run_id
        if run_id is not None and run_id in self._run_ids:
            # Starting twice is starting once: its events come, or came, on this very connection.
            return await self._accept(ref, run_id)
        if run_id is not None and (self.tenant_id, run_id) in hosting.runs:
            return await self._reject(
                ref, "not_resumable", "this run has another connection, and its log is not kept"
            )
        if hosting.is_draining:
            return await self._reject(ref, "shutting_down", "the server is shutting down")
        if self._live >= hosting.limits.runs_per_connection:
            return await self._reject(
                ref, "too_many_runs", f"{self._live} runs of this connection are under way"
            )
        stream = hosting.orchestrator.process_stream(
            command.message,
            tenant_id=self.tenant_id,
            session_id=command.session_id or self._session_id,
            mode=StreamMode.EVENTS,
            run_id=run_id,
        )
        mode = hosting.orchestrator.mode if command.mode is None else command.mode
        self._live += 1
        self._run_ids.add(stream.run_id)
        hosting.runs[self.tenant_id, stream.run_id] = stream
        name = f"follow {stream.run_id}"
        await self.nursery.start(self._follow, stream, View(mode), ref, name=name)
        return None

    async def _follow(
        self,
        stream: EventStream,
        view: View,
        ref: Ref,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run a run: reply to its command, then hand its events over until DONE."""
        try:
            async with stream:
                if stream.refusal is not None:
                    self._run_ids.discard(stream.run_id)
                    await self._reject(ref, stream.refusal.code, str(stream.refusal))
                    return task_status.started()
                await self._accept(ref, stream.run_id)
                task_status.started()
                await self._hand_over(stream, view)
        finally:
            self._live -= 1
            self.hosting.forget((self.tenant_id, stream.run_id))

    async def _hand_over(self, stream: EventStream, view: View) -> None:
        while True:
            try:
                batch = await stream.receive_batch()
            except trio.EndOfChannel:
                return
            if texts := encode_events(self._show(batch, view), is_batch=self.is_batch):
                await self._send.send(texts)

    def _show(self, batch: list[AgentEvent], view: View) -> list[AgentEvent]:
        shown = batch if self.hosting.debug else [conceal(event) for event in batch]
        return [seen for event in shown if (seen := view.see(event)) is not None]

    # Controlling

    async def _control(self, command: Command) -> None:
        stream = self.hosting.runs.get((self.tenant_id, command.run_id or ""))
        if stream is None:
            error = "no run of this id is under way"
            return await self._reject(command.ref, "unknown_run", error)
        self._apply(stream, command)
        return await self._accept(command.ref, stream.run_id)

    @staticmethod
    def _apply(stream: EventStream, command: Command) -> None:
        """Do what is asked; whether it took effect is seen in the events."""
        match command:
            case CancelCommand():
                stream.cancel(command.reason or "the client cancelled")
            case CancelToolCommand():
                stream.cancel_tool(command.call_id)
            case ApproveCommand():
                stream.approve(command.call_id)
            case DenyCommand():
                stream.deny(command.call_id, command.reason)
            case AnswerCommand():
                stream.answer(command.request_id, command.text)
            case MessageCommand() | ResumeCommand():
                raise AssertionError("not a control")
            case _:
                assert_never(command)

    # Replying

    async def _accept(self, ref: Ref, run_id: str) -> None:
        await self._send.send([encode_accepted(ref, run_id)])

    async def _reject(self, ref: Ref, code: str, error: str) -> None:
        await self._send.send([encode_rejected(ref, code, error)])
