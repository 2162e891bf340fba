"""One clock for all sends of a server: each has its whole time, and no more."""

from __future__ import annotations

import trio

from flowtrio.serving.sockets._patience import Patience


class Slow:
    """A sender that notes when it was dropped."""

    dropped_at: float | None = None

    async def drop(self, seconds: float) -> None:
        """See `Sender`."""
        assert seconds == 3
        self.dropped_at = trio.current_time()


async def test_each_has_its_whole_time_and_no_more(autojump_clock: trio.testing.MockClock) -> None:
    patience = Patience(3)
    early, late, quick, long = senders = [Slow() for _ in range(4)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(patience.watch)
        # Not when the watch looks by itself.
        await trio.sleep(0.5)
        start = trio.current_time()
        for sender in (early, quick, long):
            patience.begin(sender)
        await trio.sleep(1)
        patience.begin(late)
        patience.end(quick)
        # A long message's next piece: it is the youngest now.
        await trio.sleep(1)
        patience.begin(long)
        await trio.sleep(10)
        patience.begin(quick)
        await trio.sleep(3.5)
        nursery.cancel_scope.cancel()

    found = [None if one.dropped_at is None else one.dropped_at - start for one in senders]
    assert found == [3, 4, 15, 5]


async def test_who_was_dropped_may_end_what_it_sent(autojump_clock: trio.testing.MockClock) -> None:
    patience, sender = Patience(3), Slow()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(patience.watch)
        patience.begin(sender)
        await trio.sleep(3.5)
        patience.end(sender)
        nursery.cancel_scope.cancel()
    assert sender.dropped_at == 3
