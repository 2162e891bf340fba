"""Lines that break, and the patience with them; wherever they break, see `test_drops`."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import trio

import flowtrio
from flowtrio.remote._reconnect import Backoff
from flowtrio.testing import check_events
from tests.serving.test_websocket import waits
from tests.support.fake_server import Connection, open_fake_server
from tests.support.remote import connected, log_of, until_chunk
from tests.support.ws_peer import open_server

# Coming back


async def test_a_lost_connection_goes_on_after_the_last_event_seen() -> None:
    commands = []

    async def begin(peer: Connection) -> None:
        commands.append(await peer.take())
        await peer.accept(commands[0])
        await peer.give(*log_of(commands[0])[:3])

    async def resume(peer: Connection) -> None:
        commands.append(await peer.take())
        await peer.accept(commands[1])
        # One too many, one of another run, and a reply that nobody waits for.
        await peer.give(*log_of(commands[0])[2:4], {"type": "accepted", "ref": 99})
        await peer.give({**log_of(commands[0])[4], "run_id": "other"})
        await peer.give(*log_of(commands[0])[4:])
        await trio.sleep_forever()

    async with open_fake_server(begin, resume) as url, flowtrio.connect(url) as remote:
        check_events([event async for event in remote.process_stream("hello")])

    start, again = commands
    assert (start["type"], start["message"]) == ("message", "hello")
    assert again == {
        **{"type": "resume", "run_id": start["run_id"], "after": 2, "mode": "events"},
        "ref": again["ref"],
    }


async def test_a_server_that_is_busy_is_tried_again_and_one_that_refuses_is_not() -> None:
    async def begin(peer: Connection) -> None:
        await peer.accept(await peer.take())

    async with open_fake_server(begin, 503, 403) as url, flowtrio.connect(url) as remote:
        with pytest.raises(trio.BrokenResourceError) as caught:
            await remote.process("hello")
        with pytest.raises(trio.BrokenResourceError):
            await remote.process("again")

    assert str(caught.value) == f"lost {url}: the server answers 403"


async def test_when_the_server_stays_away_the_reader_is_told() -> None:
    async with open_server(waits) as served:
        async with connected(served, patience=0.3) as remote:
            async with remote.process_stream("a") as stream:
                await until_chunk(stream)
                served.scope.cancel()
                seen = [event async for event in stream]
                assert seen[-1].data["status"] == "error"
            with pytest.raises(trio.BrokenResourceError, match="lost ws://"):
                while True:
                    await remote.process("again")


async def test_attempts_come_more_slowly_until_patience_is_over(autojump_clock: Any) -> None:
    backoff = Backoff(patience=60)
    attempts = [trio.current_time()]
    while not backoff.is_over:
        await backoff.wait()
        attempts.append(trio.current_time())
    pauses = [late - early for early, late in pairwise(attempts)]
    backoff.begin_anew()
    assert not backoff.is_over
    await backoff.wait()

    assert 0.05 <= pauses[0] <= 0.1
    assert all(pause <= 5 for pause in pauses)
    assert pauses[-1] >= 2.5
    assert 60 < attempts[-1] - attempts[0] <= 65
    assert trio.current_time() - attempts[-1] <= 0.1


async def test_a_token_is_asked_for_again_at_each_reconnect() -> None:
    asked = []

    def token() -> str:
        asked.append(None)
        if len(asked) == 2:
            raise LookupError("not now")
        return f"t{len(asked)}"

    async def leave(peer: Connection) -> None:
        await peer.take()

    async def resume(peer: Connection) -> None:
        command = await peer.take()
        await peer.accept(command)
        await peer.give(*log_of(command))
        await trio.sleep_forever()

    async with (
        open_fake_server(leave, resume) as url,
        flowtrio.connect(url, token=token) as remote,
    ):
        check_events([event async for event in remote.process_stream("hello")])

    assert len(asked) == 3
