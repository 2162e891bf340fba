"""The suite for shared stores: leases, and what becomes of those who lose theirs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from flowtrio._core._exceptions import Fenced, LocalProtocolError
from flowtrio.abc import RecoverableConversations, RunHeader, SharedStore

from ._shared_given import (
    ASKED,
    PARTS,
    SAID,
    SHORT,
    TTL,
    claim,
    end,
    enqueue,
    lapse,
    one_off,
)
from ._stored import done_event, events_of, header_of, log_of, must_refuse


async def _leases_lapse(one: SharedStore, other: SharedStore, _: Any) -> None:
    """A lease is kept by renewing it, and lapses without that."""
    assert await one.renew("w", TTL) is False, "the first renew() says that there was no lease"
    assert await other.renew("w", SHORT) is True, "the next one says that there was"
    await lapse()
    assert await one.renew("w", SHORT) is False, "one that comes too late says so"
    await one.renew("w", TTL)
    await lapse()
    assert await one.renew("w", TTL) is True, "a lease lasts as long as was said last"


async def _tells_who_is_lost(one: SharedStore, other: SharedStore, _: Any) -> None:
    """The runs of those whose lease is gone are known, and of no one else."""
    await enqueue(one, header_of("a", parts=PARTS, asked=ASKED))
    for run_id in ("b", "c", "d"):
        await enqueue(one, one_off(run_id))
    await one.create(one_off("never", owner="never"))
    for owner in ("w", "z", "w"):
        await one.claim(owner, TTL)
    await one.append("t", "a", -1, events_of(0, 2, "a"), "w")
    await end(one, "c")
    assert list(await other.lost()) == [], "nobody is lost whose lease lasts"
    await one.renew("w", SHORT)
    await lapse()

    [header] = await other.lost()
    assert (header.run_id, header.owner) == ("a", "w"), "lost() tells the run, and whose it was"
    assert (list(header.parts), header.asked) == (list(PARTS), ASKED), "lost() gives all of it"
    assert await claim(one) is None, "whose lease is gone claims nothing"
    assert len(await other.lost()) == 1, "and has no lease by that"
    await one.renew("w", TTL)
    assert await claim(one) == "d", "who has one again claims"
    assert list(await other.lost()) == [], "who has a lease again is not lost"
    await one.renew("w", SHORT)
    await lapse()
    found = [header.run_id for header in await other.lost()]
    assert sorted(found) == ["a", "d"], "lost() gives each of the runs"
    assert len(await other.lost(1)) == 1, "lost() gives as many as it is asked for"


async def _who_never_had_a_lease_is_not_lost(one: SharedStore, other: SharedStore, _: Any) -> None:
    """Who runs runs without a lease is nobody's to judge."""
    header = one_off("r", owner="w")
    await one.create(header)
    assert list(await other.lost()) == [], "who never had a lease is not lost"
    await _cannot_close(other, header, "the run of one who never had a lease")
    await one.renew("w", SHORT)
    await lapse()
    assert [run.run_id for run in await other.lost()] == ["r"], "who had one is"


async def _cannot_close(store: SharedStore, header: RunHeader, what: str) -> None:
    events = [done_event(0, header.run_id)]
    await must_refuse(store.close(header, -1, events), Fenced, f"close() of {what}")
    log = await log_of(store, header.run_id)
    assert log == [], f"close() of {what} changes nothing"


async def _closes_the_dead(
    one: SharedStore, other: SharedStore, conversations: RecoverableConversations
) -> None:
    """A run is closed when its owner is gone, once, and with what was said."""
    for run_id in ("a", "b"):
        await enqueue(one, header_of(run_id))
    await conversations.save("t", "s", SAID[:1])
    await one.claim("w", TTL)
    header = (await other.header("t", "a")) or header_of()
    await _cannot_close(other, header, "a run whose owner lives")
    await one.append("t", "a", -1, events_of(0, 2, "a"), "w")
    await one.renew("w", SHORT)
    await lapse()
    [header] = await other.lost()
    for after, events, what in (
        (0, [done_event(1, "a")], "close() that is not behind the last event"),
        (1, events_of(2, 3, "a"), "close() without DONE"),
    ):
        exc = await must_refuse(other.close(header, after, events), LocalProtocolError, what)
        assert not isinstance(exc, Fenced), f"{what} is not Fenced"
    assert await log_of(one, "a") == events_of(0, 2, "a"), "close() that is refused changes nothing"
    missing = [*events_of(2, 4, "a"), done_event(4, "a")]
    await other.close(header, 1, missing, SAID)

    assert await log_of(one, "a") == [*events_of(0, 2, "a"), *missing], "close() ends the log"
    found = await one.header("t", "a")
    assert found is not None, "header() gives a run that was closed"
    assert (found.owner, found.ended_at) == (None, missing[-1].timestamp), "nobody owns it then"
    assert await conversations.load("t", "s") == [*SAID[:1], *SAID], "close() adds what was said"
    assert list(await one.lost()) == [], "a run that was closed is not lost any more"
    assert [await claim(other, "z"), await claim(other, "z")] == ["b", None], (
        "the next one's turn is"
    )
    again = other.close(header, 4, [done_event(5, "a")], SAID)
    await must_refuse(again, Fenced, "close() of a run that was closed")
    for after in (1, 4):
        action = one.append("t", "a", after, events_of(after + 1, after + 2, "a"), "w")
        await must_refuse(action, Fenced, "append() of one whose run was closed")
    action = conversations.save_after("t", "s", "a", SAID[:1], "w")
    await must_refuse(action, Fenced, "save_after() of one whose run was closed")
    assert await conversations.load("t", "s") == [*SAID[:1], *SAID], "it changes nothing"


async def _an_owner_closes(
    one: SharedStore, other: SharedStore, conversations: RecoverableConversations
) -> None:
    """Who owns a run may close it though it lives, and nobody else."""
    for run_id in ("a", "b"):
        await enqueue(one, one_off(run_id))
    await enqueue(one, header_of("c"))
    for _number in range(3):
        await one.claim("w", TTL)
    await one.append("t", "a", -1, events_of(0, 2, "a"), "w")
    await end(one, "b")
    found = dict(await other.owned("w"))
    assert found == {("t", "a"): 1, ("t", "c"): -1}, "owned() gives what goes on, and how far"
    assert dict(await one.owned("z")) == {}, "owned() gives nothing of others'"
    header = one_off("a", owner="w")
    done = [done_event(2, "a")]
    await must_refuse(one.close(header, 1, done, None, "z"), Fenced, "close() by another one")
    await one.close(header, 1, done, None, "w")
    assert await log_of(other, "a") == [*events_of(0, 2, "a"), *done], (
        "close() by its owner ends it"
    )
    await other.close(header_of("c", owner="w"), -1, [done_event(0, "c")], SAID, "w")
    assert await conversations.load("t", "s") == SAID, "close() by its owner adds what was said"
    assert dict(await one.owned("w")) == {}, "what was closed is owned by nobody"


async def _one_closes(
    one: SharedStore, other: SharedStore, conversations: RecoverableConversations
) -> None:
    """Of many who close one run at once, one does."""
    await enqueue(one, header_of("r"))
    await one.claim("w", SHORT)
    await lapse()
    [header] = await one.lost()
    done: list[int] = []

    async def close(store: SharedStore, number: int) -> None:
        try:
            await store.close(header, -1, [done_event(0)], SAID)
        except Fenced:
            return
        done.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(close, one, number)
            nursery.start_soon(close, other, number)
    assert len(done) == 1, "one of several close() succeeds, the others are Fenced"
    assert await log_of(one) == [done_event(0)], "the log has one end"
    assert await conversations.load("t", "s") == SAID, "what was said is added once"


async def _saves_for_the_owner(
    one: SharedStore, other: SharedStore, conversations: RecoverableConversations
) -> None:
    """A run's part of its conversation is saved by its owner, and added once."""
    await enqueue(one, header_of("r"))
    action = conversations.save_after("t", "s", "r", SAID, "w")
    await must_refuse(action, Fenced, "save_after() of a run that nobody owns")
    await one.claim("w", SHORT)
    action = conversations.save_after("t", "s", "r", SAID, "z")
    await must_refuse(action, Fenced, "save_after() of another one's run")
    action = conversations.save_after("t", "s", "unknown", SAID, "w")
    await must_refuse(action, Fenced, "save_after() of an unknown run")
    assert await conversations.load("t", "s") == [], "save_after() that is refused changes nothing"
    await conversations.save_after("t", "s", "r", SAID[:1], "w")
    await conversations.save_after("t", "s", "r", SAID, "w")
    await lapse()
    [header] = await other.lost()
    await other.close(header, -1, [done_event(0)], SAID)
    assert await conversations.load("t", "s") == SAID, "what its owner saved is not added again"

    await enqueue(one, header_of("q"))
    await one.claim("v", TTL)
    await end(one, "q", "v")
    action = conversations.save_after("t", "s", "q", [], "v")
    await must_refuse(action, Fenced, "save_after() of a run that has ended")
    await conversations.save_after("t", "s", "q", SAID[:1])
    assert await conversations.load("t", "s") == SAID[:1], "who is not to be asked saves"


async def _leaves(one: SharedStore, other: SharedStore, _: Any) -> None:
    """Who leaves gives back what was not begun, and loses the rest at once."""
    for run_id in ("a", "b", "c", "d"):
        await enqueue(one, one_off(run_id))
    for _number in range(3):
        await one.claim("w", TTL)
    await one.create(one_off("own", owner="w"))
    await one.append("t", "b", -1, events_of(0, 1, "b"), "w")
    await one.leave("w")

    found = [header.run_id for header in await other.lost()]
    assert sorted(found) == ["b", "own"], "what was begun is lost at once"
    order = [await claim(other, "z") for _number in range(4)]
    assert order == ["a", "c", "d", None], "what was not begun waits again, before all others"
    action = one.append("t", "a", -1, events_of(0, 1, "a"), "w")
    await must_refuse(action, Fenced, "append() of one who has left")
    assert await one.renew("w", TTL) is False, "who has left has no lease"
    await one.leave("nobody")


LEASES: Final[tuple[Callable[[SharedStore, SharedStore, Any], Awaitable[None]], ...]] = (
    _leases_lapse,
    _tells_who_is_lost,
    _who_never_had_a_lease_is_not_lost,
    _closes_the_dead,
    _an_owner_closes,
    _one_closes,
    _saves_for_the_owner,
    _leaves,
)
