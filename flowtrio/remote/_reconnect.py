"""A line to a server that is made again when it is lost: sooner at first, and then more slowly."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import trio

from ._closing import MOST_REFUSALS, is_refused
from ._line import Line, Target, hold_line, is_final

_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 5.0


@attrs.define(eq=False)
class Backoff:
    """The pauses between attempts, and the end of patience."""

    patience: float
    """Seconds without a line after which there are no more attempts."""
    _delay: float = attrs.field(factory=lambda: _FIRST_DELAY, init=False)
    _lost_at: float = attrs.field(factory=trio.current_time, init=False)

    @property
    def is_over(self) -> bool:
        """Whether patience is."""
        return trio.current_time() - self._lost_at > self.patience

    def begin_anew(self) -> None:
        """There was a line until now."""
        self._delay, self._lost_at = _FIRST_DELAY, trio.current_time()

    async def wait(self) -> None:
        """Pause before the next attempt."""
        # Spread, so that all clients of a server that restarts do not come at once.
        await trio.sleep(self._delay * random.uniform(0.5, 1))
        self._delay = min(self._delay * 2, _LONGEST_DELAY)


async def stay_connected(
    target: Target,
    patience: float,
    talk: Callable[[Line], Awaitable[Exception]],
    task_status: trio.TaskStatus[Exception | None],
) -> Exception | None:
    """Connect and talk, again and again.

    Args:
      target: The server.
      patience: Seconds without a line after which it is given up.
      talk: Talks on a line that is open until it is lost; see `hold_line`.
      task_status: Started with None as soon as there is a line; where the first attempt fails, with
        the reason, and then there is no second one.

    Returns:
      Why it was given up; None where it never began.

    """
    backoff = Backoff(patience)
    has_started = has_heard = False
    refusals = 0
    """Lines in a row on which what was sent was not taken, whatever else was heard there."""

    async def begin(line: Line) -> Exception:
        nonlocal has_started, has_heard
        if not has_started:
            has_started = True
            task_status.started(None)
        try:
            return await talk(line)
        finally:
            has_heard = line.has_heard

    while True:
        has_heard = False
        failure = await hold_line(target, begin)
        if not has_started:
            task_status.started(failure)
            return None
        refusals = refusals + 1 if is_refused(failure) else 0
        if refusals == MOST_REFUSALS:
            return failure
        if has_heard:
            backoff.begin_anew()
        elif is_final(failure) or backoff.is_over:
            return failure
        await backoff.wait()
