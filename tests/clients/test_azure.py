"""`AzureOpenAIClient`: addresses, keys, and the names in the environment."""

from __future__ import annotations

from typing import Any

import pytest

from flowtrio import AzureOpenAIClient, ProviderError
from tests.support.model_server import open_model_server, refuses, says
from tests.support.responses import answers, message

KEY = "azure-canary-4713"
HELLO = [{"role": "user", "content": "hello"}]
NAMES = ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT", "OPENAI_API_VERSION")


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def root_of(server: Any) -> str:
    return str(server.url.removesuffix("/v1"))


@pytest.mark.parametrize("word", ["azure_endpoint", "base_url"])
async def test_a_chat_is_asked_of_its_deployment(word: str) -> None:
    async with open_model_server([says("a", "b")]) as server:
        address: Any = {word: f"{root_of(server)}/"}
        async with AzureOpenAIClient(api_key=KEY, model="my gpt", **address) as client:
            completion = await client.complete(HELLO)

    [exchange] = server.exchanges
    assert completion.content == "ab"
    assert exchange.path == ("/openai/deployments/my%20gpt/chat/completions?api-version=2024-10-21")
    assert exchange.headers["api-key"] == KEY
    assert "authorization" not in exchange.headers
    assert exchange.body["model"] == "my gpt"


async def test_responses_name_their_deployment_in_the_body() -> None:
    async with open_model_server([answers(message("hello"))]) as server:
        async with AzureOpenAIClient(
            api_key=KEY, model="mine", azure_endpoint=root_of(server), api="responses"
        ) as client:
            assert (await client.complete(HELLO)).content == "hello"

    [exchange] = server.exchanges
    assert exchange.path == "/openai/responses?api-version=2025-04-01-preview"
    assert exchange.body["model"] == "mine"


async def test_a_key_that_the_host_quotes_is_hidden() -> None:
    refusal = refuses(401, {"error": {"message": f"wrong {KEY}"}})
    async with open_model_server([refusal]) as server:
        async with AzureOpenAIClient(
            api_key=KEY, model="m", azure_endpoint=root_of(server)
        ) as client:
            with pytest.raises(ProviderError) as caught:
                await client.complete(HELLO)

    assert KEY not in f"{caught.value!r} {caught.value.detail} {client!r}"


@pytest.mark.parametrize("version", [None, "2025-01-01"])
def test_the_environment_names_key_address_and_version(
    monkeypatch: pytest.MonkeyPatch, version: str | None
) -> None:
    values = (KEY, "https://mine.openai.azure.com/", "2024-12-01-preview")
    for name, value in zip(NAMES, values, strict=True):
        monkeypatch.setenv(name, value)
    client = AzureOpenAIClient(model="m", api_version=version)

    assert client._host.base_url == "https://mine.openai.azure.com"
    assert client._host.headers == {"api-key": KEY}
    assert client.api_version == (version or "2024-12-01-preview")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "expected azure_endpoint=... or AZURE_OPENAI_ENDPOINT"),
        ({"azure_endpoint": "http://a", "base_url": "http://b"}, "azure_endpoint=... or base_url"),
        ({"azure_endpoint": "http://a", "api": "smoke"}, "expected 'chat' or 'responses'"),
        ({"azure_endpoint": "mine.openai.azure.com"}, "begins with http://"),
    ],
)
def test_what_cannot_work_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as caught:
        AzureOpenAIClient(api_key="k", model="m", **arguments)
    assert words in str(caught.value)


def test_a_missing_key_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert AzureOpenAIClient(model="m", base_url="http://localhost:1")._host.headers == {}
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://mine.openai.azure.com")
    with pytest.raises(ValueError, match=r"expected api_key=\.\.\. or AZURE_OPENAI_API_KEY"):
        AzureOpenAIClient(model="m")
