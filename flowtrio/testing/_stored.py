"""What the suites for stores give them to keep, and how they ask for it."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

from flowtrio._core._events import ROOT, AgentEvent, EventType
from flowtrio.abc import EventStore, RunHeader

_T = EventType

ODD: Final[dict[str, Any]] = {
    "text": 'é 漢 \U0001f600 \x00 " \\ \u2028',
    "numbers": [0, -1, 2**53, 1.5, -0.0, 1e300, 1e-300],
    "rest": {"": None, "yes": True, "deep": [[[{"a": []}]]]},
}


def header_of(run_id: str = "r", tenant_id: str = "t", **keys: Any) -> RunHeader:
    given: dict[str, Any] = {"session_id": "s", "agent": "a", "message": "hi", "created_at": 1.5}
    given["is_remembered"] = True
    return RunHeader(tenant_id=tenant_id, run_id=run_id, **{**given, **keys})


def event_of(seq: int, run_id: str = "r") -> AgentEvent:
    data = {"name": f"n{seq}", "value": {"seq": seq, **ODD}}
    return AgentEvent(_T.CUSTOM, data, seq, run_id, ROOT, 1000.25 + seq)


def events_of(start: int, stop: int, run_id: str = "r") -> list[AgentEvent]:
    return [event_of(seq, run_id) for seq in range(start, stop)]


def done_event(seq: int, run_id: str = "r") -> AgentEvent:
    data: dict[str, Any] = {
        "status": "completed",
        "reason": None,
        "result": None,
        "usage": {},
        "events": seq + 1,
        "duration": 1.0,
        "leftover": [],
    }
    return AgentEvent(_T.DONE, data, seq, run_id, ROOT, 1000.25 + seq)


async def log_of(store: EventStore, run_id: str = "r", tenant_id: str = "t") -> list[AgentEvent]:
    return list(await store.read(tenant_id, run_id, -1, 1000))


async def must_refuse(action: Awaitable[Any], kind: type[Exception], what: str) -> Exception:
    try:
        await action
    except kind as exc:
        return exc
    except Exception as exc:
        raise AssertionError(f"{what}: expected {kind.__name__}, got {type(exc).__name__}") from exc
    raise AssertionError(f"{what}: expected {kind.__name__}, nothing was raised")


async def run_checks(
    checks: Iterable[Callable[..., Awaitable[None]]],
    make: Callable[[], Any],
    parts_of: Callable[[Any], tuple[Any, ...]],
) -> None:
    """Run each of *checks* on the parts of what *make* gives, anew for each."""
    for check in checks:
        async with _fresh(make, parts_of) as parts:
            try:
                await check(*parts)
            except AssertionError:
                raise
            except Exception as exc:
                raise AssertionError(f"{check.__doc__} It raised {type(exc).__name__}.") from exc


@asynccontextmanager
async def _fresh(
    make: Callable[[], Any], parts_of: Callable[[Any], tuple[Any, ...]]
) -> AsyncIterator[tuple[Any, ...]]:
    made = make()
    parts = parts_of(await made if inspect.isawaitable(made) else made)
    try:
        yield parts
    finally:
        for part in parts:
            if hasattr(part, "aclose"):
                await part.aclose()
