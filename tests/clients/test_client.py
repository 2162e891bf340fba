"""One constructor for all clients over HTTP: the same arguments, and each its own place."""

from __future__ import annotations

import inspect
from typing import Any, Final

import pytest

import flowtrio
from flowtrio.clients._client import HttpClient, Place

COMMON: Final = "api_key model base_url http_client limits max_retries extra_body"

ARGUMENTS: Final = {
    "OpenAIClient": f"{COMMON} api options",
    "AnthropicClient": f"{COMMON} api_version betas options",
    "GeminiClient": f"{COMMON} options",
    "OllamaClient": f"{COMMON} options",
    "DashScopeClient": f"{COMMON} options",
    "AzureOpenAIClient": COMMON.replace("base_url", "azure_endpoint base_url api_version")
    + " api options",
}

KEYS: Final = {
    "OpenAIClient": ("OPENAI_API_KEY", "authorization", "Bearer k"),
    "AnthropicClient": ("ANTHROPIC_API_KEY", "x-api-key", "k"),
    "GeminiClient": ("GEMINI_API_KEY", "x-goog-api-key", "k"),
    "OllamaClient": ("OLLAMA_API_KEY", "authorization", "Bearer k"),
    "DashScopeClient": ("DASHSCOPE_API_KEY", "authorization", "Bearer k"),
    "AzureOpenAIClient": ("AZURE_OPENAI_API_KEY", "api-key", "k"),
}


def client(name: str, **arguments: Any) -> HttpClient:
    made: HttpClient = getattr(flowtrio, name)(model="m", **arguments)
    return made


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("GOOGLE_API_KEY", *(key for key, _, _ in KEYS.values())):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://mine.openai.azure.com")


@pytest.mark.parametrize("name", ARGUMENTS)
def test_the_arguments_are_named_and_in_this_order(name: str) -> None:
    signature = inspect.signature(getattr(flowtrio, name))
    kinds = {parameter.kind for parameter in signature.parameters.values()}

    assert list(signature.parameters) == ARGUMENTS[name].split()
    assert kinds == {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}


@pytest.mark.parametrize("name", KEYS)
def test_a_key_comes_from_its_variable_and_goes_into_its_header(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable, header, value = KEYS[name]
    if name != "OllamaClient":
        with pytest.raises(ValueError, match=f"{name}.*api_key=... or {variable} in the env"):
            client(name)
    monkeypatch.setenv(variable, "k")

    assert client(name)._host.headers[header] == value
    assert header not in client(name, base_url="http://here.example", api_key="")._host.headers or (
        name == "GeminiClient"
    )


def test_an_empty_key_is_none_for_gemini_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "second")
    monkeypatch.setenv("GOOGLE_API_KEY", "")
    assert client("GeminiClient", api_key="")._host.headers["x-goog-api-key"] == "second"

    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with pytest.raises(ValueError, match="expected api_key"):
        client("OpenAIClient", api_key="")


def test_a_client_without_a_variable_needs_no_key() -> None:
    class Own(HttpClient):
        _place = Place("https://models.example")

        def _request(self, *given: Any) -> Any:
            raise NotImplementedError

    own = Own(model="m", anything=1)

    assert repr(own) == "<Own model='m' host='models.example'>"
    assert own.options == {"anything": 1}
