"""The suite for shared stores: starts, owners, lines and limits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs
import trio

from flowtrio._core._events import AgentStatus
from flowtrio._core._exceptions import Fenced, LocalProtocolError
from flowtrio.abc import SharedStore

from ._shared_given import ASKED, PARTS, SHORT, TTL, claim, end, enqueue, is_busy, one_off
from ._stored import done_event, events_of, header_of, log_of, must_refuse

# Starts


async def _enqueues_once(one: SharedStore, other: SharedStore, _: Any) -> None:
    """A run is enqueued once, and enqueuing it again changes nothing."""
    given: list[bool] = []

    async def start(store: SharedStore) -> None:
        given.append(await enqueue(store, one_off("r", owner=None)))

    async with trio.open_nursery() as nursery:
        for _number in range(5):
            nursery.start_soon(start, one)
            nursery.start_soon(start, other)
    assert sorted(given) == [False] * 9 + [True], "one of several enqueue() gives True"
    assert await log_of(other) == [], "enqueue() begins an empty log"
    assert [await claim(one), await claim(one)] == ["r", None], "it is claimed once"
    assert await enqueue(one, one_off("r")) is False, "enqueue() gives False for a run that runs"
    assert await claim(one) is None, "a run that is owned is not enqueued again"


async def _gives_all_that_was_asked(one: SharedStore, other: SharedStore, _: Any) -> None:
    """Who claims a run is told all that its starter asked, and nobody else is."""
    header = header_of(parts=PARTS, digest="d", asked=ASKED)
    await enqueue(one, header)
    shown = await other.header("t", "r")
    claimed = await other.claim("w", TTL)

    assert shown == attrs.evolve(header, parts=(), asked=None), "header() hides what was asked"
    assert claimed is not None, "claim() gives a run that waits"
    expected = attrs.evolve(header, owner="w")
    assert attrs.evolve(claimed, parts=PARTS) == expected, "claim() gives the whole header"
    assert list(claimed.parts) == list(PARTS), "claim() gives the parts of the message"
    assert (await one.header("t", "r")) == attrs.evolve(shown, owner="w"), "header() says who owns"


async def _claims_in_order(one: SharedStore, other: SharedStore, _: Any) -> None:
    """Runs are claimed in their order, each once."""
    for number in range(12):
        await enqueue(one, one_off(f"r{number:02}"))
    assert [await claim(one), await claim(other)] == ["r00", "r01"], "the oldest is claimed first"
    claimed: list[str | None] = []

    async def work(store: SharedStore, owner: str) -> None:
        claimed.append(await claim(store, owner))

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(work, one, f"a{number}")
            nursery.start_soon(work, other, f"b{number}")
    expected = [*[None] * 2, *[f"r{number:02}" for number in range(2, 12)]]
    found = sorted(claimed, key=lambda run_id: run_id or "")
    assert found == expected, "of many who claim at once, each run goes to one"


async def _a_lost_claim_comes_again(one: SharedStore, other: SharedStore, _: Any) -> None:
    """A claim that is cancelled loses no run: the next one of the same owner gives it."""
    # At each place, and often: which of two tasks goes on first is chance.
    places = [*range(12)] * 8
    for number in range(len(places)):
        await enqueue(one, one_off(f"r{number:02}"))
    claimed: list[str | None] = []

    async def work() -> None:
        claimed.append(await claim(other))

    for ticks in places:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            for _tick in range(ticks):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    while claimed[-1:] != [None]:
        await work()
    expected = [f"r{number:02}" for number in range(len(places))]
    assert claimed[:-1] == expected, "no run is lost, or run twice"


# Owners


async def _an_owner_appends(one: SharedStore, other: SharedStore, _: Any) -> None:
    """What is not the owner's is Fenced, whatever else is wrong with it."""
    await enqueue(one, header_of())
    for after, what in ((-1, "a run that nobody owns"), (7, "it at a wrong place")):
        action = one.append("t", "r", after, events_of(after + 1, after + 2), "w")
        await must_refuse(action, Fenced, f"append() to {what}")
    await one.claim("w", TTL)
    await one.append("t", "r", -1, events_of(0, 2), "w")
    for after in (-1, 1, 7):
        action = other.append("t", "r", after, events_of(after + 1, after + 2), "z")
        await must_refuse(action, Fenced, "append() to another one's run")
        assert await log_of(one) == events_of(0, 2), "a stranger's append() changes nothing"
    action = one.append("t", "r", 7, events_of(8, 9), "w")
    exc = await must_refuse(action, LocalProtocolError, "append() of its owner at a wrong place")
    assert not isinstance(exc, Fenced), "append() of its owner at a wrong place is not Fenced"
    await one.append("t", "r", 1, [done_event(2)], "w")
    header = await other.header("t", "r")
    assert header is not None, "header() gives a run that has ended"
    assert (header.owner, header.status) == ("w", AgentStatus.COMPLETED), "its owner has ended it"
    action = one.append("t", "r", 2, events_of(3, 4), "w")
    exc = await must_refuse(action, LocalProtocolError, "append() of its owner behind DONE")
    assert not isinstance(exc, Fenced), "append() of its owner behind DONE is not Fenced"
    assert await claim(other) is None, "a run that has ended is not claimed"


async def _takes(one: SharedStore, other: SharedStore, _: Any) -> None:
    """A run that waits is taken by one, who ends it."""
    for run_id in ("a", "b", "c"):
        await enqueue(one, header_of(run_id))
    taken = [await store.take("t", "b", owner) for store, owner in ((other, "g"), (one, "h"))]

    assert taken == [True, False], "a run in line is taken by one"
    assert await one.take("t", "x", "g") is False, "take() gives False for an unknown run"
    await must_refuse(one.append("t", "b", -1, events_of(0, 1, "b"), "h"), Fenced, "append() to it")
    await end(other, "b", "g")
    assert await one.take("t", "b", "g") is False, "a run that has ended is not taken"
    assert [await claim(one), await claim(one)] == ["a", None], "the first in line is claimed"
    assert await one.take("t", "a", "g") is False, "a run that is owned is not taken"
    await end(one, "a")
    assert await other.take("t", "c", "g") is True, "the first in line is taken"
    assert await claim(one) is None, "what was taken is not claimed"
    await end(other, "c", "g")
    assert await one.line("t", "s") == [], "nothing is left of a line whose runs have ended"


# Lines and limits


async def _stands_in_line(one: SharedStore, other: SharedStore, _: Any) -> None:
    """Of a conversation one run at a time is claimed, in their order."""
    for run_id, session in (("a", "s"), ("b", "s"), ("c", "z"), ("d", "s")):
        await enqueue(one, header_of(run_id, session_id=session))
    await enqueue(one, header_of("e", "u"))
    await enqueue(one, one_off("f"))
    await enqueue(one, one_off("g"))

    assert list(await other.line("t", "s")) == ["a", "b", "d"], "line() gives a conversation's runs"
    found = [await claim(other) for _number in range(6)]
    assert found == ["a", "c", "e", "f", "g", None], "the first of each conversation is claimed"
    await end(one, "a")
    assert list(await other.line("t", "s")) == ["b", "d"], "line() leaves out what has ended"
    assert [await claim(other), await claim(other)] == ["b", None], "then the next one's turn is"
    assert await one.delete("t", run_id="a") == 1, "a run that has ended can be deleted"
    assert list(await other.line("t", "s")) == ["b", "d"], "that changes nothing in line"
    assert await one.delete("t", run_id="b") == 1, "the first in line can be deleted"
    assert [await claim(other), await claim(other)] == ["d", None], "then too"
    assert list(await one.line("t", "z")) == ["c"], "another conversation's line is its own"
    assert list(await one.line("t", "x")) == [], "line() gives nothing where nothing is"


async def _forgets_what_waits(one: SharedStore, other: SharedStore, _: Any) -> None:
    """A run that is deleted is claimed by nobody."""
    for run_id, session in (("a", "s"), ("b", "s"), ("c", "z")):
        await enqueue(one, header_of(run_id, session_id=session))
    assert await other.delete("t", session_id="s") == 2, "delete() forgets runs that wait"

    assert [await claim(one), await claim(one)] == ["c", None], "what was deleted is not claimed"
    assert await enqueue(one, header_of("a"), queue_length=0), "it leaves no line behind"
    assert await claim(one) == "a", "a run that was deleted may be enqueued again"


async def _keeps_lines_short(one: SharedStore, other: SharedStore, _: Any) -> None:
    """A conversation whose line is full takes no more."""
    for run_id in ("a", "b"):
        await enqueue(one, header_of(run_id), queue_length=1)
    await is_busy(
        enqueue(other, header_of("c"), queue_length=1), "session_busy", "enqueue() in a full line"
    )
    assert await other.header("t", "c") is None, "a run that was not let in leaves nothing"
    assert await enqueue(other, header_of("a"), queue_length=0) is False, (
        "a run that exists is not too much"
    )
    await one.claim("w", TTL)
    await end(one, "a")
    assert await enqueue(other, header_of("c"), queue_length=1), "then there is room again"
    await is_busy(
        enqueue(one, header_of("d"), queue_length=0), "session_busy", "enqueue() without a line"
    )


async def _counts_tenants(one: SharedStore, other: SharedStore, _: Any) -> None:
    """A tenant has as many runs without an end as it may."""
    for number in range(2):
        await enqueue(one, one_off(f"r{number}"), runs_per_tenant=2)
    await one.create(one_off("u", tenant_id="u"))
    for run_id in ("r2", "r2"):
        await is_busy(
            enqueue(other, one_off(run_id), runs_per_tenant=2), "tenant_busy", "one run too many"
        )
    assert await enqueue(one, one_off("r2", tenant_id="u"), runs_per_tenant=2), "of others not"
    await one.claim("w", TTL)
    await end(one, "r0")
    assert await enqueue(other, one_off("r2"), runs_per_tenant=2), "one that ended makes room"
    await one.delete("t", run_id="r1")
    assert await enqueue(other, one_off("r3"), runs_per_tenant=2), "so does one that is deleted"


async def _tells_who_waited_long(one: SharedStore, other: SharedStore, _: Any) -> None:
    """Who waits for too long is known, in line too."""
    for run_id in ("a", "b"):
        await enqueue(one, header_of(run_id, asked=ASKED))
    await enqueue(one, one_off("c"))
    await one.create(one_off("d"))
    assert list(await other.overdue(60)) == [], "nobody has waited for a minute"
    await one.claim("w", TTL)
    await trio.sleep(SHORT)

    found = await other.overdue(SHORT / 2)
    assert sorted(header.run_id for header in found) == ["b", "c"], "who waits is overdue"
    assert len(await other.overdue(0, 1)) == 1, "overdue() gives as many as it is asked for"
    [header] = [header for header in found if header.run_id == "b"]
    assert header == header_of("b", asked=ASKED), "overdue() gives all that was asked"


STARTS: Final[tuple[Callable[[SharedStore, SharedStore, Any], Awaitable[None]], ...]] = (
    _enqueues_once,
    _gives_all_that_was_asked,
    _claims_in_order,
    _a_lost_claim_comes_again,
    _an_owner_appends,
    _takes,
    _stands_in_line,
    _forgets_what_waits,
    _keeps_lines_short,
    _counts_tenants,
    _tells_who_waited_long,
)
