"""Plain functions of tools, which run in worker threads.

A thread cannot be cancelled. So it belongs to a task of the run, which outlives the call when that
is ended early; with ``abandon`` it belongs to nobody.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs
import trio
from trio.lowlevel import RunVar

if TYPE_CHECKING:
    from flowtrio._run._run import Run
    from flowtrio._run._simulation import Function

    from ._tools import Tool

THREADS = 40
"""Plain functions that run at once in worker threads, in one Trio loop."""

_threads: RunVar[trio.CapacityLimiter] = RunVar("flowtrio_threads")


async def call_in_thread(
    run: Run, tool: Tool[..., Any], keywords: dict[str, Any], name: str
) -> Any:
    """Call a tool's plain function in a worker thread; *name* is that of the run's task for it."""
    limiter = _thread_limiter()
    thread = Thread(lambda: call_plain(tool, keywords))
    if tool.abandon:
        await trio.to_thread.run_sync(thread.call, abandon_on_cancel=True, limiter=limiter)
        return thread.result()
    # The place is waited for here, where that can be cancelled, and not by the task.
    await limiter.acquire_on_behalf_of(thread)
    thread.limiter = limiter
    run.spawn(thread.work, name=name)
    return await thread.wait()


@attrs.define(eq=False)
class Thread:
    """A plain function on its way through a worker thread."""

    _fn: Callable[[], Any]
    limiter: trio.CapacityLimiter | None = None
    _is_wanted: bool = True
    _done: trio.Event = attrs.field(factory=trio.Event)
    _value: Any = None
    _error: BaseException | None = None

    def call(self) -> None:
        """Call it, in the worker thread.

        Trio would look into what it raises, and lose the thread to an exception that does not let
        anybody.
        """
        try:
            self._value = self._fn()
        except BaseException as exc:
            self._error = exc

    async def work(self) -> None:
        """Run it; the run's task."""
        assert self.limiter is not None
        try:
            if self._is_wanted:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(self.call, limiter=trio.CapacityLimiter(1))
        except BaseException as exc:
            self._error = exc
        finally:
            self.limiter.release_on_behalf_of(self)
            self._done.set()

    async def wait(self) -> Any:
        """Wait for what it returns or raises; the call's task."""
        try:
            await self._done.wait()
        finally:
            self._is_wanted = False
        return self.result()

    def result(self) -> Any:
        """What it returned or raises."""
        if self._error is not None:
            raise self._error
        return self._value


def call_plain(tool: Function, keywords: dict[str, Any]) -> Any:
    value = tool.fn(**keywords)
    if inspect.iscoroutine(value):
        value.close()
        raise TypeError(
            f"tool {tool.name!r} gave a coroutine: expected an async def that awaits it"
        )
    return value


def _thread_limiter() -> trio.CapacityLimiter:
    try:
        return _threads.get()
    except LookupError:
        limiter = trio.CapacityLimiter(THREADS)
        _threads.set(limiter)
        return limiter
