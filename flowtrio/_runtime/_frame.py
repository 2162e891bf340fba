"""Frames: what one agent body or one tool call owns while it runs.

A frame knows which brackets were opened inside it, so that whoever supervises it can close them at
once; which clocks stop while a person is waited for; and the background tasks that its body
started, which are awaited at the body's end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import trio

from flowtrio._core._chunks import Usage
from flowtrio._core._events import AgentEvent, EventType
from flowtrio._core._failures import leaves

from ._places import Places

if TYPE_CHECKING:
    from flowtrio.abc import LLMClient

    from ._run import Run


class Frame:
    """One agent body, or one tool call of it."""

    def __init__(
        self,
        run: Run,
        parent: Frame | None,
        agent: str,
        *,
        call_id: str | None = None,
        tool_name: str | None = None,
        client: LLMClient | None = None,
        history: Sequence[dict[str, Any]] = (),
    ) -> None:
        self.run = run
        self.parent = parent
        self.agent = agent
        self.call_id = call_id
        self.tool_name = tool_name
        self.client: LLMClient | None = client
        if client is None and parent is not None:
            self.client = parent.client
        self.history = history
        self.usage = Usage()
        self.is_closed = False
        """Whether it was ended: what its code still says is discarded."""
        self.timer: FrameTimer | None = None
        # A dict, since an empty set takes three times as much, and most frames have no children.
        self._children: dict[Frame, None] = {}
        self._places: Places | None = None
        self._nursery: trio.Nursery | None = None
        self._background_error: BaseException | None = None
        if parent is not None:
            parent._children[self] = None

    # What it says

    async def emit(self, type: EventType, data: dict[str, Any]) -> AgentEvent | None:
        """Emit an event in this frame's name; discarded when the frame was ended."""
        if self.is_closed and not self.run.log.law.is_done:
            await trio.lowlevel.checkpoint()
            self.run.log.late_events += 1
            return None
        return await self.run.log.emit(type, data, self.agent)

    def own(self, key: str) -> None:
        """Have the bracket *key* closed with this frame."""
        self.run.log.owners[key] = self

    @contextmanager
    def bracket(self, key: str) -> Iterator[None]:
        """Close the bracket *key* at once if the block is left by an exception."""
        self.own(key)
        try:
            yield
        except BaseException:
            self.run.close_brackets({key})
            raise

    # How it ends

    def close(self) -> None:
        """End this frame and those inside it: close at once what they have open."""
        self._mark_closed()
        owners = self.run.log.owners
        self.run.close_brackets({key for key, owner in owners.items() if owner.is_closed})

    def leave(self) -> None:
        """Forget this frame: its body has ended."""
        self._mark_closed()
        if self.parent is not None:
            self.parent._children.pop(self, None)

    def _mark_closed(self) -> None:
        self.is_closed = True
        for child in self._children:
            child._mark_closed()

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
        timers = [frame.timer for frame in self._chain() if frame.timer is not None]
        self.run.pause_deadline()
        for timer in timers:
            timer.pause()
        try:
            yield
        finally:
            for timer in timers:
                timer.resume()
            self.run.resume_deadline()

    def _chain(self) -> Iterator[Frame]:
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
        if self.parent is None and not self.is_closed:
            return self.run.start_background(fn, args)
        if self._nursery is None or self.is_closed:
            raise trio.ClosedResourceError("can't start a background task when its body has ended")
        self._nursery.start_soon(self._background, fn, args)
        return None

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


class Alarm:
    """A synchronous function to be called by the run's host at a point of Trio's clock."""

    __slots__ = ("ring", "when")

    def __init__(self, when: float, ring: Callable[[], None]) -> None:
        self.when: float = when
        self.ring: Callable[[], None] = ring


class FrameTimer(Alarm):
    """A call's deadline that can be stopped while a person is waited for."""

    __slots__ = ("_left", "_pauses", "_run")

    def __init__(self, run: Run, seconds: float, ring: Callable[[], None]) -> None:
        super().__init__(run.log.now() + seconds, ring)
        self._run = run
        self._left = seconds
        self._pauses = 0
        run.set_alarm(self)

    def stop(self) -> None:
        """Do not ring any more."""
        self._run.forget(self)
        self._pauses += 1

    def pause(self) -> None:
        """Stop counting."""
        if not self._pauses:
            self._left = self.when - self._run.log.now()
            self._run.forget(self)
        self._pauses += 1

    def resume(self) -> None:
        """Go on counting, once for each pause."""
        self._pauses -= 1
        if not self._pauses:
            self.when = self._run.log.now() + self._left
            self._run.set_alarm(self)
