"""`OpenAIClient` on real sockets: what is sent, what comes, and what the server sees of leaving."""

from __future__ import annotations

import gc
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest
import trio

from flowtrio import (
    Agent,
    EventType,
    ModelLimits,
    OpenAIClient,
    ProviderError,
    RemoteProtocolError,
    StreamEngine,
)
from flowtrio.testing import check_events
from tests.support.model_server import (
    Exchange,
    ModelServer,
    answers_whole,
    calls,
    hangs,
    open_model_server,
    refuses,
    resets,
    says,
    sends,
    talks_for_ever,
)

KEY = "sk-canary-4711"
HELLO = [{"role": "user", "content": "hello"}]

SOON = 1.0
"""Seconds within which the server has to see that its reader left."""


@pytest.fixture(params=[None, httpx, httpx2], ids=["own", "httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> ModuleType | None:
    return request.param


@asynccontextmanager
async def client_of(
    server: ModelServer, library: ModuleType | None = None, **options: Any
) -> AsyncIterator[OpenAIClient]:
    """A client of its own connections, or on one of the application's."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(library.AsyncClient()) if library else None
        yield await stack.enter_async_context(
            OpenAIClient(
                api_key=KEY, model="loopback", base_url=server.url, http_client=http, **options
            )
        )


# What is sent


async def test_a_request_is_what_openai_expects() -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    options = {"temperature": 0, "seed": 1}
    async with (
        open_model_server([says("a", "b")]) as server,
        client_of(server, **options) as client,
    ):
        completion = await client.complete(HELLO, [tool], seed=2, top_p=0.5)

    [exchange] = server.exchanges
    assert completion.content == "ab"
    assert exchange.path == "/v1/chat/completions"
    assert exchange.headers["authorization"] == f"Bearer {KEY}"
    assert exchange.headers["content-type"] == "application/json"
    assert exchange.body == {
        "model": "loopback",
        "messages": HELLO,
        "tools": [tool],
        "temperature": 0,
        "seed": 2,
        "top_p": 0.5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_a_request_for_a_whole_answer_says_nothing_of_streams() -> None:
    async with open_model_server([answers_whole("ab")]) as server, client_of(server) as client:
        stream = client.stream_completion(HELLO, stream=False, model="other")
        chunks = [chunk async for chunk in stream]

    assert "".join(chunk.content for chunk in chunks) == "ab"
    body = server.exchanges[0].body
    assert body["model"] == "other"
    assert body.get("stream") in (None, False)
    assert "stream_options" not in body


async def test_connections_are_used_again(library: ModuleType | None) -> None:
    async with open_model_server([says("a")]) as server, client_of(server, library) as client:
        for _ in range(5):
            assert (await client.complete(HELLO)).content == "a"

    assert len(server.exchanges) == 5
    assert server.connections == 1


def test_one_client_serves_several_loops() -> None:
    client = OpenAIClient(model="m", base_url="http://localhost:1/v1")

    async def ask() -> str:
        async with open_model_server([says("a")]) as server:
            client._host.base_url = server.url
            return (await client.complete(HELLO)).content

    assert [trio.run(ask) for _ in range(2)] == ["a", "a"]
    assert client.statistics().requests == 2


@pytest.mark.parametrize("with_url", [False, True])
def test_the_environment_names_key_and_address(
    monkeypatch: pytest.MonkeyPatch, with_url: bool
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    if with_url:
        monkeypatch.setenv("OPENAI_BASE_URL", "http://models.example/v1/")
    client = OpenAIClient(model="m")

    expected = "http://models.example/v1" if with_url else "https://api.openai.com/v1"
    assert client._host.base_url == expected
    assert client._host.headers == {"authorization": f"Bearer {KEY}"}
    assert KEY not in repr(client)


def test_a_missing_key_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ValueError, match=r"expected api_key=\.\.\. or OPENAI_API_KEY"):
        OpenAIClient(model="m")

    assert OpenAIClient(model="m", base_url="http://localhost:1/v1")._host.headers == {}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"model": ""}, "expected a model's name"),
        ({"model": None}, "expected a model's name"),
        ({"model": "m", "api": "smoke"}, "OpenAIClient(api='smoke'): expected"),
        ({"model": "m", "base_url": "localhost:80"}, "begins with http://"),
        ({"model": "m", "api_key": "sk-\n"}, "header 'authorization'"),
    ],
)
def test_what_cannot_work_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as caught:
        OpenAIClient(**{"api_key": "sk", **arguments})
    assert words in str(caught.value)


def test_a_client_of_another_library_is_refused() -> None:
    with pytest.raises(TypeError, match=r"expected an httpx\.AsyncClient or httpx2\.AsyncClient"):
        OpenAIClient(api_key="sk", model="m", http_client=object())


async def test_the_applications_own_client_is_left_open() -> None:
    async with open_model_server([says("a")]) as server, httpx.AsyncClient() as http:
        async with OpenAIClient(model="m", base_url=server.url, http_client=http) as client:
            await client.complete(HELLO)
        assert not http.is_closed


# What comes


async def test_tool_calls_come_in_fragments_and_whole() -> None:
    answer = calls(("look", {"at": "Paris"}), ("book", {"n": 2}), text="I look.")
    async with open_model_server([answer]) as server, client_of(server) as client:
        completion = await client.complete(HELLO)

    assert completion.content == "I look."
    assert [(call.name, call.arguments) for call in completion.tool_calls] == [
        ("look", {"at": "Paris"}),
        ("book", {"n": 2}),
    ]
    assert completion.finish_reason == "tool_calls"


async def test_chunks_come_while_the_server_speaks(library: ModuleType | None) -> None:
    said = trio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.send_delta({"content": "a"})
        await said.wait()
        await exchange.finish()

    async with open_model_server([answer]) as server, client_of(server, library) as client:
        stream = client.stream_completion(HELLO)
        with trio.fail_after(5):
            assert (await anext(stream)).content == "a"
        said.set()
        assert (await anext(stream)).is_final


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (resets, ProviderError, "connection_failed"),
        (refuses(401, {"error": {"message": f"wrong {KEY}"}}), ProviderError, "unauthorized"),
        (refuses(404, content_type="text/html"), ProviderError, "not_found"),
        (sends(b"data: {}\n\n", cut=True), ProviderError, "connection_failed"),
        (sends(b": x\n\n"), RemoteProtocolError, "empty_reply"),
        (sends(b"<html>", content_type="text/html"), RemoteProtocolError, "bad_content_type"),
        (sends(b"", content_type="application/json"), RemoteProtocolError, "empty_reply"),
        (sends(b"data: {x\n\n"), RemoteProtocolError, "bad_stream"),
    ],
    ids=["reset", "401", "404-html", "cut", "no-finish", "html", "empty", "bad-json"],
)
async def test_failures_are_told(
    answer: Callable[[Exchange], Awaitable[None]],
    kind: type[Exception],
    code: str,
    library: ModuleType | None,
) -> None:
    async with open_model_server([answer]) as server, client_of(server, library) as client:
        client._host.jitter = lambda: 0.0
        with trio.fail_after(5), pytest.raises(kind) as caught:
            await client.complete(HELLO)

    error: Any = caught.value
    assert error.code == code
    assert KEY not in f"{error!r} {error.detail} {error.__cause__!r}"


async def test_a_stream_that_is_cut_after_text_is_an_error() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send_delta({"content": "a"})
        await exchange.stream.aclose()

    async with open_model_server([answer]) as server, client_of(server) as client:
        stream = client.stream_completion(HELLO)
        assert (await anext(stream)).content == "a"
        with pytest.raises(RemoteProtocolError) as caught:
            await anext(stream)

    assert caught.value.code == "stream_cut"
    assert len(server.exchanges) == 1


async def test_a_host_that_hangs_after_the_finish_mark_is_left() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send_delta({"content": "a"})
        await exchange.send_delta({}, "stop")
        await exchange.send(b"data: [DONE]\n\n")
        await exchange.wait_left()

    async with open_model_server([answer]) as server, client_of(server) as client:
        with trio.fail_after(1):
            assert (await client.complete(HELLO)).content == "a"


async def test_a_request_that_is_reset_is_sent_again() -> None:
    answers = [resets, refuses(503), says("a")]
    async with open_model_server(answers) as server, client_of(server) as client:
        client._host.jitter = lambda: 0.0
        assert (await client.complete(HELLO)).content == "a"

    assert client.statistics().requests == 3
    assert client.statistics().retries == 2


async def test_nobody_at_the_address_is_told() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    client = OpenAIClient(model="m", base_url=f"http://127.0.0.1:{port}/v1")
    client._host.jitter = lambda: 0.0
    with pytest.raises(ProviderError, match=r"127\.0\.0\.1 could not be reached: ConnectError"):
        await client.complete(HELLO)


# Leaving, as the server sees it


def collected() -> float:
    """Collect garbage and give the time after it: in a large program that alone takes longer."""
    gc.collect()
    return trio.current_time()


async def left(server: ModelServer, since: float) -> float:
    """Wait until the server has seen its reader leave; give the seconds after *since*."""
    with trio.fail_after(5):
        while server.exchanges[-1].left_at is None:
            await trio.sleep(0.001)
    return server.exchanges[-1].left_at - since


@pytest.mark.parametrize("answer", [talks_for_ever(), hangs("word ")], ids=["talks", "hangs"])
@pytest.mark.parametrize("way", ["aclose", "with", "cancel", "cancelled before", "drop"])
async def test_the_socket_is_closed_when_a_reply_is_left(
    way: str, answer: Callable[[Exchange], Awaitable[None]], library: ModuleType | None
) -> None:
    async with open_model_server([answer]) as server, client_of(server, library) as client:
        stream = client.stream_completion(HELLO)
        await anext(stream)
        begun = trio.current_time()
        match way:
            case "aclose":
                await stream.aclose()
            case "with":
                async with stream:
                    pass
            case "cancel":
                with trio.move_on_after(0.1):
                    async for _ in stream:
                        pass
                begun += 0.1
            case "cancelled before":
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await anext(stream)
            case _:
                del stream
                begun = collected()

        assert await left(server, begun) <= SOON
        # The slot is given back after the connection.
        with trio.fail_after(5):
            while client.statistics().open_replies:
                await trio.sleep(0.001)


@pytest.mark.parametrize("form", ["structured", "bare"])
@pytest.mark.parametrize("way", ["break", "raise", "timeout"])
async def test_the_socket_is_closed_when_a_runs_reader_leaves(
    form: str, way: str, library: ModuleType | None
) -> None:
    async with (
        open_model_server([talks_for_ever()]) as server,
        client_of(server, library) as client,
        StreamEngine() as engine,
    ):
        agent = Agent(llm_client=client)
        begun = 0.0

        async def read(stream: Any) -> None:
            nonlocal begun
            async for event in stream:
                if event.type is EventType.MESSAGE_CHUNK:
                    begun = trio.current_time()
                    if way == "break":
                        return
                    if way == "raise":
                        raise ZeroDivisionError
                    await trio.sleep_forever()

        async def run() -> None:
            if form == "structured":
                async with engine.stream(agent, "hello") as stream:
                    await read(stream)
            else:
                await read(engine.stream(agent, "hello"))

        if way == "timeout":
            with trio.move_on_after(0.3) as scope:
                await run()
            begun = scope.deadline
        elif way == "raise":
            with pytest.raises(ZeroDivisionError):
                await run()
        else:
            await run()

        if form == "bare":
            begun = collected()
        assert await left(server, begun) <= SOON


CANCELLED = int(os.environ.get("FLOWTRIO_CANCELS", "300"))
"""Requests to cancel; nox's session ``soak`` takes 3,000."""


class PoolWatch(trio.abc.Instrument):
    """Looks after each step of each task whether requests wait inside httpx's pool."""

    def __init__(self, http: Any) -> None:
        self._pool = http._transport._pool
        self.most = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        queued = sum(request.is_queued() for request in self._pool._requests)
        self.most = max(self.most, queued)

    @property
    def in_use(self) -> int:
        """Connections that are neither idle nor closed."""
        connections = self._pool.connections
        return sum(not (each.is_idle() or each.is_closed()) for each in connections)


async def cancel_many(server: ModelServer, client: OpenAIClient, total: int) -> PoolWatch:
    """Leave requests at random moments, 300 at a time, and ask once more."""
    moments = random.Random(7)
    watch = PoolWatch(client._host.pool().http)
    trio.lowlevel.add_instrument(watch)

    async def ask(seconds: float) -> None:
        with trio.move_on_after(seconds):
            async with client.stream_completion(HELLO) as stream:
                async for _ in stream:
                    pass

    for begun in range(0, total, 300):
        async with trio.open_nursery() as nursery:
            for _ in range(min(300, total - begun)):
                nursery.start_soon(ask, moments.uniform(0, 0.4))
    trio.lowlevel.remove_instrument(watch)

    assert client.statistics().open_replies == 0
    assert client.statistics().waiting_replies == 0
    server.answers[0] = says("still here")
    with trio.fail_after(5):
        for _ in range(5):
            assert (await client.complete(HELLO)).content == "still here"
    return watch


async def talks(exchange: Exchange) -> None:
    await talks_for_ever(0.005)(exchange)


async def test_a_client_still_works_after_many_random_cancellations(
    library: ModuleType | None,
) -> None:
    """Slots and connections are all there after requests left at random moments."""
    async with open_model_server([talks]) as server, client_of(server, library) as client:
        watch = await cancel_many(server, client, CANCELLED)
        assert watch.in_use == 0

    assert watch.most == 0


@pytest.mark.parametrize("places", [1, 4])
async def test_no_request_waits_in_a_small_pool_that_is_shared(
    library: ModuleType | None, places: int
) -> None:
    module = library or httpx
    async with (
        open_model_server([talks]) as server,
        module.AsyncClient(limits=module.Limits(max_connections=places)) as http,
    ):
        clients = [
            OpenAIClient(api_key=KEY, model="m", base_url=server.url, http_client=http)
            for _ in range(2)
        ]
        watches = []

        async def cancel(client: OpenAIClient) -> None:
            watches.append(await cancel_many(server, client, 30))

        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(cancel, client)
        assert watches[0].in_use == 0

    assert [watch.most for watch in watches] == [0, 0]


async def test_requests_that_wait_in_the_pool_are_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slots = trio.CapacityLimiter(90)
    monkeypatch.setattr("flowtrio.clients._host.slots_of", lambda http, token: slots)
    limits = httpx2.Limits(max_connections=4)
    async with (
        open_model_server([talks]) as server,
        httpx2.AsyncClient(limits=limits) as http,
        OpenAIClient(api_key=KEY, model="m", base_url=server.url, http_client=http) as client,
    ):
        watch = await cancel_many(server, client, 30)

    assert watch.most > 0


# In a run


async def test_a_key_is_in_no_event(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    refusal = refuses(401, {"error": {"message": f"Incorrect API key: {KEY}"}})
    async with (
        open_model_server([refusal]) as server,
        client_of(server) as client,
        StreamEngine() as engine,
    ):
        async with engine.stream(Agent(llm_client=client), "hello") as stream:
            events = [event async for event in stream]

    check_events(events)
    assert events[-2].type is EventType.ERROR
    assert events[-2].data["source"] == "model"
    assert KEY not in repr(events) + caplog.text + repr(stream) + repr(engine)


async def test_a_stall_ends_a_run_by_the_clients_own_limits() -> None:
    limits = ModelLimits(first_token=5, gap=0.1)
    async with (
        open_model_server([hangs("a")]) as server,
        client_of(server, limits=limits) as client,
        StreamEngine() as engine,
    ):
        async with engine.stream(Agent(llm_client=client), "hello") as stream:
            events = [event async for event in stream]

    check_events(events)
    error = events[-2]
    assert error.type is EventType.ERROR
    assert error.data["code"] == "deadline_exceeded"
