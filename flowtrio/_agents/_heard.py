"""What a client's chunks say, and what their reply cost: read in one place, whoever made them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from flowtrio._core._chunks import Chunk, FinishReason, ToolCall, Usage
from flowtrio._core._exceptions import RemoteProtocolError
from flowtrio._core._telling import tell
from flowtrio._core._values import check_json, clean_text

if TYPE_CHECKING:
    from flowtrio._run._info import RunInfo

_FINISH_REASONS = ("stop", "length", "tool_calls", "content_filter")


def known_reason(given: FinishReason | None, calls: Sequence[object]) -> FinishReason:
    """Why the model stopped, in one of our words."""
    if given is not None and given in _FINISH_REASONS:
        return given
    return "tool_calls" if calls else "stop"


def cut_stream() -> RemoteProtocolError:
    words = "the model's stream ended without its finish mark"
    return RemoteProtocolError(words, code="stream_cut", retryable=True)


def reset_reason(given: object) -> str:
    """Why a reply begins anew, as its event tells."""
    if not isinstance(given, str):
        raise TypeError(f"Chunk.reset: expected a str or None, got {type(given).__name__}")
    return word_of(given) or "reset"


async def close_reply(iterator: Any, grace: float) -> None:
    """Close the client's iterator, on every path; it gets the grace for its own cleanup."""
    aclose = getattr(iterator, "aclose", None)
    if aclose is None:
        return
    with trio.CancelScope(shield=True, deadline=trio.current_time() + grace):
        await aclose()


def at_least(usage: Usage, least: Usage) -> Usage:
    """*usage*, and of what its host did not count what was seen of it."""
    if usage.completion_tokens or usage.quality == "measured":
        return usage
    return msgspec.structs.replace(
        usage,
        completion_tokens=least.completion_tokens,
        reasoning_tokens=least.reasoning_tokens,
        quality="lower_bound",
    )


def priced(info: RunInfo, usage: Usage, *models: str | None) -> Usage:
    """*usage* with its cost, by the first of *models* that has a price."""
    prices = info.prices
    if prices is None:
        return usage
    try:
        return prices.priced(usage, models)
    except Exception as exc:
        tell(logging.ERROR, "run %s: the price table failed", info.run_id, exc=exc)
        return usage


def is_plain_text(chunk: Chunk) -> bool:
    return (
        chunk.content.isascii()
        and chunk.content != ""
        and not (chunk.reasoning or chunk.tool_args or chunk.parts or chunk.is_final)
        and chunk.reset is None
    )


def says_anything(chunk: Chunk) -> bool:
    said = (chunk.content, chunk.reasoning, chunk.tool_args, chunk.tool_calls, chunk.parts)
    return any(said)


def word_of(value: object) -> str | None:
    """*value* as the log can keep it, if it is a text."""
    # A foreign client's attributes may be anything; an enum's member, say, is more than a text.
    return (clean_text(str.__str__(value)) or None) if isinstance(value, str) else None


def fit_call(call: ToolCall) -> ToolCall:
    """*call* as the log can keep it; arguments that are no JSON are as those that do not parse."""
    # Only clients that are not ours give such calls: codecs decode strictly.
    arguments = call.arguments
    if arguments is not None:
        try:
            fit = check_json(arguments, "arguments")
        except (TypeError, ValueError):
            fit = None
        arguments = fit if isinstance(fit, dict) else None
    if not isinstance(call.id, str | None):
        raise TypeError(f"ToolCall.id: expected a str, got {type(call.id).__name__}")
    name = clean_text(call.name) or "unnamed"
    return ToolCall(call.id or "", name, arguments, call.raw, call.carry)
