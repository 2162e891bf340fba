"""A suite for stores of events: what `flowtrio.abc.EventStore` promises, asked of any of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from flowtrio._core._events import AgentEvent, AgentStatus
from flowtrio._core._exceptions import Fenced, LocalProtocolError, ReplayGap
from flowtrio.abc import EventStore

from ._stored import (
    ODD,
    done_event,
    event_of,
    events_of,
    header_of,
    log_of,
    must_refuse,
    run_checks,
)

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
    await run_checks(_CHECKS, make_store, lambda store: (store,))


# The checks, each a sentence


async def _creates_once(store: EventStore) -> None:
    """A run is created once, and creating it again changes nothing."""
    assert await store.create(header_of()) is True, "create() gives True for a new run"
    await store.append("t", "r", -1, events_of(0, 3))
    again = await store.create(header_of(message="other"))

    assert again is False, "create() gives False for a run that exists"
    assert await log_of(store) == events_of(0, 3), "create() of a run that exists keeps its log"
    header = await store.header("t", "r")
    assert header is not None, "create() of a run that exists keeps its header"
    assert header.message == "hi", "create() of a run that exists keeps its header"


async def _keeps_headers(store: EventStore) -> None:
    """A header comes back as it was given."""
    given = header_of(message=ODD["text"].replace("\x00", ""), session_id=None, owner="o")
    await store.create(given)

    assert await store.header("t", "r") == given, "header() gives what create() was given"
    assert await store.header("t", "other") is None, "header() gives None for an unknown run"


async def _keys_have_two_parts(store: EventStore) -> None:
    """A run belongs to its tenant."""
    await store.create(header_of())
    assert await store.create(header_of(tenant_id="u")), "two tenants may have runs of one id"
    await store.append("t", "r", -1, events_of(0, 2))

    assert await log_of(store, tenant_id="u") == [], "a tenant does not see another one's events"
    assert await store.header("v", "r") is None, "a tenant does not see another one's run"
    await must_refuse(store.read("v", "r", -1, 1), LookupError, "read() of another tenant's run")


async def _gives_what_it_took(store: EventStore) -> None:
    """What was appended is read, from every place and to every limit."""
    await store.create(header_of())
    await store.append("t", "r", -1, events_of(0, 1))
    await store.append("t", "r", 0, events_of(1, 7))
    await store.append("t", "r", 6, [*events_of(7, 9), done_event(9)])
    log = [*events_of(0, 9), done_event(9)]

    for after in range(-1, 10):
        for limit in (1, 3, 100):
            found = list(await store.read("t", "r", after, limit))
            expected = log[after + 1 : after + 1 + limit]
            assert found == expected, f"read(after={after}, limit={limit}) gives the next events"


async def _takes_many_at_once(store: EventStore) -> None:
    """What a store has lost, or did not take for a while, comes in one append."""
    await store.create(header_of())
    await store.append("t", "r", -1, events_of(0, 2000))
    await store.append("t", "r", 1999, [done_event(2000)])

    found = list(await store.read("t", "r", 1899, 1000))
    assert found == [*events_of(1900, 2000), done_event(2000)], (
        "append() of 2,000 events keeps the newest"
    )


async def _an_empty_log_reads_empty(store: EventStore) -> None:
    """A log without events has none to read."""
    await store.create(header_of())

    assert list(await store.read("t", "r", -1, 10)) == [], "read() of an empty log gives nothing"


async def _refuses_a_wrong_place(store: EventStore) -> None:
    """Events are appended behind the last one only."""
    await store.create(header_of())
    await store.append("t", "r", -1, events_of(0, 3))
    for after, events, what in (
        (1, events_of(2, 4), "events that are there"),
        (-1, events_of(0, 3), "the same events again"),
        (3, events_of(4, 5), "events behind a gap"),
        (2, events_of(4, 6), "events numbered behind a gap"),
        (2, [event_of(3), event_of(5)], "events with a gap between them"),
        (2, [event_of(3), event_of(3)], "an event twice"),
        (2, [], "nothing"),
    ):
        action = store.append("t", "r", after, events)
        await must_refuse(action, LocalProtocolError, f"append() of {what}")
        assert await log_of(store) == events_of(0, 3), f"append() of {what} changes nothing"
    await store.append("t", "r", 2, events_of(3, 5))

    assert await log_of(store) == events_of(0, 5), "append() works after one that was refused"


async def _ends_with_done(store: EventStore) -> None:
    """DONE ends a log, and its header tells."""
    await store.create(header_of())
    await store.append("t", "r", -1, events_of(0, 1))
    before = await store.header("t", "r")
    await store.append("t", "r", 0, [done_event(1)])
    after = await store.header("t", "r")

    assert before is not None, "header() gives a run's header"
    assert after is not None, "header() gives a run's header after its end"
    assert (before.ended_at, before.status) == (None, None), "a run that goes on has not ended"
    assert after.ended_at == done_event(1).timestamp, "ended_at is the time of DONE"
    assert after.status is AgentStatus.COMPLETED, "status is that of DONE"
    action = store.append("t", "r", 1, events_of(2, 3))
    await must_refuse(action, LocalProtocolError, "append() behind DONE")


async def _knows_owners(store: EventStore) -> None:
    """Who appends in the name of another one is Fenced."""
    await store.create(header_of(owner="o"))
    await store.create(header_of("q"))
    await store.append("t", "r", -1, events_of(0, 1), "o")
    for run_id, after, what in (
        ("r", 0, "a run of another one"),
        ("r", 7, "it at a wrong place"),
        ("q", -1, "a run without an owner"),
    ):
        action = store.append("t", run_id, after, events_of(after + 1, after + 2, run_id), "z")
        await must_refuse(action, Fenced, f"append() to {what}")
        assert len(await log_of(store, run_id)) == (run_id == "r"), "it changes nothing"
    await store.append("t", "r", 0, events_of(1, 2))
    await store.append("t", "r", 1, events_of(2, 3), owner="o")

    assert await log_of(store) == events_of(0, 3), "append() of its owner is taken, and of no one"


async def _tells_of_gaps(store: EventStore) -> None:
    """A place that was never there is a ReplayGap."""
    await store.create(header_of())
    await store.append("t", "r", -1, events_of(0, 3))
    for after in (3, 99):
        exc = await must_refuse(
            store.read("t", "r", after, 10), ReplayGap, f"read(after={after}) of three events"
        )
        assert isinstance(exc, ReplayGap), "read() past the end raises ReplayGap"
        assert (exc.run_id, exc.after) == ("r", after), "a ReplayGap says of which run and place"


async def _knows_what_it_does_not_know(store: EventStore) -> None:
    """An unknown run is a LookupError."""
    await must_refuse(store.read("t", "r", -1, 1), LookupError, "read() of an unknown run")
    await must_refuse(
        store.append("t", "r", -1, events_of(0, 1)), LookupError, "append() to an unknown run"
    )
    with trio.move_on_after(_SOON) as waiting:
        await must_refuse(
            store.wait_past("t", "r", -1), LookupError, "wait_past() of an unknown run"
        )
    assert not waiting.cancelled_caught, "wait_past() of an unknown run does not wait"


async def _lists(store: EventStore) -> None:
    """Runs are listed by tenant and conversation, oldest first."""
    for number, (tenant, session) in enumerate([("t", "s"), ("u", "s"), ("t", "z"), ("t", "s")]):
        await store.create(header_of(f"r{number}", tenant, session_id=session))

    assert await _ids(store, "t") == ["r0", "r2", "r3"], "list() gives a tenant's runs in order"
    assert await _ids(store, "t", "s") == ["r0", "r3"], "list() gives a conversation's runs"
    assert await _ids(store, "v") == [], "list() gives nothing for an unknown tenant"


async def _lists_the_newest(store: EventStore) -> None:
    """The newest runs come first, of a tenant or of all, from any place on."""
    for number, tenant in enumerate(["t", "u", "t", "u", "t"]):
        await store.create(header_of(f"r{number}", tenant))
    of_t, of_all = ["r4", "r2", "r0"], ["r4", "r3", "r2", "r1", "r0"]

    for tenant_id, expected in (("t", of_t), (None, of_all), ("v", [])):
        listed = list(await store.newest(tenant_id, limit=9))
        found = [run.header.run_id for run in listed]
        assert found == expected, f"newest({tenant_id!r}) gives runs, the newest first"
        for number, run in enumerate(listed):
            rest = await store.newest(tenant_id, before=run.place, limit=2)
            found = [run.header.run_id for run in rest]
            after = expected[number + 1 : number + 3]
            assert found == after, "newest() goes on behind a place, and gives no more than asked"
    [second, third] = [run.place for run in await store.newest(None, limit=3)][1:]
    await store.delete("t", run_id="r2")
    await store.create(header_of("r5", "u"))
    for place in (second, third):
        found = [run.header.run_id for run in await store.newest(None, before=place, limit=9)]
        assert found == ["r1", "r0"], "newest() goes on behind a run that is gone"
    for text in ("", "x", "-1", "1.5", "9" * 5000):
        await must_refuse(store.newest("t", before=text, limit=1), ValueError, "an odd place")


async def _tells_live_runs(store: EventStore) -> None:
    """Runs that have not ended are known, whosever they are."""
    for number, tenant in enumerate(["t", "u", "t"]):
        await store.create(header_of(f"r{number}", tenant))
    await store.append("t", "r0", -1, [*events_of(0, 2), done_event(2)])

    keys = {(header.tenant_id, header.run_id) for header in await store.live()}
    assert keys == {("u", "r1"), ("t", "r2")}, "live() gives the runs of all that have not ended"
    await store.delete("u")
    assert [header.run_id for header in await store.live()] == ["r2"], "live() gives none deleted"


async def _ids(store: EventStore, tenant_id: str, session_id: str | None = None) -> Sequence[str]:
    return [header.run_id for header in await store.list(tenant_id, session_id)]


async def _deletes(store: EventStore) -> None:
    """Runs are deleted one by one, by conversation, and by tenant."""
    for number, (tenant, session) in enumerate(
        [("t", "s"), ("t", "s"), ("t", "z"), ("t", "z"), ("u", "s")]
    ):
        await store.create(header_of(f"r{number}", tenant, session_id=session))
        await store.append(tenant, f"r{number}", -1, events_of(0, 2, f"r{number}"))

    assert await store.delete("t", run_id="r4") == 0, "delete() leaves another tenant's run"
    assert await store.delete("t", run_id="r0") == 1, "delete() tells how many it forgot"
    assert await _ids(store, "t") == ["r1", "r2", "r3"], "delete(run_id=) forgets one run"
    assert await store.delete("t", session_id="s") == 1, "delete() tells how many it forgot"
    assert await _ids(store, "t") == ["r2", "r3"], "delete(session_id=) forgets a conversation"
    assert await store.delete("t") == 2, "delete() tells how many it forgot"
    assert await _ids(store, "t") == [], "delete() forgets a tenant"
    assert await _ids(store, "u") == ["r4"], "delete() leaves another tenant's runs"
    await must_refuse(store.read("t", "r0", -1, 1), LookupError, "read() of a deleted run")
    assert await store.create(header_of("r0")), "a deleted run may be created again"
    assert await log_of(store, "r0") == [], "a run that is created again has an empty log"


async def _expires(store: EventStore) -> None:
    """Runs expire by the time of their end, and not before it."""
    for run_id, events in (
        ("old", [done_event(0, "old")]),
        ("new", [*events_of(0, 5, "new"), done_event(5, "new")]),
        ("on", events_of(0, 1, "on")),
    ):
        await store.create(header_of(run_id))
        await store.append("t", run_id, -1, events)

    assert await store.expire(1000) == 0, "expire() leaves what ended later"
    assert await store.expire(1003) == 1, "expire() tells how many it forgot"
    assert await _ids(store, "t") == ["new", "on"], "expire() forgets what ended before"
    assert await store.expire(1e12) == 1, "expire() tells how many it forgot"
    assert await _ids(store, "t") == ["on"], "expire() leaves runs that have not ended"


async def _waits(store: EventStore) -> None:
    """Waiting ends with the next event, and not before."""
    await store.create(header_of())
    await store.append("t", "r", -1, events_of(0, 2))
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
        await store.append("t", "r", 1, events_of(2, 4))
        nursery.cancel_scope.deadline = trio.current_time() + _SOON
    assert found == [1, *[3] * 5], "wait_past() wakes all who wait"


async def _waiting_ends(store: EventStore) -> None:
    """Nobody waits for a log that has ended, or was deleted."""
    for run_id in ("r", "q"):
        await store.create(header_of(run_id))
        await store.append("t", run_id, -1, [*events_of(0, 1, run_id)])
    await store.append("t", "r", 0, [done_event(1)])
    with trio.move_on_after(_SOON) as waiting:
        assert await store.wait_past("t", "r", 1) == 1, "wait_past() gives the newest number"
    assert not waiting.cancelled_caught, "wait_past() does not wait for a log that has ended"
    with trio.move_on_after(_SOON) as waiting:
        async with trio.open_nursery() as nursery:
            action = store.wait_past("t", "q", 0)
            nursery.start_soon(
                must_refuse, action, LookupError, "wait_past() of a run then deleted"
            )
            await trio.sleep(_A_WHILE)
            await store.delete("t", run_id="q")
    assert not waiting.cancelled_caught, "wait_past() ends when its run is deleted"


async def _one_creates(store: EventStore) -> None:
    """Of many who create one run at once, one does."""
    created: list[bool] = []

    async def create() -> None:
        created.append(await store.create(header_of()))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(create)
    assert sorted(created) == [False] * 9 + [True], "one of several create() gives True"


async def _one_appends(store: EventStore) -> None:
    """Of many who append behind one event at once, one does."""
    await store.create(header_of())
    taken: list[int] = []

    async def append() -> None:
        for seq in range(10):
            try:
                await store.append("t", "r", seq - 1, events_of(seq, seq + 1))
            except LocalProtocolError:
                continue
            taken.append(seq)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(append)
    assert sorted(taken) == list(range(len(taken))), "each place is taken by one append()"
    assert await log_of(store) == events_of(0, len(taken)), "the log has what was taken"


async def _follows(store: EventStore) -> None:
    """Whoever follows sees each event once and in order, wherever he begins."""
    await store.create(header_of())
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
                await store.append("t", "r", seq - 1, events_of(seq, seq + 4))
            await store.append("t", "r", 39, [done_event(40)])
    whole = [*events_of(0, 40), done_event(40)]
    for after in range(-1, 40, 8):
        assert logs.get(after) == whole[after + 1 :], f"who follows from {after} sees the rest"


async def _can_be_cancelled(store: EventStore) -> None:
    """An append that is cancelled has happened or has not."""
    await store.create(header_of())
    last = -1
    for ticks in range(12):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.append, "t", "r", last, events_of(last + 1, last + 4))
            for _ in range(ticks):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        # What was under way may still happen, so it is waited for in line.
        probe = header_of(f"probe{ticks}")
        await store.create(probe)
        log = await log_of(store)
        assert log in (events_of(0, last + 1), events_of(0, last + 4)), (
            "append() that is cancelled leaves all of its events, or none"
        )
        last = len(log) - 1
    await store.append("t", "r", last, [done_event(last + 1)])

    assert await log_of(store) == [*events_of(0, last + 1), done_event(last + 1)], "the log goes on"


_CHECKS: Final[tuple[Callable[[EventStore], Awaitable[None]], ...]] = (
    _creates_once,
    _keeps_headers,
    _keys_have_two_parts,
    _gives_what_it_took,
    _takes_many_at_once,
    _an_empty_log_reads_empty,
    _refuses_a_wrong_place,
    _ends_with_done,
    _knows_owners,
    _tells_of_gaps,
    _knows_what_it_does_not_know,
    _lists,
    _lists_the_newest,
    _tells_live_runs,
    _deletes,
    _expires,
    _waits,
    _waiting_ends,
    _one_creates,
    _one_appends,
    _follows,
    _can_be_cancelled,
)
