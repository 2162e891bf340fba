"""Each test begins without a Trio thread, and leaves nothing at work in one."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from flowtrio._run import _thread


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    for thread in list(_thread._shared):  # kept by a file of another folder in this process
        _thread._shared.clear()
        thread.stop()
        _until(lambda thread=thread: not thread.is_alive)  # type: ignore[misc]
    yield
    gc.collect()
    for thread in list(_thread._shared):
        _until(lambda thread=thread: not thread.jobs)  # type: ignore[misc]
        left = [job.name for job in thread.jobs]
        _thread._shared.clear()
        thread.stop()
        assert left == []
    _until(lambda: all(thread.name != "flowtrio" for thread in threading.enumerate()))
    assert [thread.name for thread in threading.enumerate() if thread.name == "flowtrio"] == []
