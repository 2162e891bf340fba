"""Each client says whose model it asks, by one rule, and the documents say the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import flowtrio

NAMES: Final = {
    "OpenAIClient": "openai",
    "AnthropicClient": "anthropic",
    "GeminiClient": "gcp.gemini",
    "AzureOpenAIClient": "azure.ai.openai",
    "OllamaClient": "ollama",
    "DashScopeClient": "dashscope",
    "DemoClient": "demo",
}
"""Names in logs are for ever. The first four are OpenTelemetry's, which has none for the others."""

EVENTS: Final = Path(__file__).parents[2] / "docs" / "reference" / "events.md"


def test_every_client_has_its_name() -> None:
    clients = {name for name in dir(flowtrio) if name.endswith("Client")} - {"FallbackClient"}

    assert clients == NAMES.keys()
    for name, provider in NAMES.items():
        assert getattr(flowtrio, name).provider == provider


def test_the_page_of_events_names_them_all() -> None:
    [sentence] = re.findall(
        r"`provider` is a well-known value .*?\.\s[A-Z]", EVENTS.read_text(), re.S
    )

    assert set(NAMES.values()) == set(re.findall(r"`([a-z.]+)`", sentence)) - {"provider"}


def test_another_host_of_the_same_protocol_may_be_named() -> None:
    client = flowtrio.OpenAIClient(api_key="k", model="m", base_url="http://127.0.0.1:1/v1")
    client.provider = "groq"

    assert (client.provider, flowtrio.OpenAIClient.provider) == ("groq", "openai")
