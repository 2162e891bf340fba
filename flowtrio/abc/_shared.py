"""A store that several processes share: who runs a run, and who ends it when that one is gone.

Any process takes a start, a command or a reader. Any *worker* runs a run, and for each there is one
*owner* at a time::

    absent ─ enqueue ─► QUEUED ─── claim(W) ───► OWNED(W) ─┬─ append(… DONE, owner=W) ──► ENDED
                          │                        ▲       └─ W's lease is gone: close ─► ENDED
      create(owner=W) ────┼────────────────────────┘
                          └─ take(G) ─► OWNED(G) ─ one append with DONE, owner=G ───────► ENDED

    ENDED, or any other ─ expire, delete ─► absent

A *lease* says that a process is alive. Each has one, not each run: it renews that, and whoever
finds it gone may end the runs of that process. The only clock is the store's. An owner that was
away for longer, and comes back, is refused whatever it says (`flowtrio.Fenced`); a run that was
ended for it is never run again.

A conversation's runs stand in a *line*: the first one waits to be claimed, or is owned; the others
come after it. With the end of the first, in the same step, the next one may be claimed.

Who calls what, and when:

* Every process: ``renew`` before anything else, then every third of the lease; ``leave`` at last.
* Who takes a start: ``enqueue``. Where the conversation is busy, ``line`` says which runs are
  before this one: to cancel them, or to post to the first.
* A worker: ``claim`` while it has room, at each message on `WORK` and now and then; ``append`` and
  ``save_after`` as the owner of what it runs. `flowtrio.Fenced` ends a run there at once, and
  quietly. When ``renew`` gives False, or fails for as long as the lease, it cancels all that it
  runs, calls ``leave``, and goes on under another name: others may have closed some of its runs,
  and whatever it could not end itself would be nobody's while its old name has a lease.
* Every process reaps, every half of the lease: ``lost``, and for each run: read its log, make the
  end that is missing, ``close``. Not within a lease's time after a ``renew`` that failed or gave
  False: after an outage all leases are gone, and those who live have to come first. Then
  ``overdue``, for those who have waited too long: ``take``, then ``append`` the end.
* A command, in whatever process: ``header`` says who owns the run; ``send`` to the channel that
  this one listens to. A run that nobody owns is cancelled by ``take`` and one ``append``.
* A reader, in whatever process: ``follow``, then ``read`` and ``wait_past`` as with any store.
* The resume window: its worker asks for ``followers`` when the alarm rings.

A call that was cancelled, or failed, has happened or has not; each may be made again. A run that
was claimed so is not lost: the same owner's next ``claim`` gives it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol, runtime_checkable

import attrs

from flowtrio._core._events import AgentEvent

from ._models import Message
from ._stores import EventStore, RunHeader

WORK: Final[str] = "work"
"""The channel on which a `SharedStore` says, with an empty message, that a run may be claimed."""


@attrs.frozen(kw_only=True)
class SharedStatistics:
    """What a `SharedStore` holds, for those who watch it."""

    queued: int
    """Runs that may be claimed."""
    in_line: int
    """Runs that wait behind another one of their conversation."""
    owned: int
    """Runs that go on."""
    processes: int
    """Processes that have a lease."""
    next_lapse: float | None
    """Seconds until the first of these leases is gone if nobody renews it; None where none is."""


class Listening(Protocol):
    """Something that is listened to, until it is closed."""

    def close(self) -> None:
        """Listen no more; may be called again."""
        ...


@runtime_checkable
class SharedStore(EventStore, Protocol):
    """An `EventStore` that several processes use at once, and by which they divide the work.

    `flowtrio.testing.check_shared_store` holds a store to what is said here;
    `flowtrio.testing.LeasedStore` is one in memory. What is said of times is by the store's clock.

    A ``create`` whose header has an owner makes a run that this one owns. ``delete`` and ``expire``
    take runs out of every line and queue too, and the next one's turn comes.
    """

    # Starts, and who runs them

    async def enqueue(
        self, header: RunHeader, *, queue_length: float, runs_per_tenant: float | None
    ) -> bool:
        """Begin an empty log that nobody owns yet, and put the run where it waits to be claimed.

        Args:
          header: The run; ``is_remembered`` puts it in its conversation's line.
          queue_length: Runs that may wait behind the first one of a conversation.
          runs_per_tenant: Runs of one tenant without an end, this one included; None for no limit.

        Returns:
          False, and nothing is changed, if there is a run of this key already.

        Raises:
          LimitExceeded: code ``tenant_busy`` or ``session_busy``; nothing was changed.

        """
        ...

    async def claim(self, owner: str, ttl: float) -> RunHeader | None:
        """Own the run that has waited longest, and renew the lease.

        Whose lease is gone gets nothing, and has none again: it may have been asked long ago.

        Args:
          owner: Who will run it.
          ttl: Seconds that its lease lasts from now.

        Returns:
          The run's header, with all that is needed to run it; None if none waits.

        """
        ...

    async def take(self, tenant_id: str, run_id: str, owner: str) -> bool:
        """Own a run that nobody owns, to end it and not to run it.

        Returns:
          False, and nothing is changed, if somebody owns it, or it has ended, or there is none.

        """
        ...

    async def line(self, tenant_id: str, session_id: str) -> Sequence[str]:
        """Give the ids of a conversation's runs that have no end, the first one first."""
        ...

    # Leases

    async def renew(self, owner: str, ttl: float) -> bool:
        """Have the lease of *owner* last for *ttl* seconds from now.

        Returns:
          False if there was none: it is new, or was gone, and others may have closed its runs.

        """
        ...

    async def leave(self, owner: str) -> None:
        """Give the lease up.

        Runs that this one owns and never appended to wait to be claimed again, before all others;
        any other that it owns is lost.
        """
        ...

    async def lost(self, limit: int = 100) -> Sequence[RunHeader]:
        """Give runs whose owner had a lease, and has none now, with all that was asked."""
        ...

    async def owned(self, owner: str) -> Mapping[tuple[str, str], int]:
        """Give the newest event of each run without an end that *owner* owns; -1 for none.

        By tenant and run id.
        """
        ...

    async def overdue(self, seconds: float, limit: int = 100) -> Sequence[RunHeader]:
        """Give runs that have waited to be claimed, or in line, for at least so long."""
        ...

    async def close(
        self,
        header: RunHeader,
        after: int,
        events: Sequence[AgentEvent],
        said: Sequence[Message] | None = None,
        by: str | None = None,
    ) -> None:
        """End the log of a run whose owner is gone. Of several who do it at once, one does.

        Args:
          header: As `lost` or `claim` gave it.
          after: The log's last event.
          events: What is missing, up to DONE; ``owner`` is None from then on.
          said: The run's part of its conversation, which is added to it in the same step unless
            its owner had saved that.
          by: Who does it: its owner may though it has a lease.

        Raises:
          Fenced: its owner has a lease again, or is not who the header says, or it has ended.
          LocalProtocolError: *after* is not the last event, or DONE is not the last of *events*.

        """
        ...

    # Telling each other

    async def send(self, channel: str, data: bytes) -> int:
        """Tell those who listen to a channel now.

        Returns:
          How many processes that were.

        """
        ...

    async def listen(self, channel: str, callback: Callable[[bytes], object]) -> Listening:
        """Have *callback* called, in this Trio thread, with what is sent to a channel from now on.

        While the store cannot be reached, what is sent is lost. What the callback raises is logged.
        """
        ...

    async def follow(self, tenant_id: str, run_id: str) -> Listening:
        """Count as one who follows a run, until that is closed.

        While somebody does, this process is told of the run's events as they come: ``read``,
        ``wait_past`` and ``header`` of a run that many follow then cost what they cost for one.
        """
        ...

    async def followers(self, tenant_id: str, run_id: str) -> int:
        """Give how many processes have somebody who follows a run."""
        ...

    async def statistics(self) -> SharedStatistics:
        """Give what there is."""
        ...
