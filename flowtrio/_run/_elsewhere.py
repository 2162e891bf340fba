"""A stream's two homes: the Trio loop that reads it, or the Trio thread behind an asyncio task.

Where a stream is entered or iterated in an asyncio task, its run lives in the process's Trio
thread, and a stream of its own is read there for this one.
"""

from __future__ import annotations

import enum
import sys
import threading
from typing import TYPE_CHECKING, Any

import trio

from flowtrio._core._events import AgentEvent, StreamMode

from ._controls import Controls
from ._thread import hold, release

if TYPE_CHECKING:
    from ._asyncio import Reading
    from ._home import Home
    from ._host import Host


class Form(enum.Enum):
    """How a stream is read, if it is."""

    NEW = enum.auto()
    BLOCK = enum.auto()
    BARE = enum.auto()


class Elsewhere(Controls):
    """A stream as far as it matters where it is read. `EventStream` is one."""

    __slots__ = (
        "_away",
        "_form",
        "_home",
        "_host",
        "_is_reading",
        "_is_spent",
        "_mode",
        "_until_schedule",
    )

    def __init__(self, host: Host, mode: StreamMode, home: Home) -> None:
        self._run = host.run
        self._thread = None
        self._host = host
        self._home = home
        self._mode = mode
        self._form = Form.NEW
        self._is_reading = False
        self._is_spent = False
        """Whether its reader was told that no more will come."""
        self._until_schedule = 0
        self._away: Reading | None = None
        """Who reads the run in the Trio thread, where this is read in an asyncio task."""

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation as far as it went: the history, the message and what followed.

        Valid as ``history=`` of the next run at any time and however the run ended: each call has a
        result, a synthetic one where it has no other; text that ended early is kept and marked.
        """
        if self._away is None:
            return self._run.messages()
        messages: list[dict[str, Any]] = []

        def read() -> bool:
            # What another thread writes is read there.
            messages.extend(self._run.messages())
            return True

        return messages if self._in_loop(read) else self._run.messages()

    def _begin(self, form: Form) -> None:
        if self._form is not Form.NEW:
            how = "entered" if self._form is Form.BLOCK else "iterated"
            raise RuntimeError(
                f"can't start run {self._run.info.run_id!r} again: its stream was {how} before"
            )
        try:
            trio.lowlevel.current_trio_token()
        except RuntimeError:
            if not _is_asyncio():
                raise RuntimeError(
                    "a flowtrio stream is read under Trio or asyncio: expected a call inside "
                    "trio.run(main), or flowtrio.sync for plain code"
                ) from None
            self._begin_elsewhere()
        else:
            self._until_schedule = self._run.info.schedule_every
            self._thread = threading.get_ident()
        self._form = form

    # In an asyncio task

    def _begin_elsewhere(self) -> None:
        from ._asyncio import Reading

        # Outside any bridge it stays, so that the clients of models keep their connections.
        thread = hold(keep=True)
        # From now on controls reach the run there.
        self._run.token = thread.token
        stream: Any = type(self)(self._host, self._mode, self._home)
        self._away = Reading(thread, lambda: stream, lambda: release(thread, waits=False))

    async def _enter_elsewhere(self, away: Reading) -> None:
        try:
            await away.wait_opened()
        except BaseException:
            await away.leave()
            raise

    async def _receive_elsewhere(self, away: Reading) -> AgentEvent:
        self._is_reading = True
        try:
            return await away.receive()
        except trio.EndOfChannel:
            self._is_spent = True
            raise
        except BaseException:
            if self._form is Form.BARE:
                # See _reading_cancelled.
                await away.leave()
            raise
        finally:
            self._is_reading = False

    async def _leave_elsewhere(self, away: Reading, exc: BaseException | None) -> None:
        try:
            await away.leave()
        except BaseException:
            if exc is None:
                raise


def _is_asyncio() -> bool:
    """Whether the current task is one of asyncio's."""
    asyncio = sys.modules.get("asyncio")
    try:
        return asyncio is not None and asyncio.get_running_loop() is not None
    except RuntimeError:
        return False
