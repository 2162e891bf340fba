"""Options are known by name, and what a host has besides goes into ``extra_body``."""

from __future__ import annotations

from typing import Any

import pytest

from flowtrio import (
    AnthropicClient,
    AzureOpenAIClient,
    DashScopeClient,
    GeminiClient,
    OllamaClient,
    OpenAIClient,
)
from flowtrio.clients._options import check_options, with_extra
from tests.support.model_server import open_model_server
from tests.support.protocols import PROTOCOLS, Said

CLIENTS = [
    AnthropicClient,
    AzureOpenAIClient,
    DashScopeClient,
    GeminiClient,
    OllamaClient,
    OpenAIClient,
]
GIVEN: dict[str, Any] = {"api_key": "k", "model": "m", "base_url": "http://models.example"}
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_misspelt_option_is_refused_with_the_nearest_name(client: Any) -> None:
    name = client.__name__
    with pytest.raises(TypeError, match=f"{name}: unknown option 'temprature'; did you mean temp"):
        client(**GIVEN, temprature=0)
    with pytest.raises(TypeError, match=r"unknown option 'zzqx'; What .* extra_body=\{\.\.\.\}"):
        client(**GIVEN).stream_completion(HELLO, zzqx=1)

    client(**GIVEN, temperature=0, stream=False).stream_completion(HELLO, model="n", tools=[])


def test_each_of_openais_protocols_has_options_of_its_own() -> None:
    OpenAIClient(**GIVEN, api="responses", reasoning={"effort": "low"}, max_output_tokens=9)
    AzureOpenAIClient(**GIVEN, api="responses", truncation="auto")
    with pytest.raises(TypeError, match="did you mean stop="):
        OpenAIClient(**GIVEN, stops="x")
    with pytest.raises(TypeError, match="unknown option 'seed'"):
        OpenAIClient(**GIVEN, api="responses", seed=1)


@pytest.mark.parametrize("given", [[], "a", 7, {1: 2}])
def test_a_body_that_is_no_mapping_is_refused(given: Any) -> None:
    with pytest.raises(TypeError, match=r"OpenAIClient\(extra_body=...\): expected a dict, got"):
        OpenAIClient(**GIVEN, extra_body=given)


@pytest.mark.parametrize("name", PROTOCOLS)
async def test_what_a_host_has_besides_is_sent_as_it_is(name: str) -> None:
    protocol = PROTOCOLS[name]
    async with open_model_server([protocol.answers(Said("Good day"))]) as server:
        async with protocol.to(server) as client:
            client.extra_body = {"of_client": 1, "both": 1}
            await client.complete(HELLO, extra_body={"both": 2, "none": None})

    body = server.exchanges[0].body
    assert (body["of_client"], body["both"], body["none"]) == (1, 2, None)


def test_an_object_joins_one_that_is_there() -> None:
    body = {"a": {"x": 1, "y": 1}, "b": 1}

    assert with_extra(body, {"a": {"y": 2}, "b": {"z": 3}}) == {
        "a": {"x": 1, "y": 2},
        "b": {"z": 3},
    }
    assert body == {"a": {"x": 1, "y": 1}, "b": 1}


def test_a_protocol_that_lists_nothing_takes_anything() -> None:
    check_options("MyClient", ["zzqx"], None)
