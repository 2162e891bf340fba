"""The process's Trio thread: its jobs, its end, and what may go wrong in it."""

from __future__ import annotations

import contextvars
import os
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import outcome
import pytest
import trio

from flowtrio._run import _thread
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
        return self.told.get(timeout=60).unwrap()


@pytest.fixture
def thread() -> Iterator[TrioThread]:
    thread = TrioThread()
    yield thread
    thread.stop()
    thread.join(60)


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
    thread.join(60)
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
    assert ended.wait(60)
    thread.join(60)
    assert not thread.is_alive

    other = hold(keep=True)
    assert other is not thread
    assert not release(other)
    assert hold() is other


def test_a_thread_that_broke_is_replaced() -> None:
    thread = hold()
    thread.stop()
    thread.join(60)
    other = hold()

    assert other is not thread
    assert not release(thread) or True
    assert release(other)
    other.join(60)


def test_a_process_that_was_forked_from_the_threads_is_told(
    thread: TrioThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as forked:
        forked.setattr(os, "getpid", lambda: -1)
        assert not thread.is_alive
        with pytest.raises(ThreadEnded, match="was forked"):
            thread.post(print)
        with pytest.raises(ThreadEnded, match="was forked"):
            thread.ask(lambda: 42)


def test_what_was_forked_has_no_thread_yet() -> None:
    thread = hold()
    _thread._forget()
    other = hold()

    assert other is not thread
    for each in (thread, other):
        each.stop()
        each.join(60)
    _thread._shared.clear()


def test_what_was_asked_of_a_thread_that_broke_meanwhile_is_looked_up_all_the_same(
    thread: TrioThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_thread, "LOOK", 0.01)
    stop = threading.Event()

    def block() -> None:
        stop.wait(10)
        raise_in_loop()

    def raise_in_loop() -> None:
        raise SystemExit

    thread.token.run_sync_soon(block)
    # Lost with the loop: it is asked for again where the asking is.
    monkeypatch.setattr(thread, "post", lambda fn: stop.set())

    assert thread.ask(lambda: 42) == 42
    thread.join(60)
    monkeypatch.undo()
    assert not thread.is_alive


def test_what_is_left_is_ended_when_the_process_ends() -> None:
    thread = hold(keep=True)
    _thread._end()

    assert not thread.is_alive
    _thread._shared.clear()
    assert not thread.jobs


def test_a_hold_is_let_go_once() -> None:
    first, second = _thread.Hold(), _thread.Hold()

    assert not first.release()
    assert not first.release()
    assert second.thread.is_alive
    assert second.release()
    second.thread.join(60)


def test_a_job_that_is_cancelled_has_ended(thread: TrioThread) -> None:
    owner = Owner()
    job = _start(thread, trio.sleep_forever, owner)
    job.cancel()

    with pytest.raises(ThreadEnded):
        owner.wait()
    job.end(outcome.Value("twice"))
    assert owner.told.empty()


def test_a_job_that_was_never_begun_is_told_when_the_thread_has_ended(thread: TrioThread) -> None:
    owner = Owner()
    thread.jobs.add(_thread.Job(thread, trio.sleep_forever, owner, "a job"))
    thread.stop()

    with pytest.raises(ThreadEnded):
        owner.wait()


def test_an_answer_may_take_its_time(thread: TrioThread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_thread, "LOOK", 0.001)
    thread.post(threading.Event().wait, 0.05)

    assert thread.ask(lambda: 42) == 42
