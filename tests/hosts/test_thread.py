"""The process's Trio thread: whoever waits for it hears, and nothing that is posted can end it."""

from __future__ import annotations

import contextvars
import queue
import threading
from typing import Any

import outcome
import pytest
import trio

from flowtrio._run import _thread
from flowtrio._run._thread import JobCancelled, ThreadEnded, TrioThread


@pytest.fixture
def thread() -> Any:
    made = TrioThread()
    yield made
    made.stop()


def start(thread: TrioThread, fn: Any) -> tuple[Any, queue.SimpleQueue[outcome.Outcome[Any]]]:
    told: queue.SimpleQueue[outcome.Outcome[Any]] = queue.SimpleQueue()
    job = thread.start(fn, told.put, contextvars.copy_context(), "a test's job")
    return job, told


def error_of(told: queue.SimpleQueue[outcome.Outcome[Any]]) -> BaseException:
    result = told.get(timeout=10)
    assert isinstance(result, outcome.Error)
    return result.error


async def gives() -> str:
    return "given"


async def raises() -> None:
    raise KeyboardInterrupt


def test_a_job_tells_how_it_ended(thread: TrioThread) -> None:
    _, told = start(thread, gives)
    assert told.get(timeout=10).unwrap() == "given"

    _, told = start(thread, raises)
    assert isinstance(error_of(told), KeyboardInterrupt)

    job, told = start(thread, trio.sleep_forever)
    job.cancel()
    assert isinstance(error_of(told), JobCancelled)
    assert thread.jobs == set()


def test_whoever_waits_hears_that_the_thread_has_ended(thread: TrioThread) -> None:
    _, told = start(thread, trio.sleep_forever)
    thread.stop()
    assert isinstance(error_of(told), ThreadEnded)

    with pytest.raises(ThreadEnded):
        thread.post(print)
    with pytest.raises(ThreadEnded):
        start(thread, gives)
    assert thread.jobs == set()
    assert not thread.is_alive
    thread.stop()


def test_a_job_that_comes_while_the_thread_ends_hears_that(thread: TrioThread) -> None:
    told: list[Any] = []

    def late() -> None:
        told.append(start(thread, gives)[1])

    async def cleans_up() -> None:
        try:
            await trio.sleep_forever()
        finally:
            # The nursery is cancelled, and takes tasks all the same: they begin cancelled.
            late()

    _, first = start(thread, cleans_up)
    _, second = start(thread, trio.sleep_forever)
    thread.stop()

    assert isinstance(error_of(first), ThreadEnded)
    assert isinstance(error_of(second), ThreadEnded)
    [late_told] = told
    assert late_told.get(timeout=10) is not None


def test_what_is_posted_and_raises_is_logged_and_harms_nobody(
    thread: TrioThread, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks() -> None:
        raise ZeroDivisionError

    thread.post(breaks)
    _, told = start(thread, gives)

    assert told.get(timeout=10).unwrap() == "given"
    assert "called in flowtrio's Trio thread failed" in caplog.text


def test_a_loop_that_breaks_releases_whoever_waits(
    thread: TrioThread, caplog: pytest.LogCaptureFixture
) -> None:
    _, told = start(thread, trio.sleep_forever)

    def breaks_the_loop() -> None:
        raise AssertionError

    thread.token.run_sync_soon(breaks_the_loop)
    assert isinstance(error_of(told), ThreadEnded)

    thread._thread.join(10)
    assert "Trio thread broke" in caplog.text


def test_a_thread_that_cannot_begin_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def breaks(self: TrioThread) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(TrioThread, "_live", breaks)
    with pytest.raises(ThreadEnded, match="could not begin"):
        TrioThread()

    assert "Trio thread broke" in caplog.text


def test_the_last_one_to_let_go_ends_it_unless_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_thread, "_shared", [])
    first, second = _thread.hold(), _thread.hold(keep=True)
    assert first is second
    _thread.release(first)
    assert first.is_alive
    _thread.release(second)
    assert not first.is_alive
    assert _thread._shared == []

    kept = _thread.hold(keep=True)
    _thread.release(kept)
    assert kept.is_alive
    _thread._end()
    assert not kept.is_alive


def test_it_is_let_go_without_waiting_from_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_thread, "_shared", [])
    held = _thread.hold()
    ended = threading.Event()

    def let_go() -> None:
        _thread.release(held, waits=False)
        ended.set()

    held.post(let_go)

    assert ended.wait(10)
    held._thread.join(10)
    assert not held.is_alive
