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
from contextvars import ContextVar
from typing import Protocol

logger = logging.getLogger("flowtrio")


class _Info(Protocol):
    @property
    def log_keys(self) -> Mapping[str, object]: ...


class _Run(Protocol):
    @property
    def info(self) -> _Info: ...


inside: ContextVar[_Run | None] = ContextVar("flowtrio_run", default=None)
"""The run whose task this is; `_run` sets it.

One variable for all that is asked of it: each that a task sets is a few objects more that it has.
"""


def log_keys() -> Mapping[str, object]:
    """What lines carry by name that are written inside a run: ``run_id``, and its telemetry's."""
    run = inside.get()
    return {} if run is None else run.info.log_keys


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
      keys: What stands in it by name too, for machines, beside what `log_keys` tells; by default
        the ``run_id``, if it has one.

    """
    if keys is None:
        keys = {"run_id": values[0]} if text.startswith(_OF_A_RUN) else {}
    own = log_keys()
    if own and keys.get("run_id", own["run_id"]) == own["run_id"]:
        keys = {**own, **keys}
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
