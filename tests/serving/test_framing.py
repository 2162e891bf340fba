"""What the framing layer reads again of a request's head, and how it writes texts."""

from __future__ import annotations

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import TextMessage

from flowtrio import ServerLimits
from flowtrio.serving._head import read_head
from flowtrio.serving.sockets._framing import ConnectionClosed, Framing, _frame, _Held
from flowtrio.serving.sockets._patience import Patience

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
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


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 70000])
@pytest.mark.parametrize("letter", ["a", "ü"])
def test_a_text_is_framed_as_wsproto_does(size: int, letter: str) -> None:
    text = (letter * size).encode()[:size].decode(errors="ignore")
    expected = Connection(ConnectionType.SERVER).send(TextMessage(data=text))

    assert b"".join(_frame(text.encode())) == expected


async def test_texts_wait_for_who_sends_already_and_are_refused_when_all_is_closed() -> None:
    ours, theirs = memory_stream_pair()
    await theirs.send_all(REQUEST)
    framing = Framing(ours, await read_head(ours, 4096, None), ServerLimits(), Patience(60))
    with pytest.raises(ConnectionClosed):
        await framing.send_texts(["before the handshake"])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(framing.read)
        await framing.accept(None)
        await theirs.receive_some()
        async with framing._stream_lock:
            nursery.start_soon(framing.send_texts, ["a", "b"])
            await wait_all_tasks_blocked()
        assert await theirs.receive_some() == b"\x81\x01a\x81\x01b"
        await theirs.aclose()
        await framing.wait_closed()
        with pytest.raises(ConnectionClosed):
            await framing.send_texts(["too late"])


async def test_a_goodbye_waits_for_the_close_frame_of_a_violation_that_came_first() -> None:
    ours, theirs = memory_stream_pair()
    await theirs.send_all(REQUEST)
    framing = Framing(
        ours, await read_head(ours, 4096, None), ServerLimits(message_frames=2), Patience(60)
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(framing.read)
        await framing.accept(None)
        await theirs.receive_some()
        async with framing._stream_lock:
            # Two empty fragments are more than this message may have: 1009 stands in line.
            await theirs.send_all((b"\x01\x80" + bytes(4)) + (b"\x00\x80" + bytes(4)))
            await wait_all_tasks_blocked()
            nursery.start_soon(say_goodbye, framing, nursery.cancel_scope)
            await wait_all_tasks_blocked()

    with trio.fail_after(5):
        assert await theirs.receive_some() == b"\x88\x11\x03\xf1too many frames"


async def say_goodbye(framing: Framing, scope: trio.CancelScope) -> None:
    """Close, and end all that the connection has, as the server's writer does."""
    await framing.close(1008, "too many bad messages")
    scope.cancel()
