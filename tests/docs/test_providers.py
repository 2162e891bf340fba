"""The documents' examples of each provider, run against a host that speaks its protocol.

The host stands on loopback in a thread of its own, where the provider's own environment variable
says that it is; so the examples are what people would write. Time is real here: bytes on sockets
do not wait for a virtual clock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
import trio

from flowtrio.clients._dashscope import DashScopeClient
from tests.docs.test_blocks import PYTHON, Block, check_output, run
from tests.support import native_hosts, openai_hosts
from tests.support.model_server import Exchange, open_model_server

ANSWERS: dict[str, Callable[..., Any]] = {
    "/v1/messages": native_hosts.anthropic_answers,
    "/v1beta/models": native_hosts.gemini_answers,
    "/api/chat": native_hosts.ollama_answers,
    "/v1/chat/completions": openai_hosts.chat_answers,
    "/v1/responses": openai_hosts.responses_answers,
    "/openai/deployments/my-gpt/chat/completions": openai_hosts.chat_answers,
    "/compatible-mode/v1/chat/completions": openai_hosts.chat_answers,
}
"""How a host answers, by the beginning of the path at which it is asked."""

ENVIRONMENT = {
    "ANTHROPIC_BASE_URL": "",
    "GOOGLE_GEMINI_BASE_URL": "",
    "OLLAMA_HOST": "",
    "OPENAI_BASE_URL": "/v1",
    "AZURE_OPENAI_ENDPOINT": "",
}
"""The variables that name a host, each with the path below the host's address."""

KEYS = (
    "ANTHROPIC_API_KEY",
    "GEMINI_API_KEY",
    "OPENAI_API_KEY",
    "AZURE_OPENAI_API_KEY",
    "DASHSCOPE_API_KEY",
)

LOCAL = "http://localhost:8000"
"""Where the examples say that a server of the reader's own is."""

PAGES = (
    *("anthropic.md", "gemini.md", "ollama.md"),
    *("openai.md", "azure.md", "dashscope.md", "compatible.md"),
)

EXAMPLES = [b for b in PYTHON if b.path.parent.name == "providers" and b.path.name in PAGES]


_RESULTS = ("tool_result", "functionResponse", "'tool'", "function_call_output")
"""What a request says that has a tool's result, in one protocol or another."""


async def answer(exchange: Exchange) -> None:
    """Call the tool that is offered; with its result, speak."""
    [answers] = [answers for path, answers in ANSWERS.items() if exchange.path.startswith(path)]
    said = repr(exchange.body)
    is_answered = any(word in said for word in _RESULTS)
    await answers(calls="'tools'" in said and not is_answered)(exchange)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The host's address."""
    is_ready, told = threading.Event(), dict[str, Any]()

    async def serve() -> None:
        async with open_model_server([answer]) as server:
            told["url"] = server.url.removesuffix("/v1")
            told["token"] = trio.lowlevel.current_trio_token()
            with trio.CancelScope() as told["scope"]:
                is_ready.set()
                await trio.sleep_forever()

    thread = threading.Thread(target=trio.run, args=[serve])
    thread.start()
    assert is_ready.wait(30)
    yield told["url"]
    trio.from_thread.run_sync(told["scope"].cancel, trio_token=told["token"])
    thread.join(30)


@pytest.mark.parametrize("block", EXAMPLES, ids=str)
def test_an_example_of_a_provider_runs(
    block: Block, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, path in ENVIRONMENT.items():
        monkeypatch.setenv(name, f"{url}{path}")
    for name in KEYS:
        monkeypatch.setenv(name, "no-key")
    # No variable says where this one is.
    place = attrs.evolve(DashScopeClient._place, url=url)
    monkeypatch.setattr(DashScopeClient, "_place", place)
    run(attrs.evolve(block, source=block.source.replace(LOCAL, url)))
    if block.output is not None:
        check_output(block.output, capsys.readouterr().out)


def test_each_page_has_an_example_with_its_output() -> None:
    assert {block.path.name for block in EXAMPLES if block.output} == set(PAGES)
