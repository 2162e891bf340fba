"""What all tests share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import attrs
import pytest
import trio
from hypothesis import settings

# The same examples in every run: what fails here fails for everybody, and nothing fails by luck.
settings.register_profile("flowtrio", derandomize=True, database=None, deadline=None)
settings.load_profile("flowtrio")


@attrs.define
class _Bodies:
    """How often the running test's body began, and how often it ended; Hypothesis repeats it."""

    begun: int = 0
    ended: int = 0


_bodies = _Bodies()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail a test that a stray `Cancelled` ended.

    pytest-trio cancels a scope of its own around each test when that ends, and so takes the
    exception for its own: what stood behind it in the test would never have been asserted.
    """
    _bodies.begun = _bodies.ended = 0
    is_async = _watch(item)
    result = yield
    if is_async and (_bodies.begun == 0 or _bodies.ended < _bodies.begun):
        pytest.fail(
            "the test did not reach its end: it was cancelled, and not by a scope of its own"
        )
    return result


def _watch(item: Any) -> bool:
    """Count the bodies of an asynchronous test, before pytest-trio wraps it too."""
    if item.get_closest_marker("trio") is None:
        return False
    holder, name = item, "obj"
    if hasattr(item.obj, "hypothesis"):
        holder, name = item.obj.hypothesis, "inner_test"
    body = getattr(holder, name)
    if inspect.iscoroutinefunction(body):
        # Else another parameter's test has wrapped it already.
        setattr(holder, name, _counted(body))
    return True


def _counted(body: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(body)
    async def counted(*args: Any, **kwargs: Any) -> None:
        _bodies.begun += 1
        try:
            await body(*args, **kwargs)
        except BaseException as exc:
            _bodies.ended += not _is_cancelled(exc)
            raise
        _bodies.ended += 1

    return counted


def _is_cancelled(exc: BaseException) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return all(map(_is_cancelled, exc.exceptions))
    return isinstance(exc, trio.Cancelled)
