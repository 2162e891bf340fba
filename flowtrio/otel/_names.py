"""The names of OpenTelemetry's conventions for generative AI, all in one place.

They are in development, and move. Those of spans are the same in both versions that are here; the
metrics were named anew when the conventions left for a repository of their own, whose first release
is 0.1.0. 1.41.0 is the last release before that.

One metric of both is left out: ``time_per_output_chunk`` (of ``gen_ai.client.operation`` in 1.41.0,
of ``gen_ai.client.inference`` in 0.1.0). It is "recorded for each chunk received after the first
one", so a reply of 1,000 chunks is 1,000 values in a histogram, and telemetry hears of no chunk: it
would pay for each more than the chunk itself costs. What MESSAGE_COMPLETE tells, the reply's time
and that to its first token, gives one mean for a reply. Recorded in their place it would be
another quantity under the same name: no stall would show in it, and long replies would count as
much as short ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import attrs

# Operations: the first word of a span's name

INVOKE_AGENT: Final = "invoke_agent"
CHAT: Final = "chat"
EXECUTE_TOOL: Final = "execute_tool"

# Attributes

OPERATION: Final = "gen_ai.operation.name"
CONVERSATION: Final = "gen_ai.conversation.id"
AGENT_NAME: Final = "gen_ai.agent.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
TOOL_TYPE: Final = "gen_ai.tool.type"
ERROR_TYPE: Final = "error.type"
OTHER_ERROR: Final = "_OTHER"
"""The error's type where nobody has a word for it."""

INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_RESULT: Final = "gen_ai.tool.call.result"

RUN_ID: Final = "flowtrio.run.id"
TENANT_ID: Final = "flowtrio.tenant.id"
OUTCOME: Final = "flowtrio.outcome"
"""How a run, an agent or a call ended, in the words of events; the conventions have none."""

# Metrics

SECONDS: Final = tuple(0.01 * 2**power for power in range(14))
"""Bounds of the buckets of durations."""
TOKENS: Final = tuple(float(4**power) for power in range(14))
"""Bounds of the buckets of numbers of tokens."""

Quantity = Literal[
    "agent duration",
    "tool duration",
    "chat duration",
    "first chunk",
    "input tokens",
    "output tokens",
    "cached tokens",
    "reasoning tokens",
]
"""What is measured, whatever it is called."""


@attrs.frozen
class Metric:
    """An instrument, and what it is given."""

    name: str
    of: Quantity
    unit: Literal["s", "{token}"]
    description: str
    is_counter: bool = False
    attributes: Mapping[str, str] = attrs.Factory(dict)
    """What stands beside the attributes of the operation."""


@attrs.frozen
class Conventions:
    """One version of the conventions."""

    schema_url: str | None
    metrics: tuple[Metric, ...]


_INFERENCE: Final = "gen_ai.client.inference"
_ALL_MODALITIES: Final = {"gen_ai.token.modality": "unknown"}


def _spent(name: str, of: Quantity, description: str) -> Metric:
    """A sum of tokens; hosts do not tell text from other kinds."""
    full = f"{_INFERENCE}.usage.{name}"
    return Metric(full, of, "{token}", description, is_counter=True, attributes=_ALL_MODALITIES)


def _used(kind: str, of: Quantity) -> Metric:
    name, description = "gen_ai.client.token.usage", "Number of input and output tokens used."
    return Metric(name, of, "{token}", description, attributes={"gen_ai.token.type": kind})


CONVENTIONS: Final = {
    "0.1.0": Conventions(
        # That release names no schema.
        None,
        (
            Metric("gen_ai.invoke_agent.duration", "agent duration", "s", "Time an agent took."),
            Metric("gen_ai.execute_tool.duration", "tool duration", "s", "Time a tool took."),
            Metric(f"{_INFERENCE}.duration", "chat duration", "s", "Time a model's reply took."),
            Metric(
                f"{_INFERENCE}.time_to_first_chunk",
                "first chunk",
                "s",
                "Time from a request to the first chunk of the reply.",
            ),
            _spent("input_tokens", "input tokens", "Input tokens, cached ones included."),
            _spent("output_tokens", "output tokens", "Output tokens, reasoning included."),
            _spent("cache_read.input_tokens", "cached tokens", "Input tokens read from a cache."),
            _spent("reasoning.output_tokens", "reasoning tokens", "Output tokens of reasoning."),
            Metric(
                f"{_INFERENCE}.operation.input_tokens",
                "input tokens",
                "{token}",
                "Input tokens of each request.",
            ),
            Metric(
                f"{_INFERENCE}.operation.output_tokens",
                "output tokens",
                "{token}",
                "Output tokens of each reply.",
            ),
        ),
    ),
    "1.41.0": Conventions(
        "https://opentelemetry.io/schemas/1.41.0",
        (
            Metric(
                "gen_ai.client.operation.duration",
                "chat duration",
                "s",
                "GenAI operation duration.",
            ),
            Metric(
                "gen_ai.client.operation.time_to_first_chunk",
                "first chunk",
                "s",
                "Time from a request to the first chunk of the reply.",
            ),
            _used("input", "input tokens"),
            _used("output", "output tokens"),
        ),
    ),
}
"""By version."""
NEWEST: Final = "0.1.0"
