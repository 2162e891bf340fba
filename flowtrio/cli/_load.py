"""What the command line is to serve, from what people name: an agent of theirs, a model, both."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs

import flowtrio
from flowtrio._agents._agent import Agent
from flowtrio._core._values import told
from flowtrio._hosting._orchestrator import Orchestrator

from ._demo import demo_agent

if TYPE_CHECKING:
    from flowtrio.abc import Telemetry, Toolset

CLIENTS = {
    "openai": "OpenAIClient",
    "anthropic": "AnthropicClient",
    "azure": "AzureOpenAIClient",
    "gemini": "GeminiClient",
    "ollama": "OllamaClient",
    "dashscope": "DashScopeClient",
}
"""What ``--model`` may name, and the client of each."""

MODELS = ", ".join(["demo", *(f"{kind}:NAME" for kind in CLIENTS)])


class UsageError(Exception):
    """What was asked for cannot be done; told without a traceback."""


def sendable(token: str | None) -> str | None:
    """A token, without a file's line end; `UsageError` if it cannot be sent."""
    token = token and token.strip()
    if token is not None and not (token.isascii() and token.isprintable()):
        raise UsageError("--token: expected printable ASCII text")
    return token


def make_orchestrator(
    model: str | None,
    agent: str | None,
    stores: Mapping[str, Any] = MappingProxyType({}),
    toolsets: Sequence[Toolset] = (),
    telemetry: Telemetry | None = None,
) -> Orchestrator:
    """Make what is served from ``--model``, ``--agent``, the stores, ``--mcp`` and ``--otel``."""
    served = demo_agent(make_model(model or "demo")) if agent is None else make_served(agent)
    if isinstance(served, Orchestrator):
        options = {
            "--model": model is not None,
            "--mcp": bool(toolsets),
            "--otel": telemetry is not None,
        }
        for option, given in options.items():
            if given:
                words = f"--agent {agent} is an orchestrator: {option} does not apply to it"
                raise UsageError(words)
        # The same with other stores: it is not open yet, and has begun nothing.
        return attrs.evolve(served, **stores) if stores else served
    if isinstance(served, Agent) and agent is not None and model is not None:
        served = served.replace(llm_client=make_model(model))
    if toolsets:
        if not isinstance(served, Agent):
            raise UsageError(f"--agent {agent} is no Agent: --mcp does not apply to it")
        served = served.replace(tools=[*served.tools, *toolsets])
    return Orchestrator(agents=[served], telemetry=telemetry, **stores)


def make_served(name: str) -> Any:
    """Load what ``--agent`` names; what takes no arguments makes it."""
    value, given = load(name), f"--agent {name}"
    if _takes(value) and (isinstance(value, type) or not _takes(value, "ctx", "message")):
        try:
            value = value()
        except Exception as exc:
            exc.add_note(f"{given} takes no arguments, and was called to make an agent")
            raise
        given = f"{given}()"
        if inspect.iscoroutine(value):
            value.close()
            raise UsageError(f"{given}: can't wait for a coroutine: expected {_SERVED}")
    if isinstance(value, Orchestrator):
        return value
    if isinstance(value, type) or not callable(value):
        raise UsageError(f"{given}: can't run {told(value)} as an agent: expected {_SERVED}")
    if not _takes(value, "ctx", "message"):
        takes = f"what takes {inspect.signature(value)}"
        raise UsageError(f"{given}: can't run {takes} as an agent: expected {_SERVED}")
    return value


_SERVED = (
    "an Agent, an async def agent(ctx, message), an Orchestrator, or a plain function without "
    "arguments that makes one of these"
)


def _takes(value: Any, *arguments: str) -> bool:
    """Whether it can be called with so many arguments, as far as can be known."""
    if not callable(value):
        return False
    try:
        inspect.signature(value).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # Such as some that are written in C.
        return bool(arguments)
    return True


def make_model(name: str) -> Any:
    """Make the client that ``--model`` names."""
    if name == "demo":
        return flowtrio.DemoClient()
    kind, _, model = name.partition(":")
    if kind not in CLIENTS or not model:
        raise UsageError(f"--model {name}: expected one of {MODELS}")
    try:
        return getattr(flowtrio, CLIENTS[kind])(model=model)
    except ValueError as exc:
        raise UsageError(str(exc)) from None


def load(name: str, option: str = "--agent") -> Any:
    """Import what an option names, from the current directory too."""
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise UsageError(f"{option} {name}: expected package.module:name")
    sys.path.insert(0, os.getcwd())
    try:
        value: Any = importlib.import_module(module)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{module}.".startswith(f"{exc.name}."):
            raise
        raise UsageError(f"{option} {name}: there is no module {exc.name!r}") from None
    except Exception as exc:
        # Its own traceback says where; the note says why it was run at all.
        exc.add_note(
            f"{option} {name}: {module!r} failed while it was imported; what it runs as a program "
            'belongs below `if __name__ == "__main__":`'
        )
        raise
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise UsageError(f"{option} {name}: {module!r} has no {attribute!r}")
        value = getattr(value, part)
    return value
