"""Waits that last too long are ended, on real sockets too; all others are left alone."""

from __future__ import annotations

from types import ModuleType

import httpx
import httpx2
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from flowtrio import DeadlineExceeded, ModelLimits, OpenAIClient
from flowtrio.clients._watch import Wait, Watch
from tests.support.model_server import Exchange, hangs, open_model_server, says

HELLO = [{"role": "user", "content": "hello"}]


class Closed:
    """A connection that notes when it was closed, and may fail in that."""

    def __init__(self, fails: bool = False) -> None:
        self.at: float | None = None
        self._fails = fails

    async def aclose(self) -> None:
        self.at = trio.current_time()
        if self._fails:
            raise OSError("no")


@pytest.mark.parametrize("fails", [False, True])
async def test_only_what_waits_too_long_is_closed(autojump_clock: MockClock, fails: bool) -> None:
    begun = trio.current_time()
    stalled, talks, idle, left = (Closed(fails) for _ in range(4))
    watch = Watch()
    waits = [Wait(each.aclose, 10) for each in (stalled, talks, idle, left)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        await wait_all_tasks_blocked()
        for wait in waits:
            watch.add(wait)
        for second in range(40):
            if second == 5:
                waits[0].since = waits[3].since = trio.current_time()
                watch.discard(waits[3])
            waits[1].since = trio.current_time()
            await trio.sleep(1)
        nursery.cancel_scope.cancel()

    assert stalled.at == pytest.approx(begun + 15)
    assert [each.at for each in (talks, idle, left)] == [None] * 3
    assert [wait.is_expired for wait in waits] == [True, False, False, False]


@pytest.mark.parametrize("library", [None, httpx, httpx2], ids=["own", "httpx", "httpx2"])
async def test_a_stall_in_mid_stream_is_told_and_the_client_goes_on(
    library: ModuleType | None,
) -> None:
    limits = ModelLimits(first_token=30, gap=0.2)
    async with open_model_server([hangs("a", "b"), says("still here")]) as server:
        http = None if library is None else library.AsyncClient()
        client = OpenAIClient(
            api_key="none", model="m", base_url=server.url, http_client=http, limits=limits
        )
        async with client:
            with trio.fail_after(30), pytest.raises(DeadlineExceeded, match=r"0\.2 s \(gap\)") as e:
                await client.complete(HELLO)
            assert e.value.deadline == "gap"
            assert client.statistics().open_replies == 0
            assert (await client.complete(HELLO)).content == "still here"
            assert client._host.pool().watch._waits == set()
        if http is not None:
            await http.aclose()


async def test_a_reader_that_takes_its_time_is_no_stall() -> None:
    go_on = trio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.send_delta({"content": "a"})
        await exchange.send_delta({"content": "b"})
        await go_on.wait()
        await exchange.finish()

    limits = ModelLimits(first_token=30, gap=0.1)
    async with (
        open_model_server([answer]) as server,
        OpenAIClient(api_key="none", model="m", base_url=server.url, limits=limits) as client,
        client.stream_completion(HELLO) as reply,
    ):
        heard = [(await anext(reply)).content, (await anext(reply)).content]
        await trio.sleep(0.4)
        go_on.set()
        heard += [chunk.content async for chunk in reply]

    assert heard == ["a", "b", ""]
