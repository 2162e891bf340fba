"""Each way in which a server, or what stands before it, closes a line."""

from __future__ import annotations

import contextlib
import struct
from typing import Any, Final

import pytest
import trio
from trio_websocket import CloseReason, ConnectionClosed

import flowtrio
from flowtrio import RemoteProtocolError, ServerLimits
from flowtrio.remote import _line
from flowtrio.remote._closing import MOST_REFUSALS, is_refused, words_of_closing
from flowtrio.testing import check_events
from tests.remote.test_commands import answer_all
from tests.serving.test_websocket import waits
from tests.support.fake_server import Connection, open_fake_server
from tests.support.remote import connected, log_of
from tests.support.ws_peer import open_server

AGAIN: Final = (1000, 1001, 1005, 1011, 1012, 1013, 1014, 3008, 4000)
"""After which the next line goes on; 1005 is a close without any code."""
REFUSED: Final = (1002, 1003, 1007, 1008, 1010, 3000, 3003)
"""After which the same would be refused again."""


def close_with(code: int, *, heard: bool = False) -> Any:
    """Take a command, and close as a server does that says this code, whichever it is."""

    async def close(peer: Connection) -> None:
        command = await peer.take()
        if heard:
            await peer.accept(command)
        payload = b"" if code == 1005 else struct.pack(">H", code) + b"secret words"
        await peer.connection._stream.send_all(bytes([0x88, len(payload)]) + payload)
        with trio.move_on_after(1), contextlib.suppress(ConnectionClosed):
            await peer.connection.get_message()

    return close


async def cut(peer: Connection) -> None:
    """Take a command, and go without a word."""
    await peer.take()
    await peer.connection._stream.aclose()


# 1011 is in no test of ours on a line: see `conftest`.
@pytest.mark.parametrize("code", [code for code in AGAIN if code != 1011])
async def test_a_line_that_was_closed_is_made_again(code: int) -> None:
    async with open_fake_server(close_with(code), answer_all) as url, flowtrio.connect(url) as it:
        check_events([event async for event in it.process_stream("hello")])


@pytest.mark.parametrize("code", [1006, 1015])
async def test_a_line_that_breaks_is_made_again(code: int) -> None:
    """Without a close, or with a code that must not be sent, which is a broken protocol."""
    first = cut if code == 1006 else close_with(code)
    async with open_fake_server(first, answer_all) as url, flowtrio.connect(url) as it:
        check_events([event async for event in it.process_stream("hello")])


@pytest.mark.parametrize("heard", [False, True])
@pytest.mark.parametrize("code", REFUSED)
async def test_what_is_refused_again_and_again_is_given_up(code: int, heard: bool) -> None:
    scripts = [close_with(code, heard=heard)] * MOST_REFUSALS
    async with open_fake_server(*scripts) as url, flowtrio.connect(url) as remote:
        with pytest.raises(trio.BrokenResourceError) as caught:
            await remote.process("hello")

    assert str(caught.value) == f"lost {url}: {words_of_closing(closed(code))}"
    assert "secret" not in str(caught.value)


async def test_a_line_that_is_closed_as_soon_as_it_is_open_has_its_code_told() -> None:
    async def busy(peer: Connection) -> None:
        await peer.connection.aclose(1013)

    async with open_fake_server(busy, answer_all) as url, flowtrio.connect(url) as remote:
        check_events([event async for event in remote.process_stream("hello")])


def closed(code: int | None) -> ConnectionClosed:
    return ConnectionClosed(None if code is None else CloseReason(code, "secret words"))


def test_each_code_has_words_and_says_whether_it_comes_again() -> None:
    codes = (*AGAIN, *REFUSED, 1006, 1009)
    words = {code: _line.words_of(closed(code)) for code in codes}

    assert len(set(words.values())) == len(codes)
    for code, said in words.items():
        assert said.endswith(f" (close code {code})")
        assert "secret" not in said
        assert is_refused(closed(code)) == (code in (*REFUSED, 1009))
    assert _line.words_of(closed(None)) == words[1006]
    assert not is_refused(trio.BrokenResourceError())


# What is too large


async def take_small(peer: Connection) -> None:
    """Answer until something large comes."""
    while len((command := await peer.take()).get("message", "")) < 1000:
        await peer.accept(command)
        await peer.give(*log_of(command))
    await peer.connection.aclose(1009, "too large")


async def test_only_the_message_that_is_too_large_fails() -> None:
    async with open_fake_server(take_small, answer_all) as url, flowtrio.connect(url) as remote:
        check_events([event async for event in remote.process_stream("hello")])
        with pytest.raises(RemoteProtocolError, match="larger than the server takes") as caught:
            await remote.process("large " * 1000)
        check_events([event async for event in remote.process_stream("hello again")])

    assert caught.value.code == "too_large"


@pytest.mark.parametrize("size", [70_000, 3_000_000])
async def test_a_server_of_ours_says_so(size: int) -> None:
    """Also where its limit is reached long before all of it was sent."""
    limits = ServerLimits(message=65_536)
    async with open_server(waits, limits=limits) as served, connected(served) as remote:
        async with remote.process_stream("stay", run_id="stay") as stays:
            with pytest.raises(RemoteProtocolError, match="larger than the server takes"):
                await remote.process("x" * size)
            stays.cancel()
            check_events([event async for event in stays])


async def test_a_post_that_is_too_large_is_given_up_and_its_run_goes_on(caplog: Any) -> None:
    async def take_post(peer: Connection) -> None:
        await peer.accept(command := await peer.take())
        await peer.give(*log_of(command)[:3])
        await peer.take()
        await peer.connection.aclose(1009)

    async def go_on(peer: Connection) -> None:
        await peer.accept(command := await peer.take())
        assert (command["type"], command["after"]) == ("resume", 2)
        await peer.give(*log_of(command)[3:])
        await trio.sleep_forever()

    async with open_fake_server(take_post, go_on) as url, flowtrio.connect(url) as remote:
        events = []
        async for event in (run := remote.process_stream("hello", run_id="r")):
            events.append(event)
            if event.seq == 2:
                run.post("large secret " * 1000)
        check_events(events)

    assert "post for run r was given up" in caplog.text
    assert "secret" not in caplog.text


async def test_what_the_server_says_in_too_large_a_message_is_asked_for_no_more_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would be as large each time."""
    monkeypatch.setattr(_line, "_MOST_BYTES", 1000)

    async def say_much(peer: Connection) -> None:
        await peer.accept(await peer.take())
        await peer.give({"type": "custom", "data": "x" * 2000})
        await trio.sleep_forever()

    scripts = [say_much] * MOST_REFUSALS
    async with open_fake_server(*scripts) as url, flowtrio.connect(url) as remote:
        with pytest.raises(trio.BrokenResourceError, match="a message of more than 1000 bytes"):
            await remote.process("hello")
