"""`DashScopeClient`: its address, its key, and the names in the environment."""

from __future__ import annotations

import pytest

from flowtrio import DashScopeClient, ProviderError
from tests.support.model_server import open_model_server, refuses, says

KEY = "dash-canary-4714"
HELLO = [{"role": "user", "content": "hello"}]


async def test_a_request_goes_to_the_compatible_interface() -> None:
    async with open_model_server([says("a", "b")]) as server:
        root = server.url.removesuffix("/v1")
        async with DashScopeClient(
            api_key=KEY, model="qwen-plus", base_url=root, enable_thinking=True
        ) as client:
            completion = await client.complete(HELLO)

    [exchange] = server.exchanges
    assert completion.content == "ab"
    assert exchange.path == "/compatible-mode/v1/chat/completions"
    assert exchange.headers["authorization"] == f"Bearer {KEY}"
    assert exchange.body["model"] == "qwen-plus"
    assert exchange.body["enable_thinking"] is True


async def test_a_key_that_the_host_quotes_is_hidden() -> None:
    refusal = refuses(401, {"error": {"message": f"wrong {KEY}"}})
    async with open_model_server([refusal]) as server:
        root = server.url.removesuffix("/v1")
        async with DashScopeClient(api_key=KEY, model="m", base_url=root) as client:
            with pytest.raises(ProviderError) as caught:
                await client.complete(HELLO)

    assert KEY not in f"{caught.value!r} {caught.value.detail} {client!r}"


def test_the_environment_names_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASHSCOPE_API_KEY", KEY)
    client = DashScopeClient(model="qwen-plus")

    assert client._host.base_url == "https://dashscope.aliyuncs.com"
    assert client._host.headers == {"authorization": f"Bearer {KEY}"}


def test_a_missing_key_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DASHSCOPE_API_KEY", raising=False)
    with pytest.raises(ValueError, match=r"expected api_key=\.\.\. or DASHSCOPE_API_KEY"):
        DashScopeClient(model="m")

    assert DashScopeClient(model="m", base_url="http://localhost:1")._host.headers == {}
