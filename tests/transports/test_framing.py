"""What the framing layer reads again: a request's head, and what came with it."""

from __future__ import annotations

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from flowtrio.transports._framing import _Held
from flowtrio.transports._head import read_head

HEAD = b"GET /chat HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("rest", [b"", b"with it"])
async def test_what_came_with_a_requests_head_is_read_when_that_was_answered(rest: bytes) -> None:
    ours, theirs = memory_stream_pair()
    await theirs.send_all(HEAD + rest)
    stream = _Held(ours, await read_head(ours, 4096, None))
    await theirs.send_all(b"after")
    await theirs.send_eof()
    read: list[bytes] = []

    async def read_all() -> None:
        while data := await stream.receive_some():
            read.append(bytes(data))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_all)
        await wait_all_tasks_blocked()
        assert read == [HEAD]
        stream.go_on()

    assert read == [HEAD, *([rest] if rest else []), b"after"]
