"""What a model can say: chunks, and the completion they fold into.

A chunk is a fragment of one model reply; its boundaries carry no meaning.
The last chunk of a reply has ``is_final`` set and brings what is known only
at the end. Chunks are made for every token, so they are msgspec Structs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from decimal import Context, Decimal, InvalidOperation
from io import StringIO
from typing import Any, Final, Literal, Protocol, TypeAlias

import attrs
import msgspec

from ._exceptions import RemoteProtocolError
from ._values import told

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter"]
"""Why a model stopped by itself; a run adds ``cancelled`` and ``error``."""


MONEY: Final = Context(prec=200, traps=[])
"""In which costs are added up: exact for all that `is_money` and `check_told` let pass.

Whoever uses decimals too may have set the context of the task to another precision, or to raise.
"""

CHARACTERS_A_TOKEN: Final = 8
"""More than any tokenizer's average on natural language, so that an estimate is a lower bound."""

_MOST = 10**15
"""The largest price, cost and count of tokens."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens that one or several model replies cost."""

    prompt_tokens: int = 0
    """Tokens of the request, cached ones included."""
    completion_tokens: int = 0
    """Tokens of the reply, reasoning included."""
    reasoning_tokens: int = 0
    """Part of ``completion_tokens`` that was spent on reasoning."""
    cached_tokens: int = 0
    """Part of ``prompt_tokens`` that the provider had cached."""
    quality: Literal["measured", "lower_bound"] = "measured"
    """``lower_bound`` where a reply ended before the provider told its usage."""
    cost: str | None = None
    """Price as a decimal text in the price table's currency, or None without a table."""

    def __add__(self, other: Usage) -> Usage:
        """Sum of both; a lower bound if either is one, and without a cost if either has none.

        What spent no tokens counts for nothing.
        """
        bound = "lower_bound" in (self.quality, other.quality)
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            quality="lower_bound" if bound else "measured",
            cost=_add_costs(self, other),
        )

    def to_dict(self) -> dict[str, Any]:
        """The six keys that events carry."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "reasoning_tokens": self.reasoning_tokens,
            "cached_tokens": self.cached_tokens,
            "quality": self.quality,
            "cost": self.cost,
        }


def least_usage(characters: int, reasoning: int = 0) -> Usage:
    """What a reply cost at least that ended before its usage was told.

    Args:
      characters: Of all that was seen of it.
      reasoning: How many of these were reasoning.

    """
    return Usage(
        completion_tokens=-(-characters // CHARACTERS_A_TOKEN),
        reasoning_tokens=-(-reasoning // CHARACTERS_A_TOKEN),
        quality="lower_bound",
    )


def _add_costs(one: Usage, other: Usage) -> str | None:
    costs = [
        usage.cost
        for usage in (one, other)
        if usage.cost is not None or usage.prompt_tokens or usage.completion_tokens
    ]
    if not costs or None in costs:
        return None
    total = Decimal(0)
    for cost in costs:
        total = MONEY.add(total, Decimal(cost or 0))
    return decimal_text(total)


def decimal_text(value: Decimal) -> str:
    """A decimal as plain text, without an exponent or trailing zeros."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@attrs.frozen
class ToolCall:
    """A call that the model asks us to run."""

    id: str
    """The provider's id; carried to the next request, never shown in events."""
    name: str
    """Name of the tool."""
    arguments: dict[str, Any] | None
    """Decoded arguments; None when the text did not parse as a JSON object."""
    raw: str = ""
    """The arguments as the model wrote them."""
    carry: dict[str, Any] | None = None
    """Opaque; the provider wants it back with this call in the next request."""


class ToolArgs(msgspec.Struct, frozen=True):
    """A fragment of a tool call that the model is still writing."""

    index: int
    """Place of the call in the reply, from 0."""
    id: str
    """The provider's id, or ``""`` while unknown."""
    name: str
    """Name of the tool, or ``""`` while unknown."""
    text: str
    """Piece of the arguments' JSON text."""


class Chunk(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """A fragment of a model's reply."""

    content: str = ""
    """Piece of the visible text."""
    reasoning: str = ""
    """Piece of the visible reasoning."""
    tool_args: Sequence[ToolArgs] = ()
    """Pieces of tool calls."""
    parts: Sequence[dict[str, Any]] = ()
    """What else the model says: dicts with a ``type``, such as citation, file or refusal."""
    reset: str | None = None
    """Discard this reply so far, for this reason: another attempt follows."""
    is_final: bool = False
    """Whether this is the reply's last chunk."""
    tool_calls: list[ToolCall] = msgspec.field(default_factory=list)
    """On the last chunk: the calls for us to run, in order."""
    finish_reason: FinishReason | None = None
    """On the last chunk: why the model stopped."""
    raw_finish_reason: str | None = None
    """The same in the provider's spelling."""
    usage: Usage | None = None
    """On the last chunk: what the reply cost, where the provider told it; with a ``reset`` before
    it: what that discards."""
    model: str | None = None
    """Beside these: the model that answered, by the provider's name."""
    carry: dict[str, Any] | None = None
    """Opaque; the provider wants it back in the next request (signatures, encrypted reasoning)."""


_COUNTS = ("prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens")


def check_told(final: Chunk) -> None:
    """Refuse a final chunk whose model or usage is none; only clients that are not ours give such.

    Raises:
      TypeError: one of their values is of another type.
      ValueError: tokens are fewer than none or beyond reason, and so for the cost, or it is no
        decimal, or the quality no word for it.

    """
    if not isinstance(final.model, str | None):
        raise TypeError(f"Chunk.model: expected a str or None, got {type(final.model).__name__}")
    usage = final.usage
    if not isinstance(usage, Usage | None):
        raise TypeError(f"Chunk.usage: expected a Usage or None, got {type(usage).__name__}")
    if usage is None:
        return
    for name in _COUNTS:
        count = getattr(usage, name)
        if type(count) is not int:
            raise TypeError(f"Usage.{name}: expected an int, got {type(count).__name__}")
        if not 0 <= count <= _MOST:
            raise ValueError(f"Usage.{name}: expected 0 to 10**15, got {told(count)}")
    if usage.quality not in ("measured", "lower_bound"):
        raise ValueError("Usage.quality: expected 'measured' or 'lower_bound'")
    if usage.cost is not None and not _is_cost(usage.cost):
        raise ValueError(
            "Usage.cost: expected None, or a decimal as a str: 10**15 and 60 places at most"
        )


def _is_cost(text: Any) -> bool:
    try:
        return type(text) is str and len(text) <= 100 and is_money(Decimal(text))
    except InvalidOperation:
        return False


def is_money(value: Decimal) -> bool:
    """Whether *value* is a number that can be added to others, and written, in few digits."""
    if not value.is_finite():
        return False
    exponent = value.as_tuple().exponent
    return -60 <= int(exponent) <= 15 and value.copy_abs() <= _MOST


@attrs.frozen(kw_only=True)
class Completion:
    """A model's whole reply: its chunks folded together."""

    content: str = ""
    """The whole text."""
    reasoning: str = ""
    """The whole visible reasoning."""
    parts: list[dict[str, Any]] = attrs.Factory(list)
    """See `Chunk.parts`."""
    tool_calls: list[ToolCall] = attrs.Factory(list)
    """The calls for us to run, in order."""
    finish_reason: FinishReason | None = None
    """Why the model stopped."""
    raw_finish_reason: str | None = None
    """The same in the provider's spelling."""
    usage: Usage | None = None
    """What the reply cost, or None if the provider did not tell."""
    model: str | None = None
    """The model that answered."""
    carry: dict[str, Any] | None = None
    """See `Chunk.carry`."""


@attrs.define(eq=False)
class CompletionBuilder:
    """Folds chunks into a `Completion`.

    Text is kept once, not as a list of fragments: a million tokens stay a few MiB.
    """

    _content: StringIO = attrs.field(factory=StringIO, init=False)
    _reasoning: StringIO = attrs.field(factory=StringIO, init=False)
    _parts: list[dict[str, Any]] = attrs.field(factory=list, init=False)
    _written: int = attrs.field(default=0, init=False)
    """Characters of arguments."""
    _lost: Usage | None = attrs.field(default=None, init=False)
    """What was spent on attempts that failed."""

    def add(self, chunk: Chunk) -> Completion | None:
        """Take one chunk; gives the completion if it is the final one."""
        if chunk.reset is not None:
            reasoning = self._reasoning.tell()
            seen = self._content.tell() + reasoning + self._written
            told = None if chunk.is_final else chunk.usage
            self._lost = (told or least_usage(seen, reasoning)) + (self._lost or Usage())
            self._written = 0
            self._content = StringIO()
            self._reasoning = StringIO()
            self._parts = []
        if chunk.content:
            self._content.write(chunk.content)
        if chunk.reasoning:
            self._reasoning.write(chunk.reasoning)
        for args in chunk.tool_args:
            self._written += len(args.text)
        if chunk.parts:
            self._parts.extend(chunk.parts)
        if not chunk.is_final:
            return None
        usage = chunk.usage
        if usage is not None and self._lost is not None:
            usage += self._lost
        return Completion(
            content=self._content.getvalue(),
            reasoning=self._reasoning.getvalue(),
            parts=self._parts,
            tool_calls=list(chunk.tool_calls),
            finish_reason=chunk.finish_reason,
            raw_finish_reason=chunk.raw_finish_reason,
            usage=usage,
            model=chunk.model,
            carry=chunk.carry,
        )


class ClosableReply(Protocol):
    """A reply on its way that can be left."""

    def __aiter__(self) -> AsyncIterator[Chunk]:
        """Give its chunks."""
        ...

    async def aclose(self) -> None:
        """Leave the rest unsaid."""
        ...


async def fold(reply: ClosableReply) -> Completion:
    """Read a reply up to its final chunk, close it, and give it whole.

    Raises:
      RemoteProtocolError: it ended without a final chunk; code ``stream_cut``.

    """
    builder = CompletionBuilder()
    async with aclosing(reply):
        async for chunk in reply:
            if (completion := builder.add(chunk)) is not None:
                return completion
    raise RemoteProtocolError(
        "the model's stream ended without its finish mark", code="stream_cut", retryable=True
    )
