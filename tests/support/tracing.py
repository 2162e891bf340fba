"""How long coverage follows a property."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Generator
from typing import Any

TRACED = 40
"""Examples of a property of which coverage is told; all of them are judged.

Whoever follows each line of thousands more, Hypothesis's own too, spends most of the time of those
tests on what is known by then: modules are covered by their own tests.
"""


@contextlib.contextmanager
def traced_at_first(item: Any) -> Generator[None, None, None]:
    """Stop tracing a property after its first examples, and go on with it after the last."""
    coverage, property = coverage_of_session(), getattr(item.obj, "hypothesis", None)
    if coverage is None or property is None or inspect.iscoroutinefunction(property.inner_test):
        yield
        return
    body, left = property.inner_test, TRACED

    @functools.wraps(body)
    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            coverage.stop()
        return body(*args, **kwargs)

    property.inner_test = counted
    try:
        yield
    finally:
        property.inner_test = body
        if left <= 0:
            coverage.start()


def coverage_of_session() -> Any:
    """What traces this process, if anything does."""
    module = sys.modules.get("coverage")
    return None if module is None else module.Coverage.current()
