"""Errors that somebody meets on the first day: each says what was expected, in one message."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import metadata
from typing import Any

import pytest
import trio

from flowtrio import (
    Agent,
    DemoClient,
    Limits,
    ModelLimits,
    OpenAIClient,
    Orchestrator,
    ProviderError,
    RunContext,
    RunFailed,
    ServerLimits,
    StreamEngine,
    serve_websocket,
    tool,
)
from flowtrio.asgi import create_app
from flowtrio.cli._main import main
from flowtrio.testing import simulate
from tests.support.model_server import open_model_server, refuses

MESSAGES: Any = [{"role": "user", "content": "hi"}]


def no_annotation(city):  # type: ignore[no-untyped-def]
    """Look something up."""


@tool
async def fine(city: str) -> str:
    """Look something up."""
    return city


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda: Agent(llm_client=None), TypeError, "expected an object with stream_completion"),
        (lambda: Agent(llm_client="gpt"), TypeError, "expected an object with stream_completion"),
        (lambda: tool(no_annotation), TypeError, "parameter 'city' needs an annotation"),
        (
            lambda: Agent(llm_client=DemoClient(), tools=fine),
            TypeError,
            "expected a list of tools, got a tool alone",
        ),
        (
            lambda: Agent(llm_client=DemoClient(), tools=["lookup"]),
            TypeError,
            "expected a function, got 'lookup'",
        ),
        (
            lambda: StreamEngine().stream(DemoClient(), "hi"),
            TypeError,
            r"as an agent: expected flowtrio.Agent\(llm_client=...\) or an async def agent",
        ),
        (
            lambda: StreamEngine().stream(Agent, "hi"),
            TypeError,
            r"as an agent: expected flowtrio.Agent\(llm_client=...\) or an async def agent",
        ),
        (
            lambda: StreamEngine().stream(Agent(llm_client=DemoClient()), None),
            TypeError,
            "message: expected a str or a list of parts, got NoneType",
        ),
        (
            lambda: StreamEngine(mode="everything"),
            ValueError,
            "mode 'everything': expected one of values, updates, messages, events",
        ),
        (lambda: Orchestrator(), ValueError, r"expected llm_client=... or agents="),
        (
            lambda: OpenAIClient(api_key="k", model="m", base_url="api.example.org"),
            ValueError,
            "base_url: expected an address that begins with http:// or https://",
        ),
        (
            lambda: OpenAIClient(api_key="k\n", model="m"),
            ValueError,
            "'authorization': expected a value of printable ASCII characters",
        ),
    ],
)
def test_what_is_built_wrong_is_told_where_it_is_built(
    wrong: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        wrong()


async def body(ctx: RunContext, message: str) -> None:
    """Do nothing."""


TAKES_LIMITS: dict[str, tuple[type, Callable[[Any], Any]]] = {
    "engine": (Limits, lambda given: StreamEngine(limits=given)),
    "stream": (Limits, lambda given: StreamEngine().stream(body, "hi", limits=given)),
    "orchestrator": (Limits, lambda given: Orchestrator(agents=[body], limits=given)),
    "run": (Limits, lambda given: Orchestrator(agents=[body]).process_stream("", limits=given)),
    "simulation": (Limits, lambda given: simulate(body, "hi", limits=given)),
    "client": (ModelLimits, lambda given: OpenAIClient(api_key="k", model="m", limits=given)),
    "app": (ServerLimits, lambda given: create_app(Orchestrator(agents=[body]), limits=given)),
    "socket": (
        ServerLimits,
        lambda given: trio.run(
            partial(serve_websocket, Orchestrator(agents=[body]), "127.0.0.1", 0, limits=given)
        ),
    ),
}


@pytest.mark.parametrize("place", TAKES_LIMITS)
def test_limits_of_another_kind_are_refused_where_they_are_given(place: str) -> None:
    kind, give = TAKES_LIMITS[place]
    for given in (Limits(), ModelLimits(), ServerLimits(), {}, {"run": 5}, 5):
        if type(given) is not kind:
            words = rf"limits: expected {kind.__name__}\(\.\.\.\), got {type(given).__name__}"
            with pytest.raises(TypeError, match=words):
                give(given)


def test_no_key_is_told_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)

    with pytest.raises(ValueError, match=r"expected api_key=... or OPENAI_API_KEY"):
        OpenAIClient(model="gpt-4o-mini")


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "Check the key"), (404, "Check the model's name and the base_url")],
)
async def test_what_the_host_refuses_comes_with_what_to_do(status: int, message: str) -> None:
    async with (
        open_model_server([refuses(status)]) as server,
        OpenAIClient(api_key="k", model="m", base_url=server.url) as client,
    ):
        with pytest.raises(ProviderError, match=message):
            await client.complete(MESSAGES)


async def test_a_host_that_cannot_be_reached_is_named() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        async with OpenAIClient(api_key="k", model="m", base_url=url) as client:
            client._host.jitter = lambda: 0
            with pytest.raises(ProviderError, match=r"host 127\.0\.0\.1 could not be reached"):
                await client.complete(MESSAGES)


# asyncio


async def open_engine() -> None:
    async with StreamEngine():
        pass


async def open_orchestrator() -> None:
    async with Orchestrator(llm_client=DemoClient()):
        pass


async def ask_demo() -> None:
    await DemoClient().complete(MESSAGES)


async def ask_openai() -> None:
    await OpenAIClient(api_key="k", model="m").complete(MESSAGES)


@pytest.mark.parametrize(
    "program",
    [open_engine, open_orchestrator, ask_demo, ask_openai],
    ids=lambda program: program.__name__,
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_under_asyncio_the_message_names_trio_and_the_bridge(program: Callable[[], Any]) -> None:
    expected = r"under Trio: expected .* trio\.run\(main\), or flowtrio\.aio\.Bridge\."
    with pytest.raises(RuntimeError, match=expected):
        asyncio.run(program())


# Forgotten words


def plain(ctx: RunContext, message: str) -> str:
    return message


async def test_an_agent_that_is_not_async_is_told_so() -> None:
    async with StreamEngine().stream(plain, "hi") as stream:  # type: ignore[arg-type]
        with pytest.raises(RunFailed, match="the agent gave str: expected an async def agent"):
            await stream.result()


def _stream() -> Any:
    return StreamEngine().stream(Agent(llm_client=DemoClient()), "hi")


async def test_a_stream_is_iterated_and_not_awaited() -> None:
    with pytest.raises(TypeError, match="EventStream can't be used in 'await' expression"):
        await _stream()


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (_stream, "a stream is entered with 'async with', not with 'with'"),
        (StreamEngine, "an engine is opened with 'async with', not with 'with'"),
        (
            lambda: Orchestrator(llm_client=DemoClient()),
            "an orchestrator is opened with 'async with', not with 'with'",
        ),
    ],
)
def test_a_forgotten_async_before_with_is_named(made: Callable[[], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        with made():
            pass


def test_a_forgotten_async_before_for_is_named() -> None:
    with pytest.raises(TypeError, match="a stream is read with 'async for', not with 'for'"):
        for _ in _stream():
            pass


async def test_a_forgotten_await_in_an_agent_is_named() -> None:
    async def forgetful(ctx: RunContext, message: str) -> Any:
        return ctx.ask("Whose name?")

    async with StreamEngine().stream(forgetful, "hi") as stream:
        with pytest.raises(RunFailed, match="got a coroutine that lacks its 'await'"):
            await stream.result()


async def test_a_forgotten_await_in_a_tool_is_named() -> None:
    @tool
    def late(ctx: RunContext) -> Any:
        """Forget to wait."""
        return trio.sleep(0)

    async def calls(ctx: RunContext, message: str) -> None:
        await ctx.call(late)

    async with StreamEngine().stream(calls, "hi") as stream:
        with pytest.raises(RunFailed, match="tool 'late' gave a coroutine: expected an async def"):
            await stream.result()


# The server and the command line


async def test_a_server_for_everybody_has_to_be_meant() -> None:
    orchestrator = Orchestrator(llm_client=DemoClient())

    with pytest.raises(ValueError, match=r"expected token=\.\.\., authenticate=\.\.\., insecure"):
        await serve_websocket(orchestrator, "0.0.0.0", 0)


async def test_a_server_says_which_port_it_cannot_have() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use") as caught:
            await serve_websocket(Orchestrator(llm_client=DemoClient()), "127.0.0.1", port)

    assert caught.value.__notes__ == [f"flowtrio can't listen on 127.0.0.1, port {port}"]


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit status and what was said of it."""
    return main(arguments), capsys.readouterr().err


def test_a_port_that_is_in_use_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        said = [
            told(capsys, "serve", "--port", "0", "--ws-port", port),
            told(capsys, "serve", "--port", port, "--ws-port", "0"),
        ]

    error = f"flowtrio: can't listen on 127.0.0.1:{port}: Address already in use\n"
    assert [(status, text.endswith(error)) for status, text in said] == [(2, True)] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "gpt-4o"], "--model gpt-4o: expected one of demo, openai:NAME"),
        (["--agent", "nowhere"], "--agent nowhere: expected package.module:name"),
        (["--agent", "no.such.module:x"], "--agent no.such.module:x: there is no module"),
        (["--agent", "flowtrio:x"], "--agent flowtrio:x: 'flowtrio' has no 'x'"),
        (["--agent", "flowtrio:__version__"], "--agent flowtrio:__version__: can't run"),
    ],
)
def test_options_that_name_nothing_are_told(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    status, text = told(capsys, "serve", *arguments)

    assert status == 2
    assert f"flowtrio: {message}" in text


@pytest.mark.parametrize("library", ["rich", "prompt_toolkit"])
def test_a_missing_extra_is_named(library: str) -> None:
    program = f"import sys; sys.modules[{library!r}] = None\n"
    program += "for stream in (sys.stdin, sys.stdout, sys.stderr): stream.isatty = lambda: True\n"
    program += "from flowtrio.cli._main import main; sys.exit(main(['chat', 'hi']))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TERM": "xterm"},
    )

    assert done.returncode == 2
    assert "pip install 'flowtrio[cli]'" in done.stderr


@pytest.mark.parametrize(
    "redirected",
    ["sys.stdout.isatty = lambda: False", "sys.argv.append('--events')"],
    ids=["a file", "events"],
)
def test_one_message_whose_answer_is_not_drawn_needs_no_extra(redirected: str) -> None:
    program = "import sys; sys.modules['rich'] = sys.modules['prompt_toolkit'] = None\n"
    program += "for stream in (sys.stdin, sys.stdout, sys.stderr): stream.isatty = lambda: True\n"
    program += f"sys.argv[1:] = ['chat', 'hi']; {redirected}\n"
    program += "from flowtrio.cli._main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "TERM": "xterm"},
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "hi" in done.stdout


def test_older_pythons_are_refused_by_pip() -> None:
    assert metadata("flowtrio")["Requires-Python"] == ">=3.11"


def test_under_trio_all_is_well() -> None:
    """What the asyncio cases do wrong is nothing but asyncio."""
    for program in (open_engine, open_orchestrator, ask_demo):
        trio.run(program)
