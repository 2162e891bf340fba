"""Lines for operators, which cost a run nothing whatever becomes of them.

The handlers and filters of a logger are the application's. One that raises would do so in the midst
of a run's steps, also of those that nobody stands behind: a task would end, or a reader wait for
ever. So runs write their lines through `tell`.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from collections.abc import Mapping

logger = logging.getLogger("flowtrio")


_OF_A_RUN = "run %s"
"""How a line begins that tells of a run: then the run's id is its first value."""


def tell(
    level: int,
    text: str,
    *values: object,
    exc: BaseException | None = None,
    keys: Mapping[str, object] | None = None,
) -> None:
    """Write a line into the log; what its handlers raise is printed, as `logging` prints its own.

    Args:
      level: As in `logging`.
      text: The line, with a place for each of *values*.
      values: What stands there.
      exc: An exception whose traceback belongs to the line.
      keys: What stands in it by name too, for machines; by default the ``run_id``, if it has one.

    """
    if keys is None and text.startswith(_OF_A_RUN):
        keys = {"run_id": values[0]}
    try:
        logger.log(level, text, *values, exc_info=exc, extra=keys)
    except BaseException:
        if logging.raiseExceptions:
            with contextlib.suppress(Exception):
                traceback.print_exc(file=sys.stderr)


def is_told(level: int) -> bool:
    """Whether anybody hears of a line of this level; those that cost something need not be made."""
    try:
        return logger.isEnabledFor(level)
    except Exception:
        # A logger of one's own: `tell` will say what is wrong with it.
        return True
