"""What all tests share."""

from __future__ import annotations

import functools
import gc
import inspect
import signal
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import attrs
import pytest
import trio
import websockets.frames
import wsproto.events
from hypothesis import Phase, settings

from tests.support.tracing import traced_at_first

# The same examples in every run: what fails here fails for everybody, and nothing fails by luck.
settings.register_profile("flowtrio", derandomize=True, database=None, deadline=None)
# Making a failing example small takes most of the time of the tests in which something wrong is
# found out. The whole run, by nox, tells it as it is found; alone, its test makes it small.
settings.register_profile(
    "unshrunk", settings.get_profile("flowtrio"), phases=[Phase.explicit, Phase.generate]
)
settings.load_profile("flowtrio")


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it puts into the background so, and all that the tests start inherits it:
    # whoever waits there for Ctrl-C to work would wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Spare the collector the tests themselves.

    Thousands of them are half a gigabyte, which each collection would walk: a second, where a test
    asks for one, and many do.
    """
    gc.collect()
    gc.freeze()


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


# 1011 is what a server says of an error of its own: none of our tests may be told it, nor tell it.

INTERNAL_ERROR = 1011
_told: list[int] = []
"""What was said or heard within a test by those who close with it."""


def _watch_closing(cls: Any, method: str) -> None:
    """Note each 1011 of a close frame that is made, be it to send it or because it came."""
    original = getattr(cls, method)

    def noting(self: Any, code: Any, *args: Any, **keys: Any) -> None:
        if code == INTERNAL_ERROR:
            _told.append(code)
        original(self, code, *args, **keys)

    setattr(cls, method, noting)


_watch_closing(wsproto.events.CloseConnection, "__init__")  # ours, trio-websocket's, Hypercorn's
_watch_closing(websockets.frames.Close, "__init__")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Fail a test in which a connection was closed with 1011."""
    _told.clear()
    with traced_at_first(pyfuncitem):
        result = yield
    assert not _told, f"a WebSocket was closed with 1011 within {pyfuncitem.name}"
    return result


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Make a report fit to be sent: tests that share their work do it in UTF-8.

    What is logged of odd texts has halves of characters in it.
    """
    data = yield
    return _fit(data)


def _fit(data: Any) -> Any:
    match data:
        case str():
            return data.encode(errors="replace").decode()
        case list() | tuple():
            return type(data)(map(_fit, data))
        case dict():
            return {key: _fit(value) for key, value in data.items()}
        case _:
            return data
