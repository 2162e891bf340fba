"""The suite notices where a WebSocket is closed with 1011, on either side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import websockets.frames
from wsproto.events import CloseConnection
from wsproto.frame_protocol import FrameProtocol

from tests import conftest


@contextmanager
def noticing() -> Iterator[Callable[[], bool]]:
    """What tells whether a 1011 was noticed, which counts for nothing behind the block."""
    conftest._told.clear()
    try:
        yield lambda: bool(conftest._told)
    finally:
        conftest._told.clear()


@pytest.mark.parametrize(("code", "is_noticed"), [(1011, True), (1012, False), (1000, False)])
def test_a_close_frame_is_noticed_by_its_code(code: int, is_noticed: bool) -> None:
    with noticing() as is_told:
        CloseConnection(code=code, reason="x")
        assert is_told() == is_noticed
    with noticing() as is_told:
        frame = FrameProtocol(client=False, extensions=[]).close(code, "x")
        websockets.frames.Close.parse(frame[2:])
        assert is_told() == is_noticed
