"""What stores do without ever waiting is asked for as a plain function, where that is meant."""

from __future__ import annotations

from typing import Any

import pytest

from flowtrio import MemoryConversations, MemoryStore, Orchestrator, RunContext

EVENTS = ("create", "append")
CONVERSATIONS = ("load", "save")


async def echo(ctx: RunContext, message: str) -> str:
    return message


def counting(base: type, names: tuple[str, ...], asked: list[str]) -> Any:
    """A subclass that notes how it is asked."""

    def noting(name: str) -> Any:
        def call(self: Any, *args: Any) -> Any:
            asked.append(name)
            return getattr(base, name)(self, *args)

        return call

    return type(f"Counting{base.__name__}", (base,), {name: noting(name) for name in names})


def wanted(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{name}_nowait" for name in names)


@pytest.mark.parametrize("is_overridden", [False, True])
async def test_what_never_waits_is_asked_plainly(is_overridden: bool) -> None:
    asked: list[str] = []
    store = counting(MemoryStore, wanted(EVENTS), asked)
    conversations = counting(MemoryConversations, wanted(CONVERSATIONS), asked)
    if is_overridden:
        # What was said of those above does not hold of these any more.
        store = counting(store, EVENTS, asked)
        conversations = counting(conversations, CONVERSATIONS, asked)
    kept = conversations()
    async with Orchestrator(agents=[echo], store=store(), conversations=kept) as orchestrator:
        async with orchestrator.attach(
            await orchestrator.start("hi", session_id="s"), mode="values"
        ) as follower:
            async for _ in follower:
                pass

    expected = [*EVENTS, *CONVERSATIONS] if is_overridden else wanted(EVENTS + CONVERSATIONS)
    # The base's own coroutine functions are these plain ones.
    assert {name for name in asked if not is_overridden or "_nowait" not in name} == set(expected)
    assert [message["content"] for message in await kept.load("default", "s")] == ["hi", "hi"]
