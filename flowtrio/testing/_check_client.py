"""A suite that any client of a model can be put through, ours or another's."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeAlias

import trio

from flowtrio._core._chunks import (
    Chunk,
    CompletionBuilder,
    FinishReason,
    ToolCall,
    check_told,
)
from flowtrio.abc import LLMClient

MakeClient: TypeAlias = Callable[[], AbstractAsyncContextManager[LLMClient]]
"""Makes a client that answers, for the time of an ``async with`` block."""

_MESSAGES: Final = ({"role": "user", "content": "Say hello."},)
_REASONS: Final = typing.get_args(FinishReason)
_PARALLEL: Final = 8
_LIMIT: Final = 60
"""Seconds for each of the checks."""


async def check_llm_client(
    make_client: MakeClient,
    *,
    messages: Sequence[Mapping[str, Any]] = _MESSAGES,
    tools: Sequence[Mapping[str, Any]] = (),
    secret: str | None = None,
    steps: int = 25,
) -> None:
    """Check that a client keeps what flowtrio relies on; see `flowtrio.abc.LLMClient`.

    The chunks of a whole reply; what they fold into; a reply that is left early, or cancelled at
    each of its first checkpoints, after which the client still answers; several replies at once.
    Each client made has to answer any number of requests, always with at least one chunk.

    Args:
      make_client: Gives a client, such as one of a loopback server; called several times.
      messages: What is asked each time.
      tools: What is offered each time. With tools given the model has to call one of them.
      secret: A key that must not be seen in the client's ``repr``.
      steps: Checkpoints at which a reply is cancelled, from the first one on.

    Raises:
      AssertionError: the client breaks a rule; the message names it.

    """
    ask = _Ask(messages, tools)
    for check in (_check_reply, _check_leaving, _check_cancelling, _check_parallel):
        with trio.move_on_after(_LIMIT) as scope:
            async with make_client() as client:
                if secret is not None:
                    _ensure(secret not in repr(client), "the secret is seen in the client's repr")
                await check(client, ask, steps)
        _ensure(not scope.cancelled_caught, f"{check.__name__[7:]}: took longer than {_LIMIT} s")


class _Ask:
    """What is asked each time."""

    def __init__(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
    ) -> None:
        self.messages = [dict(message) for message in messages]
        self.tools = [dict(tool) for tool in tools]
        self.names = {tool["function"]["name"] for tool in tools}

    def of(self, client: LLMClient) -> Any:
        """The reply's iterator."""
        if self.tools:
            return client.stream_completion(self.messages, self.tools)
        return client.stream_completion(self.messages)


def _ensure(condition: bool, rule: str) -> None:
    if not condition:
        raise AssertionError(rule)


# The checks


async def _check_reply(client: LLMClient, ask: _Ask, steps: int) -> None:
    """A whole reply: the chunks, their end, and what they fold into."""
    reply = ask.of(client)
    _ensure(hasattr(reply, "__anext__"), "stream_completion gives an asynchronous iterator")
    chunks = await _read_all(reply)
    _check_final(chunks[-1], ask)
    complete = getattr(client, "complete", None)
    if complete is not None:
        builder = CompletionBuilder()
        folded = [c for c in map(builder.add, chunks) if c is not None][-1]
        whole = await complete(ask.messages, ask.tools or None)
        _ensure(
            bool(whole.content) == bool(folded.content)
            and bool(whole.tool_calls) == bool(folded.tool_calls),
            "complete() gives what the chunks of a reply fold into",
        )


async def _check_leaving(client: LLMClient, ask: _Ask, steps: int) -> None:
    """A reply that is left after its first chunk is closed, and the client goes on."""
    reply = ask.of(client)
    await anext(reply)
    await _close(reply)
    await _close(reply)
    if hasattr(reply, "aclose"):
        _ensure(await _is_over(reply), "a reply that was closed gives no more chunks")
    await _read_all(ask.of(client))


async def _check_cancelling(client: LLMClient, ask: _Ask, steps: int) -> None:
    """A reply that is cancelled at any checkpoint leaves a client that still answers."""
    for step in range(steps):
        reply = ask.of(client)
        with trio.CancelScope() as scope:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_cancel_after, step, scope)
                    await _read_all(reply)
                    nursery.cancel_scope.cancel()
            finally:
                with trio.CancelScope(shield=True):
                    await _close(reply)
        if not scope.cancelled_caught:
            break
    await _read_all(ask.of(client))


async def _cancel_after(passes: int, scope: trio.CancelScope) -> None:
    for _ in range(passes):
        await trio.lowlevel.checkpoint()
    scope.cancel(reason="check_llm_client")


async def _check_parallel(client: LLMClient, ask: _Ask, steps: int) -> None:
    """Several replies at once are each whole."""
    whole = 0

    async def read() -> None:
        nonlocal whole
        _check_final((await _read_all(ask.of(client)))[-1], ask)
        whole += 1

    async with trio.open_nursery() as nursery:
        for _ in range(_PARALLEL):
            nursery.start_soon(read)
    _ensure(whole == _PARALLEL, f"{_PARALLEL} replies at once are each whole")


# The rules


async def _read_all(reply: Any) -> list[Chunk]:
    chunks: list[Chunk] = []
    try:
        async for chunk in reply:
            _ensure(not (chunks and chunks[-1].is_final), "nothing follows the final chunk")
            _check_chunk(chunk)
            chunks.append(chunk)
    finally:
        await _close(reply)
    _ensure(bool(chunks) and chunks[-1].is_final, "a reply ends with a final chunk")
    return chunks


def _check_chunk(chunk: Chunk) -> None:
    _ensure(isinstance(chunk, Chunk), f"gives Chunks, not {type(chunk).__name__}")
    _ensure(isinstance(chunk.content, str), "content is a str, never None")
    _ensure(isinstance(chunk.reasoning, str), "reasoning is a str, never None")
    _ensure(chunk.reset is None or bool(chunk.reset), "reset is None or a reason")
    for args in chunk.tool_args:
        _ensure(
            isinstance(args.index, int) and isinstance(args.text, str),
            "tool_args have an int index and a str text",
        )
    for part in chunk.parts:
        _ensure(
            isinstance(part, dict) and isinstance(part.get("type"), str),
            "parts are dicts with a type",
        )
    if chunk.is_final or chunk.reset is not None:
        _check_told(chunk)
    if not chunk.is_final:
        _ensure(
            not chunk.tool_calls and chunk.finish_reason is None,
            "tool_calls and finish_reason come with the final chunk only",
        )
        _ensure(
            chunk.usage is None or chunk.reset is not None,
            "usage comes with the final chunk only, or with the reset of what it was spent on",
        )


def _check_final(chunk: Chunk, ask: _Ask) -> None:
    _ensure(
        chunk.finish_reason is None or chunk.finish_reason in _REASONS,
        f"finish_reason is None or one of {', '.join(_REASONS)}",
    )
    _ensure(isinstance(chunk.tool_calls, list), "tool_calls is a list")
    for call in chunk.tool_calls:
        _ensure(isinstance(call, ToolCall), "tool_calls are ToolCalls")
        _ensure(
            isinstance(call.arguments, dict) or (call.arguments is None and bool(call.raw)),
            "a call's arguments are a dict, or None with the text in raw",
        )
    if ask.names:
        called = {call.name for call in chunk.tool_calls}
        _ensure(bool(called) and called <= ask.names, "the model calls the tools it is offered")


def _check_told(chunk: Chunk) -> None:
    try:
        check_told(chunk)
    except (TypeError, ValueError) as exc:
        raise AssertionError(f"a chunk tells a model and a usage: {exc}") from exc


async def _is_over(reply: Any) -> bool:
    try:
        await anext(reply)
    except (StopAsyncIteration, trio.ClosedResourceError):
        return True
    return False


async def _close(reply: Any) -> None:
    if (aclose := getattr(reply, "aclose", None)) is not None:
        await aclose()
