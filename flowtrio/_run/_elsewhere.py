"""What a stream is where it is read in an asyncio task: its run lives in the Trio thread."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from flowtrio._core._events import AgentStatus
from flowtrio._core._exceptions import LimitExceeded

from ._controls import Controls
from ._log import RunStatistics
from ._loops import elsewhere, is_here
from ._pending import Unfit

if TYPE_CHECKING:
    from ._reading import Reading
    from ._thread import TrioThread

T = TypeVar("T")


def is_elsewhere(what: str) -> bool:
    """Whether this is called in an asyncio task, and not in one of Trio's.

    Raises:
      RuntimeError: it is called in neither.

    """
    if trio.lowlevel.in_trio_task():
        return False
    # Who runs asyncio has imported it; nobody else shall pay for it.
    asyncio = sys.modules.get("asyncio")
    try:
        if asyncio is None or asyncio.current_task() is None:
            raise RuntimeError
    except RuntimeError:
        raise RuntimeError(
            f"a flowtrio {what} is read under Trio or asyncio: expected a call inside "
            "trio.run(main) or asyncio.run(main()), or flowtrio.sync in plain code"
        ) from None
    return True


def read_elsewhere(make: Callable[[], AbstractAsyncContextManager[Any]], name: str) -> Reading:
    """Give who will read what *make* gives in the Trio thread, for the current asyncio task."""
    from ._reading import Reading

    return Reading(make, name)


class OneRun(Controls):
    """One run as its reader sees it, which may live in the Trio thread while he is elsewhere."""

    __slots__ = ("_place",)

    _place: TrioThread | None
    """The Trio thread, where the run lives there and its reader is elsewhere."""

    def _lives_in(self, thread: TrioThread) -> None:
        # From now on controls reach the run there; also those that are called there.
        self._place = thread
        self._run.token = thread.token
        self._thread = thread.ident

    def _reach(self, fn: Callable[[], bool | Unfit]) -> bool | Unfit:
        return super()._reach(fn) if self._place is None else self._place.ask(fn)

    def _look(self, fn: Callable[[], T]) -> T:
        """Call what looks at the run's parts, where nothing changes them meanwhile."""
        return fn() if self._place is None else self._place.ask(fn)

    def _check_here(self, what: str) -> None:
        """Refuse *what* in another Trio loop than the run's, while anything of that is alive.

        Where its reader is an asyncio task, in any: the run's own tools are in one.
        """
        if self._place is not None:
            if trio.lowlevel.in_trio_task():
                raise RuntimeError(
                    f"can't {what} of run {self.run_id!r} in a Trio task: expected the asyncio "
                    "loop in which it is read, or stream.cancel() here"
                )
        elif not self._run.is_joined and not is_here(self._run.token):
            raise elsewhere(what, self.run_id)

    @property
    def _is_inside(self) -> bool:
        """Whether the run would wait for the current task."""
        return not self._run.is_joined and self._run.waits_for(trio.lowlevel.current_task())

    def _leave_unattended(self) -> bool:
        self._run.leave_unattended()
        return True

    def _tell_interrupt(self) -> None:
        """Raise a Ctrl-C that struck inside the run, once."""
        interrupt, self._run.interrupt = self._run.interrupt, None
        if interrupt is not None:
            raise interrupt

    @property
    def _name(self) -> str:
        return f"flowtrio run {self.run_id}"

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._run.info.run_id

    @property
    def status(self) -> AgentStatus:
        """What the run is doing; ``initializing`` until it starts."""
        return self._run.log.status

    @property
    def refusal(self) -> LimitExceeded | None:
        """Why the run was not let in, known from its first event on; None if it was.

        Only an `Orchestrator` refuses, and its runs then fail at once: for servers that would
        rather say so than send such a run's events.
        """
        return self._run.refusal

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation as far as it went: the history, the message and what followed.

        Valid as ``history=`` of the next run at any time and however the run ended: each call has a
        result, a synthetic one where it has no other; text that ended early is kept and marked.
        """
        return self._look(self._run.messages)

    def statistics(self) -> RunStatistics:
        """A snapshot for debugging; never to be used for logic."""
        return self._look(lambda: RunStatistics.of(self._run.log))
