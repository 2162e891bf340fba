"""The process's Trio thread: its jobs, its end, and what may go wrong in it."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import outcome
import pytest
import trio

from flowtrio._run._thread import ThreadEnded, TrioThread, hold, release


@attrs.define(eq=False)
class Owner:
    """Waits for one job."""

    told: queue.SimpleQueue[outcome.Outcome[Any]] = attrs.Factory(queue.SimpleQueue)
    error: Exception | None = None

    def end(self, result: outcome.Outcome[Any]) -> None:
        self.told.put(result)
        if self.error is not None:
            raise self.error

    def is_gone(self) -> bool:
        return False

    def give_up(self) -> None:
        raise AssertionError

    def wait(self) -> Any:
        return self.told.get(timeout=10).unwrap()


@pytest.fixture
def thread() -> Iterator[TrioThread]:
    thread = TrioThread()
    yield thread
    thread.stop()
    thread.join(10)


def _start(thread: TrioThread, fn: Callable[..., Any], owner: Owner) -> Any:
    return thread.start(fn, owner, contextvars.copy_context(), "a job")


def test_a_posted_function_that_fails_is_logged_and_costs_nobody_else_anything(
    thread: TrioThread, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    thread.post(fail)

    assert thread.ask(lambda: 42) == 42
    assert "a function posted to flowtrio's Trio thread failed" in caplog.text


def test_what_is_asked_may_fail(thread: TrioThread) -> None:
    with pytest.raises(ZeroDivisionError):
        thread.ask(lambda: 1 // 0)


def test_an_owner_that_fails_costs_nobody_else_anything(
    thread: TrioThread, caplog: pytest.LogCaptureFixture
) -> None:
    owner = Owner(error=ValueError("no"))
    _start(thread, lambda: trio.sleep(0), owner)
    owner.wait()

    assert thread.ask(lambda: 42) == 42
    assert "ValueError: no" in caplog.text


def test_whoever_waits_is_released_when_the_thread_ends(thread: TrioThread) -> None:
    owner = Owner()
    _start(thread, trio.sleep_forever, owner)
    thread.stop()

    with pytest.raises(ThreadEnded):
        owner.wait()
    thread.join()
    with pytest.raises(ThreadEnded):
        _start(thread, trio.sleep_forever, owner)
    assert thread.jobs == set()
    assert thread.ask(lambda: 42) == 42
    thread.stop()


def test_whoever_waits_is_released_when_the_thread_breaks(
    thread: TrioThread, caplog: pytest.LogCaptureFixture
) -> None:
    async def explode() -> None:
        raise ZeroDivisionError

    owner = Owner()
    _start(thread, trio.sleep_forever, owner)
    thread.post(lambda: trio.lowlevel.spawn_system_task(explode))

    with pytest.raises(ThreadEnded):
        owner.wait()
    thread.join(10)
    assert not thread.is_alive
    assert "flowtrio's Trio thread broke" in caplog.text


def test_a_thread_that_cannot_begin_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError("too many open files")

    monkeypatch.setattr(trio, "run", fail)

    with pytest.raises(ThreadEnded, match="did not begin"):
        TrioThread()
    assert "too many open files" in caplog.text


def test_a_job_whose_room_is_closed_is_told(thread: TrioThread) -> None:
    nurseries: list[trio.Nursery] = []

    async def open_and_close() -> None:
        async with trio.open_nursery() as nursery:
            nurseries.append(nursery)

    first, second = Owner(), Owner()
    _start(thread, open_and_close, first)
    first.wait()
    context = contextvars.copy_context()
    thread.start(trio.sleep_forever, second, context, "a job", nurseries[0])

    with pytest.raises(ThreadEnded):
        second.wait()


def test_the_last_one_to_let_go_ends_the_thread_unless_it_is_kept() -> None:
    ended = threading.Event()
    thread = hold()
    assert hold() is thread
    assert not release(thread)
    assert release(thread, ended.set)
    assert ended.wait(10)
    thread.join(10)
    assert not thread.is_alive

    other = hold(keep=True)
    assert other is not thread
    assert not release(other)
    assert hold() is other


def test_a_thread_that_broke_is_replaced() -> None:
    thread = hold()
    thread.stop()
    thread.join(10)
    other = hold()

    assert other is not thread
    assert not release(thread) or True
    assert release(other)
    other.join(10)
