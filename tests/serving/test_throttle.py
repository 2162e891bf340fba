"""How often one may ask, and for how much."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from flowtrio import (
    Agent,
    MemoryStore,
    Orchestrator,
    RunContext,
    ServerLimits,
    ToolCall,
)
from flowtrio.abc import RunHeader
from flowtrio.cli._main import _parser
from flowtrio.cli._options import read_serving
from flowtrio.protocols import OpenAIProtocol
from flowtrio.serving.commands import _throttle
from flowtrio.serving.commands._clients import Hosting
from flowtrio.serving.commands._letting_in import check_address, check_start
from flowtrio.serving.commands._throttle import DAY, Rate, Throttle, address_of, throttle_of
from flowtrio.testing import ScriptedModel
from tests.serving.test_operator import USAGE, event
from tests.support.site import site, socket
from tests.support.ws_peer import connect, open_server, raw, read_all

HANDSHAKE = (
    b"GET /chat HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def echo(ctx: RunContext, message: str) -> str:
    return message


# Rates


async def test_a_burst_is_let_in_and_then_the_rate(autojump_clock: Any) -> None:
    rate = Rate()
    burst = [rate.take("a", 6) for _ in range(7)]
    other = rate.take("b", 6)
    await trio.sleep(burst[-1])
    later = [rate.take("a", 6) for _ in range(2)]
    await trio.sleep(1000)
    rested = [rate.take("a", 6) for _ in range(7)]

    assert burst[:6] == [0] * 6
    assert burst[6] == pytest.approx(10)
    assert other == 0
    assert (later[0], later[1]) == (0, pytest.approx(10))
    assert rested[:6] == [0] * 6
    assert rested[6] > 0


async def test_less_than_one_a_minute(autojump_clock: Any) -> None:
    rate = Rate()
    assert rate.take("a", 0.5) == 0
    assert rate.take("a", 0.5) == pytest.approx(120)
    await trio.sleep(121)
    assert rate.take("a", 0.5) == 0


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_throttle, "_BUCKETS", 3)
    rate = Rate()
    for number in range(10):
        rate.take(str(number), 1)

    assert list(rate._buckets) == ["7", "8", "9"]
    assert rate.take("x", float("inf")) == 0
    assert "x" not in rate._buckets


@pytest.mark.parametrize(
    ("client", "whom"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("unix:", "unix:"),
    ],
)
def test_whom_an_address_stands_for(client: str, whom: str) -> None:
    assert address_of(client) == whom


# Over HTTP


def who(request: Any) -> str:
    name: str = request.headers.get("x-user", "ann")
    return name


async def start(s: Any, run_id: str, user: str = "ann", message: str = "hi") -> Any:
    body = {"message": message, "run_id": run_id}
    return await s.http.post("/chat/stream", json=body, headers={"x-user": user})


async def test_a_tenant_starts_so_many_runs_a_minute() -> None:
    limits = ServerLimits(starts_per_minute=2)
    async with site(echo, authenticate=who, limits=limits) as s:
        first = [(await start(s, f"r{number}")).status_code for number in range(2)]
        refused = await start(s, "r2")
        again = await start(s, "r1")
        changed = await start(s, "r1", message="other")
        other = await start(s, "r3", "bob")
        read = await s.http.get("/runs")

    assert first == [200, 200]
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    assert (again.status_code, changed.status_code) == (200, 409), "it starts nothing"
    assert other.status_code == 200, "tenants are apart"
    assert [run["run_id"] for run in read.json()["items"]] == ["r1", "r0"]


async def test_an_address_asks_so_often_and_the_page_is_free() -> None:
    limits = ServerLimits(requests_per_minute=3)
    async with site(echo, token="good", limits=limits) as s:
        page = [(await s.http.get("/app.js")).status_code for _ in range(5)]
        guesses = [
            await s.http.get("/runs", headers={"authorization": f"Bearer {guess}"})
            for guess in range(4)
        ]
        async with raw(SimpleNamespace(port=int(s.url.rpartition(":")[2]))) as stream:
            await stream.send_all(HANDSHAKE)
            refused = await read_all(stream)

    assert page == [200] * 5
    assert [answer.status_code for answer in guesses] == [401, 401, 401, 429]
    assert refused.startswith(b"HTTP/1.1 429 ")
    assert b"retry-after: " in refused
    assert guesses[-1].json()["code"] == "rate_limited"
    assert "retry-after" in guesses[-1].headers


async def test_other_protocols_are_told_in_their_words() -> None:
    limits = ServerLimits(starts_per_minute=1)
    asked = {"model": "echo", "messages": [{"role": "user", "content": "hi"}]}
    async with site(echo, limits=limits, protocols=[OpenAIProtocol()]) as s:
        first = await s.http.post("/v1/chat/completions", json=asked)
        second = await s.http.post("/v1/chat/completions", json=asked)

    assert first.status_code == 200, first.text
    assert second.status_code == 429
    error = second.json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert int(second.headers["retry-after"]) > 0


# Over WebSocket


async def test_a_websockets_starts_are_counted_too() -> None:
    limits = ServerLimits(starts_per_minute=1)
    async with open_server(echo, limits=limits) as served, connect(served) as peer:
        await peer.ask("hi")
        await peer.send(type="message", message="hi", ref=7)
        refused = await peer.receive()

    assert (refused["type"], refused["ref"]) == ("rejected", 7)
    assert refused["code"] == "rate_limited"
    assert "try again in" in refused["error"]


async def test_connections_of_an_address_are_counted() -> None:
    limits = ServerLimits(requests_per_minute=1)
    async with open_server(echo, limits=limits) as served, connect(served):
        async with raw(served) as stream:
            await stream.send_all(HANDSHAKE)
            answer = await read_all(stream)

    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b"\r\nretry-after: " in answer


async def test_listeners_of_one_process_count_together() -> None:
    orchestrator = Orchestrator(agents=[echo])

    assert throttle_of(orchestrator) is throttle_of(orchestrator)
    assert throttle_of(orchestrator) is not throttle_of(Orchestrator(agents=[echo]))


# Spending


class Priced(ScriptedModel):
    model = "m"


def priced(*answers: str) -> Orchestrator:
    """Each answer costs 20 millionths."""
    agent = Agent(llm_client=Priced(*answers), name="a")
    return Orchestrator(agents=[agent], prices={"m": {"prompt": "1", "completion": "2"}})


async def test_who_has_spent_what_he_may_waits_for_a_day() -> None:
    limits = ServerLimits(spend_per_day="0.00003")
    async with site(
        orchestrator=priced("one", "two", "of bob"), limits=limits, authenticate=who
    ) as s:
        statuses = [(await start(s, f"r{number}")).status_code for number in range(2)]
        refused = await start(s, "r2")
        again = await start(s, "r0")
        other = await start(s, "r3", "bob")
        shaped = (await s.http.get("/runs")).json()["items"]

    assert statuses == [200, 200], "the run that passes it is the last"
    assert (refused.status_code, refused.json()["code"]) == (429, "spend_limited")
    assert DAY - 60 < int(refused.headers["retry-after"]) <= DAY
    assert (again.status_code, other.status_code) == (200, 200)
    assert len(shaped) == 2


async def test_runs_without_a_log_count_too() -> None:
    """Or whoever names no subprotocol would spend what he likes."""
    limits = ServerLimits(spend_per_day=Decimal("0.00001"))
    async with open_server(priced("one"), limits=limits) as served, connect(served) as peer:
        await peer.ask("hi")
        await peer.send("more")
        refused = await peer.receive()

    assert (refused["type"], refused["code"]) == ("rejected", "spend_limited")


async def test_a_run_that_goes_on_counts_by_what_it_has_spent() -> None:
    gate = trio.Event()

    async def wait() -> None:
        """Wait."""
        await gate.wait()

    agent = Agent(llm_client=Priced([ToolCall("x", "wait", {})], "done"), tools=[wait], name="a")
    orchestrator = Orchestrator(agents=[agent], prices={"m": {"prompt": "1", "completion": "2"}})
    async with site(orchestrator=orchestrator, limits=ServerLimits(spend_per_day="0.00001")) as s:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(start, s, "r0"))
            with trio.fail_after(5):
                spent = partial(throttle_of(orchestrator).wait_to_spend, orchestrator)
                while not await spent("default", Decimal("0.00001")):
                    await trio.sleep(0.01)
            refused = await start(s, "r1")
            await check_start(s.app._hosting, "default", "r0")  # Who comes back to it may.
            gate.set()

    assert refused.json()["code"] == "spend_limited"


async def test_a_store_that_cannot_tell_starts_nothing() -> None:
    class Failing(MemoryStore):
        async def newest(self, *args: Any, **keys: Any) -> Any:
            raise OSError("at a secret place")

    limits = ServerLimits(spend_per_day=1)
    orchestrator = Orchestrator(agents=[echo], store=Failing())
    async with site(orchestrator=orchestrator, limits=limits) as s:
        refused = await start(s, "r0")
        async with socket(s) as ws:
            await ws.send_message("hi")
            told = json.loads(await ws.get_message())

    assert (refused.status_code, refused.json()["code"]) == (503, "store_failed")
    assert (told["type"], told["code"]) == ("rejected", "store_failed")


async def ended(
    store: MemoryStore, run_id: str, age: float, cost: str | None, tenant_id: str = "ann"
) -> None:
    created = time.time() - age
    header = RunHeader(
        tenant_id=tenant_id,
        run_id=run_id,
        session_id=None,
        agent="a",
        message="m",
        created_at=created,
    )
    await store.create(header)
    usage = {**USAGE, "completion_tokens": 1, "cost": cost}
    await store.append(tenant_id, run_id, -1, [event_of_end(usage)])


def event_of_end(usage: Any) -> Any:
    from flowtrio import EventType

    return event(EventType.DONE, 0, status="completed", usage=usage)


async def waits(store: MemoryStore, most: str, tenant: str = "ann") -> float:
    orchestrator = Orchestrator(agents=[echo], store=store)
    return await Throttle().wait_to_spend(orchestrator, tenant, Decimal(most))


async def test_what_was_spent_within_a_day_counts() -> None:
    store = MemoryStore()
    for run_id, age, cost in [("r1", 2 * DAY, "9"), ("r2", DAY - 100, "2"), ("r3", 100, "1.5")]:
        await ended(store, run_id, age, cost)

    assert await waits(store, "3.51") == 0
    assert await waits(store, "3.5") == pytest.approx(100, abs=5)
    assert await waits(store, "1.6") == pytest.approx(100, abs=5)
    assert await waits(store, "1.5") == pytest.approx(DAY - 100, abs=5)
    assert await waits(store, "0.1", "bob") == 0


async def test_many_runs_are_counted_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_throttle, "_AT_ONCE", 2)
    monkeypatch.setattr(_throttle, "_MOST_RUNS", 6)
    store = MemoryStore()
    for number in range(9):
        await ended(store, f"r{number}", 100 - number, "1")
    orchestrator, throttle = Orchestrator(agents=[echo], store=store), Throttle()

    assert await throttle.wait_to_spend(orchestrator, "ann", Decimal("6.5")) == 0
    assert await throttle.wait_to_spend(orchestrator, "ann", Decimal("6")) > 0
    for number in range(2):
        await ended(store, f"b{number}", 1, "1", "bob")
    assert await throttle.wait_to_spend(orchestrator, "bob", Decimal("2")) > 0
    assert len(throttle._costs) == 6, "no more are remembered"


async def test_what_another_process_runs_counts_when_it_has_ended() -> None:
    store = MemoryStore()
    await ended(store, "r1", 5, "2")
    await store.create(
        RunHeader(
            tenant_id="ann",
            run_id="r2",
            session_id=None,
            agent="a",
            message="m",
            created_at=time.time(),
        )
    )

    assert await waits(store, "2.1") == 0


async def test_runs_without_a_cost_are_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    for run_id in ("r1", "r2"):
        await ended(store, run_id, 5, None)

    assert await waits(store, "0.01") == 0
    assert caplog.text.count("tells no cost") == 1


async def test_a_log_that_is_gone_has_cost_nothing() -> None:
    store = MemoryStore()
    await ended(store, "r1", 5, "3")
    store._logs["ann", "r1"].drop_oldest()

    assert await waits(store, "1") == 0


@pytest.mark.parametrize(
    ("given", "limit"), [("0.5", Decimal("0.5")), (2, Decimal(2)), (0.1, Decimal("0.1"))]
)
def test_money_is_a_number_or_a_text(given: Any, limit: Decimal) -> None:
    assert ServerLimits(spend_per_day=given).spend_per_day == limit


@pytest.mark.parametrize("given", ["x", "-1", 0, "nan"])
def test_what_is_no_money_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="spend_per_day"):
        ServerLimits(spend_per_day=given)


def test_limits_are_options_of_the_command() -> None:
    arguments = ["serve", "--limit-spend-per-day", "2.5", "--limit-starts-per-minute", "30"]
    limits = read_serving(_parser().parse_args(arguments)).limits

    assert (limits.spend_per_day, limits.starts_per_minute) == (Decimal("2.5"), 30)


def test_who_has_no_address_is_not_counted() -> None:
    """Such as behind a socket of Unix, which only this machine reaches."""
    hosting = Hosting(Orchestrator(agents=[echo]), ServerLimits(requests_per_minute=1))
    for _ in range(3):
        check_address(hosting, None)

    assert not hosting.throttle.requests._buckets
