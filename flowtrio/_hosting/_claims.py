"""A run that this process has claimed in a store that several share."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import attrs
import trio

from flowtrio._core._telling import tell

if TYPE_CHECKING:
    from flowtrio._core._events import AgentEvent
    from flowtrio.abc import RunHeader


@attrs.define(eq=False)
class Claim:
    """What those have to know of one another who run, record and keep such a run."""

    header: RunHeader
    """As ``claim`` gave it, with all that is needed to run it."""
    has_log: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when the store has taken its first event. Nothing is executed before: a run without
    events may be given to another process."""
    keep: Callable[[], Awaitable[None]] | None = attrs.field(default=None, init=False)
    """Keeps its turn, unless that is kept; for one whose cleanup outlasts its DONE, behind which
    the store would not take it any more."""
    is_kept: bool = attrs.field(default=False, init=False)

    recent: Sequence[AgentEvent] = attrs.field(default=(), init=False)
    """The newest events of its run."""
    followed_at: float = attrs.field(factory=trio.current_time, init=False)
    """When somebody was known to follow it last, or it was claimed."""
    was_followed: bool = attrs.field(default=False, init=False)
    look_at: float = attrs.field(default=0.0, init=False)
    """When it is asked again whether somebody follows it."""

    async def keep_again(self) -> None:
        """Keep its turn though that was kept: the store may have lost it."""
        self.is_kept = False
        await self.keep_late()

    async def keep_late(self) -> None:
        """Keep its turn if that is not kept: its cleanup has outlasted its grace."""
        if self.keep is None:
            return
        try:
            await self.keep()
        except Exception as exc:
            words = "run %s: its turn is not kept"
            tell(logging.ERROR, words, self.header.run_id, exc=exc)

    @property
    def key(self) -> tuple[str, str]:
        """Its run's."""
        return self.header.tenant_id, self.header.run_id

    @property
    def resume_window(self) -> float:
        """Seconds that it goes on without a follower."""
        asked = self.header.asked
        return math.inf if asked is None else asked.resume_window

    @property
    def may_be_left(self) -> bool:
        """Whether it is left alone where nobody follows it, and not still to be found."""
        asked = self.header.asked
        return self.was_followed or asked is None or not asked.waits_for_reader

    @property
    def owner(self) -> str:
        """In whose name it is claimed: its process may go by another one since."""
        assert self.header.owner is not None
        return self.header.owner
