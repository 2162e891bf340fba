"""A suite for stores of events: what `flowtrio.abc.EventStore` promises, asked of any of them."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

from flowtrio._core._events import ROOT, AgentEvent, AgentStatus, EventType
from flowtrio._core._exceptions import LocalProtocolError, ReplayGap
from flowtrio.abc import EventStore, RunHeader

_T = EventType
_SOON: Final = 5.0
"""Seconds within which what has to happen happens, also on a slow disk."""
_A_WHILE: Final = 0.05
"""Seconds in which what must not happen does not."""


async def check_event_store(
    make_store: Callable[[], EventStore | Awaitable[EventStore]],
) -> None:
    """Hold a store to all that `flowtrio.abc.EventStore` says.

    Run it under Trio, where the store talks to something outside under its real clock. Each of
    some twenty checks asks for a store of its own; one that has an ``aclose`` is closed after it.

    Args:
      make_store: Gives a fresh store that keeps at least 200 small events; may be async.

    Raises:
      AssertionError: the store breaks a promise; the message says which.

    """
    for check in _CHECKS:
        async with _fresh(make_store) as store:
            try:
                await check(store)
            except AssertionError:
                raise
            except Exception as exc:
                raise AssertionError(f"{check.__doc__} It raised {type(exc).__name__}.") from exc


@asynccontextmanager
async def _fresh(make: Callable[[], Any]) -> AsyncIterator[EventStore]:
    store = make()
    if inspect.isawaitable(store):
        store = await store
    try:
        yield store
    finally:
        if hasattr(store, "aclose"):
            await store.aclose()


# What is stored


_ODD: Final[dict[str, Any]] = {
    "text": 'é 漢 \U0001f600 \x00 " \\ \u2028',
    "numbers": [0, -1, 2**53, 1.5, -0.0, 1e300, 1e-300],
    "rest": {"": None, "yes": True, "deep": [[[{"a": []}]]]},
}


def _header(run_id: str = "r", tenant_id: str = "t", **keys: Any) -> RunHeader:
    given: dict[str, Any] = {"session_id": "s", "agent": "a", "message": "hi", "created_at": 1.5}
    given["is_remembered"] = True
    return RunHeader(tenant_id=tenant_id, run_id=run_id, **{**given, **keys})


def _event(seq: int, run_id: str = "r") -> AgentEvent:
    data = {"name": f"n{seq}", "value": {"seq": seq, **_ODD}}
    return AgentEvent(_T.CUSTOM, data, seq, run_id, ROOT, 1000.25 + seq)


def _events(start: int, stop: int, run_id: str = "r") -> list[AgentEvent]:
    return [_event(seq, run_id) for seq in range(start, stop)]


def _done(seq: int, run_id: str = "r") -> AgentEvent:
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


async def _log(store: EventStore, run_id: str = "r", tenant_id: str = "t") -> list[AgentEvent]:
    return list(await store.read(tenant_id, run_id, -1, 1000))


async def _refuses(action: Awaitable[Any], kind: type[Exception], what: str) -> Exception:
    try:
        await action
    except kind as exc:
        return exc
    except Exception as exc:
        raise AssertionError(f"{what}: expected {kind.__name__}, got {type(exc).__name__}") from exc
    raise AssertionError(f"{what}: expected {kind.__name__}, nothing was raised")


# The checks, each a sentence


async def _creates_once(store: EventStore) -> None:
    """A run is created once, and creating it again changes nothing."""
    assert await store.create(_header()) is True, "create() gives True for a new run"
    await store.append("t", "r", -1, _events(0, 3))
    again = await store.create(_header(message="other"))

    assert again is False, "create() gives False for a run that exists"
    assert await _log(store) == _events(0, 3), "create() of a run that exists keeps its log"
    header = await store.header("t", "r")
    assert header is not None, "create() of a run that exists keeps its header"
    assert header.message == "hi", "create() of a run that exists keeps its header"


async def _keeps_headers(store: EventStore) -> None:
    """A header comes back as it was given."""
    given = _header(message=_ODD["text"].replace("\x00", ""), session_id=None, owner="o")
    await store.create(given)

    assert await store.header("t", "r") == given, "header() gives what create() was given"
    assert await store.header("t", "other") is None, "header() gives None for an unknown run"


async def _keys_have_two_parts(store: EventStore) -> None:
    """A run belongs to its tenant."""
    await store.create(_header())
    assert await store.create(_header(tenant_id="u")), "two tenants may have runs of one id"
    await store.append("t", "r", -1, _events(0, 2))

    assert await _log(store, tenant_id="u") == [], "a tenant does not see another one's events"
    assert await store.header("v", "r") is None, "a tenant does not see another one's run"
    await _refuses(store.read("v", "r", -1, 1), LookupError, "read() of another tenant's run")


async def _gives_what_it_took(store: EventStore) -> None:
    """What was appended is read, from every place and to every limit."""
    await store.create(_header())
    await store.append("t", "r", -1, _events(0, 1))
    await store.append("t", "r", 0, _events(1, 7))
    await store.append("t", "r", 6, [*_events(7, 9), _done(9)])
    log = [*_events(0, 9), _done(9)]

    for after in range(-1, 10):
        for limit in (1, 3, 100):
            found = list(await store.read("t", "r", after, limit))
            expected = log[after + 1 : after + 1 + limit]
            assert found == expected, f"read(after={after}, limit={limit}) gives the next events"


async def _takes_many_at_once(store: EventStore) -> None:
    """What a store has lost, or did not take for a while, comes in one append."""
    await store.create(_header())
    await store.append("t", "r", -1, _events(0, 2000))
    await store.append("t", "r", 1999, [_done(2000)])

    found = list(await store.read("t", "r", 1899, 1000))
    assert found == [*_events(1900, 2000), _done(2000)], "append() of 2,000 events keeps the newest"


async def _an_empty_log_reads_empty(store: EventStore) -> None:
    """A log without events has none to read."""
    await store.create(_header())

    assert list(await store.read("t", "r", -1, 10)) == [], "read() of an empty log gives nothing"


async def _refuses_a_wrong_place(store: EventStore) -> None:
    """Events are appended behind the last one only."""
    await store.create(_header())
    await store.append("t", "r", -1, _events(0, 3))
    for after, events, what in (
        (1, _events(2, 4), "events that are there"),
        (-1, _events(0, 3), "the same events again"),
        (3, _events(4, 5), "events behind a gap"),
        (2, _events(4, 6), "events numbered behind a gap"),
        (2, [_event(3), _event(5)], "events with a gap between them"),
        (2, [_event(3), _event(3)], "an event twice"),
        (2, [], "nothing"),
    ):
        action = store.append("t", "r", after, events)
        await _refuses(action, LocalProtocolError, f"append() of {what}")
        assert await _log(store) == _events(0, 3), f"append() of {what} changes nothing"
    await store.append("t", "r", 2, _events(3, 5))

    assert await _log(store) == _events(0, 5), "append() works after one that was refused"


async def _ends_with_done(store: EventStore) -> None:
    """DONE ends a log, and its header tells."""
    await store.create(_header())
    await store.append("t", "r", -1, _events(0, 1))
    before = await store.header("t", "r")
    await store.append("t", "r", 0, [_done(1)])
    after = await store.header("t", "r")

    assert before is not None, "header() gives a run's header"
    assert after is not None, "header() gives a run's header after its end"
    assert (before.ended_at, before.status) == (None, None), "a run that goes on has not ended"
    assert after.ended_at == _done(1).timestamp, "ended_at is the time of DONE"
    assert after.status is AgentStatus.COMPLETED, "status is that of DONE"
    action = store.append("t", "r", 1, _events(2, 3))
    await _refuses(action, LocalProtocolError, "append() behind DONE")


async def _tells_of_gaps(store: EventStore) -> None:
    """A place that was never there is a ReplayGap."""
    await store.create(_header())
    await store.append("t", "r", -1, _events(0, 3))
    for after in (3, 99):
        exc = await _refuses(
            store.read("t", "r", after, 10), ReplayGap, f"read(after={after}) of three events"
        )
        assert isinstance(exc, ReplayGap), "read() past the end raises ReplayGap"
        assert (exc.run_id, exc.after) == ("r", after), "a ReplayGap says of which run and place"


async def _knows_what_it_does_not_know(store: EventStore) -> None:
    """An unknown run is a LookupError."""
    await _refuses(store.read("t", "r", -1, 1), LookupError, "read() of an unknown run")
    await _refuses(
        store.append("t", "r", -1, _events(0, 1)), LookupError, "append() to an unknown run"
    )
    with trio.move_on_after(_SOON) as waiting:
        await _refuses(store.wait_past("t", "r", -1), LookupError, "wait_past() of an unknown run")
    assert not waiting.cancelled_caught, "wait_past() of an unknown run does not wait"


async def _lists(store: EventStore) -> None:
    """Runs are listed by tenant and conversation, oldest first."""
    for number, (tenant, session) in enumerate([("t", "s"), ("u", "s"), ("t", "z"), ("t", "s")]):
        await store.create(_header(f"r{number}", tenant, session_id=session))

    assert await _ids(store, "t") == ["r0", "r2", "r3"], "list() gives a tenant's runs in order"
    assert await _ids(store, "t", "s") == ["r0", "r3"], "list() gives a conversation's runs"
    assert await _ids(store, "v") == [], "list() gives nothing for an unknown tenant"


async def _ids(store: EventStore, tenant_id: str, session_id: str | None = None) -> Sequence[str]:
    return [header.run_id for header in await store.list(tenant_id, session_id)]


async def _deletes(store: EventStore) -> None:
    """Runs are deleted one by one, by conversation, and by tenant."""
    for number, (tenant, session) in enumerate(
        [("t", "s"), ("t", "s"), ("t", "z"), ("t", "z"), ("u", "s")]
    ):
        await store.create(_header(f"r{number}", tenant, session_id=session))
        await store.append(tenant, f"r{number}", -1, _events(0, 2, f"r{number}"))

    assert await store.delete("t", run_id="r4") == 0, "delete() leaves another tenant's run"
    assert await store.delete("t", run_id="r0") == 1, "delete() tells how many it forgot"
    assert await _ids(store, "t") == ["r1", "r2", "r3"], "delete(run_id=) forgets one run"
    assert await store.delete("t", session_id="s") == 1, "delete() tells how many it forgot"
    assert await _ids(store, "t") == ["r2", "r3"], "delete(session_id=) forgets a conversation"
    assert await store.delete("t") == 2, "delete() tells how many it forgot"
    assert await _ids(store, "t") == [], "delete() forgets a tenant"
    assert await _ids(store, "u") == ["r4"], "delete() leaves another tenant's runs"
    await _refuses(store.read("t", "r0", -1, 1), LookupError, "read() of a deleted run")
    assert await store.create(_header("r0")), "a deleted run may be created again"
    assert await _log(store, "r0") == [], "a run that is created again has an empty log"


async def _expires(store: EventStore) -> None:
    """Runs expire by the time of their end, and not before it."""
    for run_id, events in (
        ("old", [_done(0, "old")]),
        ("new", [*_events(0, 5, "new"), _done(5, "new")]),
        ("on", _events(0, 1, "on")),
    ):
        await store.create(_header(run_id))
        await store.append("t", run_id, -1, events)

    assert await store.expire(1000) == 0, "expire() leaves what ended later"
    assert await store.expire(1003) == 1, "expire() tells how many it forgot"
    assert await _ids(store, "t") == ["new", "on"], "expire() forgets what ended before"
    assert await store.expire(1e12) == 1, "expire() tells how many it forgot"
    assert await _ids(store, "t") == ["on"], "expire() leaves runs that have not ended"


async def _waits(store: EventStore) -> None:
    """Waiting ends with the next event, and not before."""
    await store.create(_header())
    await store.append("t", "r", -1, _events(0, 2))
    found: list[int] = []

    async def wait(seq: int) -> None:
        found.append(await store.wait_past("t", "r", seq))

    with trio.fail_after(_SOON):
        await wait(-1)
        assert found == [1], "wait_past() gives the newest number at once where it is later"
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(wait, 1)
        await trio.sleep(_A_WHILE)
        assert found == [1], "wait_past() waits for a later event"
        await store.append("t", "r", 1, _events(2, 4))
        nursery.cancel_scope.deadline = trio.current_time() + _SOON
    assert found == [1, *[3] * 5], "wait_past() wakes all who wait"


async def _waiting_ends(store: EventStore) -> None:
    """Nobody waits for a log that has ended, or was deleted."""
    for run_id in ("r", "q"):
        await store.create(_header(run_id))
        await store.append("t", run_id, -1, [*_events(0, 1, run_id)])
    await store.append("t", "r", 0, [_done(1)])
    with trio.move_on_after(_SOON) as waiting:
        assert await store.wait_past("t", "r", 1) == 1, "wait_past() gives the newest number"
    assert not waiting.cancelled_caught, "wait_past() does not wait for a log that has ended"
    with trio.move_on_after(_SOON) as waiting:
        async with trio.open_nursery() as nursery:
            action = store.wait_past("t", "q", 0)
            nursery.start_soon(_refuses, action, LookupError, "wait_past() of a run then deleted")
            await trio.sleep(_A_WHILE)
            await store.delete("t", run_id="q")
    assert not waiting.cancelled_caught, "wait_past() ends when its run is deleted"


async def _one_creates(store: EventStore) -> None:
    """Of many who create one run at once, one does."""
    created: list[bool] = []

    async def create() -> None:
        created.append(await store.create(_header()))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(create)
    assert sorted(created) == [False] * 9 + [True], "one of several create() gives True"


async def _one_appends(store: EventStore) -> None:
    """Of many who append behind one event at once, one does."""
    await store.create(_header())
    taken: list[int] = []

    async def append() -> None:
        for seq in range(10):
            try:
                await store.append("t", "r", seq - 1, _events(seq, seq + 1))
            except LocalProtocolError:
                continue
            taken.append(seq)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(append)
    assert sorted(taken) == list(range(len(taken))), "each place is taken by one append()"
    assert await _log(store) == _events(0, len(taken)), "the log has what was taken"


async def _follows(store: EventStore) -> None:
    """Whoever follows sees each event once and in order, wherever he begins."""
    await store.create(_header())
    logs: dict[int, list[AgentEvent]] = {}

    async def follow(after: int, limit: int) -> None:
        await store.wait_past("t", "r", after)
        log = logs[after] = []
        seq = after
        while seq < 40:
            await store.wait_past("t", "r", seq)
            log += await store.read("t", "r", seq, limit)
            seq = log[-1].seq

    with trio.move_on_after(4 * _SOON):
        async with trio.open_nursery() as nursery:
            for after in range(-1, 40, 8):
                nursery.start_soon(follow, after, after + 2)
            for seq in range(0, 40, 4):
                await store.append("t", "r", seq - 1, _events(seq, seq + 4))
            await store.append("t", "r", 39, [_done(40)])
    whole = [*_events(0, 40), _done(40)]
    for after in range(-1, 40, 8):
        assert logs.get(after) == whole[after + 1 :], f"who follows from {after} sees the rest"


async def _can_be_cancelled(store: EventStore) -> None:
    """An append that is cancelled has happened or has not."""
    await store.create(_header())
    last = -1
    for ticks in range(12):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.append, "t", "r", last, _events(last + 1, last + 4))
            for _ in range(ticks):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        # What was under way may still happen, so it is waited for in line.
        probe = _header(f"probe{ticks}")
        await store.create(probe)
        log = await _log(store)
        assert log in (_events(0, last + 1), _events(0, last + 4)), (
            "append() that is cancelled leaves all of its events, or none"
        )
        last = len(log) - 1
    await store.append("t", "r", last, [_done(last + 1)])

    assert await _log(store) == [*_events(0, last + 1), _done(last + 1)], "the log goes on"


_CHECKS: Final[tuple[Callable[[EventStore], Awaitable[None]], ...]] = (
    _creates_once,
    _keeps_headers,
    _keys_have_two_parts,
    _gives_what_it_took,
    _takes_many_at_once,
    _an_empty_log_reads_empty,
    _refuses_a_wrong_place,
    _ends_with_done,
    _tells_of_gaps,
    _knows_what_it_does_not_know,
    _lists,
    _deletes,
    _expires,
    _waits,
    _waiting_ends,
    _one_creates,
    _one_appends,
    _follows,
    _can_be_cancelled,
)
