"""Frames: what one agent body or one tool call owns while it runs.

A frame knows which brackets were opened inside it, so that whoever supervises it can close them at
once; which clocks stop while a person is waited for; and the background tasks that its body
started, which are awaited at the body's end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import trio
from trio.lowlevel import checkpoint

from flowtrio._core._events import ROOT, AgentEvent, EventType
from flowtrio._core._failures import leaves
from flowtrio._core._nothing import NOTHING

from ._clock import Alarm
from ._loops import elsewhere, is_here
from ._places import Places
from ._run import NO_USAGE

if TYPE_CHECKING:
    from flowtrio._core._chunks import Usage
    from flowtrio._core._transcript import Transcript
    from flowtrio.abc import LLMClient

    from ._hooks import Hooks
    from ._open import OpenThing
    from ._run import Run


class Frame:
    """One agent body, or one tool call of it."""

    __slots__ = (
        "_background_error",
        "_children",
        "_nursery",
        "_places",
        "_transcript",
        "agent",
        "aside",
        "asked",
        "attempt",
        "call_id",
        "client",
        "enclosing_call",
        "hooks",
        "is_closed",
        "make_context",
        "parent",
        "run",
        "things",
        "timer",
        "tool_name",
        "usage",
    )

    def __init__(
        self,
        run: Run,
        parent: Frame | None,
        agent: str,
        *,
        call_id: str | None = None,
        tool_name: str | None = None,
        client: LLMClient | None = None,
        transcript: Transcript | None = None,
        make_context: Callable[[Frame], Any] | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        self.run: Run = run
        self.parent: Frame | None = parent
        self.agent: str = agent
        self.call_id: str | None = call_id
        self.tool_name: str | None = tool_name
        self.enclosing_call: str | None = call_id
        """The innermost call that this frame is, or is inside of."""
        if call_id is None and parent is not None:
            self.enclosing_call = parent.enclosing_call
        self.client: LLMClient | None = client
        if client is None and parent is not None:
            self.client = parent.client
        if transcript is None and parent is not None:
            transcript = parent._transcript
        if make_context is None:
            assert parent is not None
            make_context = parent.make_context
        self.make_context: Callable[[Frame], Any] = make_context
        """Makes what a body in this frame, or in one inside it, is given to say and do things."""
        if hooks is None:
            hooks = run.info.hooks if parent is None else parent.hooks
        self.hooks: Hooks = hooks
        """What stands around the tools and models of its code."""
        self.aside: str | None = None
        """The name under which its code asks models for purposes of its own, which is no part of
        the agent's conversation; None where it speaks for the agent."""
        self.attempt: int = 0
        """Which try of its function this is, from 1, where it is a call."""
        self._transcript: Transcript | None = transcript
        self.asked: object | None = None
        """The calls that models asked this body for, if any did; kept here for `_replies`."""
        self.usage: Usage = NO_USAGE
        self.is_closed: bool = parent is not None and parent.is_closed
        """Whether it was ended: what its code still says is discarded."""
        self.things: int = 0
        """How many things it has registered as open."""
        self.timer: FrameTimer | None = None
        self._children: dict[Frame, None] = NOTHING
        self._places: Places | None = None
        self._nursery: trio.Nursery | None = None
        self._background_error: BaseException | None = None
        if parent is not None:
            if parent._children is NOTHING:
                parent._children = {}
            parent._children[self] = None

    @property
    def transcript(self) -> Transcript:
        """The conversation that its code is in; a tool's is that of the agent which called it."""
        return self._transcript or self.run.log.transcripts[ROOT]

    # What it says

    async def emit(self, type: EventType, data: dict[str, Any]) -> AgentEvent | None:
        """Emit an event in this frame's name; discarded when the frame was ended."""
        return await self.run.log.emit(type, data, self)

    async def check_open(self, what: str) -> None:
        """Refuse to begin *what* when this frame was ended: no event would tell of it.

        Raises:
          trio.ClosedResourceError: it was.
          RuntimeError: this is no task of the run's Trio loop.

        """
        if self.is_closed:
            await checkpoint()
            raise self.closed(what)
        self.check_here(what)

    def check_here(self, what: str) -> None:
        """Refuse *what* in another Trio loop than the run's, unless it comes too late anyway."""
        if not self.is_closed and not is_here(self.run.token):
            raise elsewhere(what, self.run.info.run_id)

    def closed(self, what: str) -> trio.ClosedResourceError:
        """Say that it is too late for *what*."""
        who = f"agent {self.agent!r}" if self.call_id is None else f"call {self.call_id}"
        return trio.ClosedResourceError(
            f"can't {what} when {who} has ended (run {self.run.info.run_id!r})"
        )

    @contextmanager
    def bracket(self, key: str, thing: OpenThing) -> Iterator[None]:
        """Have *thing* open for the block; closed at once where the block leaves it so."""
        log = self.run.log
        log.opened.add(key, thing)
        try:
            yield
        except BaseException:
            log.close((key,))
            raise
        finally:
            log.opened.forget(key)

    # How it ends

    def close(self) -> None:
        """End this frame and those inside it: close at once what they have open."""
        log = self.run.log
        if not self._children and not self.things:
            # The usual end of a call.
            self.is_closed = True
        else:
            self.mark_closed()
            log.close_ended()
        if log.channel.emitters:
            log.channel.release()

    def leave(self) -> None:
        """Close and forget this frame: its body has ended."""
        self.close()
        if self.parent is not None and self.parent._children:
            self.parent._children.pop(self, None)

    def mark_closed(self) -> None:
        """Let nothing more be said from here or inside."""
        pending: list[Frame] = [self]
        while pending:
            frame = pending.pop()
            frame.is_closed = True
            pending.extend(frame._children)

    def stop_body(self, reason: str) -> None:
        """Cancel what `run_body` runs, also where its caller is shielded."""
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel(reason=reason)

    # What it costs

    def add_usage(self, usage: Usage) -> None:
        """Count what a model reply cost, here and in all that encloses it."""
        frame: Frame | None = self
        while frame is not None:
            frame.usage += usage
            frame = frame.parent
        self.run.usage += usage

    # What it waits for

    @property
    def places(self) -> Places:
        """Places for the calls that this frame's body makes at once.

        Each frame has its own: a call that waits for a place never waits for one that encloses it.
        """
        if self._places is None:
            self._places = Places(self.run.limits.parallel_tools)
        return self._places

    @contextmanager
    def waiting_for_person(self) -> Iterator[None]:
        """Stop the clocks of the run and of every call around this frame."""
        timers = [frame.timer for frame in self.around() if frame.timer is not None]
        self.run.clock.pause()
        for timer in timers:
            timer.pause()
        try:
            yield
        finally:
            for timer in timers:
                timer.resume()
            self.run.clock.resume()

    def around(self) -> Iterator[Frame]:
        """This frame, and those that it is inside of, from the inside out."""
        frame: Frame | None = self
        while frame is not None:
            yield frame
            frame = frame.parent

    # What it runs

    async def run_body(self, fn: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Run *fn* and the background tasks that it starts; raises what the first of them raised.

        For nested agents and tools. The root agent's background tasks are the run's own.
        """
        error: BaseException | None = None
        value = None
        try:
            async with trio.open_nursery() as self._nursery:
                try:
                    value = await fn(*args)
                except BaseException as exc:
                    if is_cancelled(exc):
                        raise
                    # Kept out of the nursery, which would wrap it into a group.
                    error = exc
                    self._nursery.cancel_scope.cancel(reason="the body raised")
        except BaseExceptionGroup as group:
            # Background tasks raise nothing but Cancelled, which callers want bare.
            error = error or next(leaves(group))
        if self._background_error is not None and (error is None or is_cancelled(error)):
            error = self._background_error
        if error is not None:
            raise error
        return value

    def start_soon(self, fn: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
        """Start a background task of this frame's body."""
        self.check_here("start a background task")
        if self.parent is None and not self.is_closed:
            # A task of the run, which the root body waits for before it ends.
            self.run.background += 1
            name = getattr(fn, "__name__", "background")
            return self.run.spawn(self._counted, fn, args, name=name)
        too_late = trio.ClosedResourceError("can't start a background task when its body has ended")
        if self._nursery is None or self.is_closed:
            raise too_late
        try:
            self._nursery.start_soon(self._background, fn, args)
        except RuntimeError:
            # The body has ended in this moment: its nursery takes nobody in any more.
            raise too_late from None
        return None

    async def _counted(self, fn: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
        try:
            await fn(*args)
        finally:
            self.run.background -= 1
            self.run.wake_waiters()

    async def _background(self, fn: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
        try:
            await fn(*args)
        except BaseException as exc:
            if is_cancelled(exc):
                raise
            if self._background_error is None:
                self._background_error = exc
            else:
                self.run.note_error(exc, "agent")
            assert self._nursery is not None
            self._nursery.cancel_scope.cancel(reason="a background task raised")


def is_cancelled(exc: BaseException) -> bool:
    """Whether *exc* is nothing but a cancellation; nurseries wrap those into groups."""
    return all(isinstance(leaf, trio.Cancelled) for leaf in leaves(exc))


@attrs.frozen
class Envoy:
    """Tells of the end of a nested agent, which does not speak any more, for its parent."""

    _parent: Frame
    agent: str
    """Path of the nested agent."""

    @property
    def is_closed(self) -> bool:
        """Whether the parent was ended too."""
        return self._parent.is_closed


class FrameTimer(Alarm):
    """A call's deadline that can be stopped while a person is waited for."""

    __slots__ = ("_left", "_pauses", "_run", "seconds")

    def __init__(self, run: Run, seconds: float, ring: Callable[[], None]) -> None:
        # Without a call of `Alarm.__init__`: each call of a tool makes one of these.
        self.when: float = run.log.now() + seconds
        self.ring: Callable[[], None] = ring
        self.seconds: float = seconds
        """How long the call may take."""
        self._run = run
        self._left = seconds
        self._pauses = 0
        run.clock.set_alarm(self)

    def stop(self) -> None:
        """Do not ring any more."""
        self._run.clock.forget(self)
        self._pauses += 1

    def pause(self) -> None:
        """Stop counting."""
        if not self._pauses:
            self._left = self.when - self._run.log.now()
            self._run.clock.forget(self)
        self._pauses += 1

    def resume(self) -> None:
        """Go on counting, once for each pause."""
        self._pauses -= 1
        if not self._pauses:
            self.when = self._run.log.now() + self._left
            self._run.clock.set_alarm(self)
