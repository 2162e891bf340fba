"""What the suite for shared stores gives them, and how it asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from flowtrio._core._exceptions import LimitExceeded
from flowtrio._core._limits import Limits
from flowtrio.abc import RunHeader, RunOptions, SharedStore

from ._stored import done_event, header_of, must_refuse

TTL: Final = 60.0
"""Seconds of a lease that holds as long as it has to."""
SHORT: Final = 0.2
"""Seconds of a lease that is soon gone."""
SOON: Final = 5.0
"""Seconds within which what has to happen happens."""

ASKED: Final = RunOptions(
    history=[{"role": "user", "content": "before"}],
    model_settings={"temperature": 0, "stop": ["\n", "é"]},
    limits=Limits(run=30, turns=3, cost="0.25"),
    client_tools=[
        {"type": "function", "function": {"name": "f", "description": "", "parameters": {}}}
    ],
    app={"state": {"draft": "é", "steps": [1, None]}, "context": [], "forwardedProps": None},
    resume_window=12.5,
    waits_for_reader=True,
)
PARTS: Final = ({"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "u"}})
SAID: Final = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "é 漢 ]"}]


def one_off(run_id: str, **keys: Any) -> RunHeader:
    return header_of(run_id, session_id=None, is_remembered=False, **keys)


async def enqueue(
    store: SharedStore,
    header: RunHeader,
    queue_length: float = 16,
    runs_per_tenant: float | None = None,
) -> bool:
    return await store.enqueue(header, queue_length=queue_length, runs_per_tenant=runs_per_tenant)


async def claim(store: SharedStore, owner: str = "w", ttl: float = TTL) -> str | None:
    header = await store.claim(owner, ttl)
    return None if header is None else header.run_id


async def end(store: SharedStore, run_id: str, owner: str | None = "w") -> None:
    await store.append("t", run_id, -1, [done_event(0, run_id)], owner)


async def is_busy(action: Awaitable[Any], code: str, what: str) -> None:
    exc = await must_refuse(action, LimitExceeded, what)
    assert isinstance(exc, LimitExceeded), f"{what} raises LimitExceeded"
    assert exc.code == code, f"{what} has the code {code}"


async def lapse() -> None:
    """Wait until the short leases are gone."""
    await trio.sleep(2 * SHORT)


async def none_left(ask: Callable[[], Awaitable[int]]) -> bool:
    """Whether soon nobody is left; who stops to listen does so without waiting."""
    with trio.move_on_after(SOON):
        while await ask():  # noqa: ASYNC110
            await trio.sleep(SHORT / 10)
        return True
    return False
