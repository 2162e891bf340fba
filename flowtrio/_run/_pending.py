"""What waits for a person: a call for its approval, a question for its answer.

A decision is a value of its own type, not whatever somebody passed: nothing but `Approved`
approves. One that does not fit what is waited for is refused to whoever made it, and changes
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import attrs
import trio


@attrs.frozen
class Approved:
    """The call may run."""

    arguments: dict[str, Any] | None = None
    """With these arguments instead of its own."""


@attrs.frozen
class Denied:
    """The call may not run."""

    reason: str | None = None
    """Why, in words for the model."""


@attrs.frozen
class Answered:
    """The question has an answer."""

    given: Any
    """A text, or another JSON value."""


@attrs.frozen
class Declined:
    """The question will get no answer."""

    reason: str | None = None
    """Why, in words for the one who asked."""


Decision: TypeAlias = Approved | Denied | Answered | Declined


class Unfit(ValueError):
    """A decision does not fit what is waited for, which goes on waiting."""


@attrs.define(eq=False)
class Pending:
    """Decided once; later decisions change nothing."""

    accepts: tuple[type[Decision], ...]
    """The decisions that can be taken of it."""
    take: Callable[[Decision], None]
    """Makes use of a decision, or raises `Unfit`."""
    decision: Decision | None = attrs.field(default=None, init=False)
    """What was decided; None where nobody did."""
    _is_over: trio.Event = attrs.field(factory=trio.Event, init=False)

    @classmethod
    def approval(cls, take: Callable[[Decision], None]) -> Pending:
        """A call that waits for its approval."""
        return cls((Approved, Denied), take)

    @classmethod
    def question(cls, take: Callable[[Decision], None]) -> Pending:
        """A question that waits for its answer."""
        return cls((Answered, Declined), take)

    def decide(self, decision: Decision) -> bool:
        """Take a decision; False if there is one already, or if it is none of this.

        Raises:
          Unfit: it does not fit; nothing is decided.

        """
        if self._is_over.is_set() or not isinstance(decision, self.accepts):
            return False
        self.take(decision)
        self.decision = decision
        self._end()
        return True

    def abandon(self) -> None:
        """Give up waiting: nobody will decide. An approval is denied, a question times out."""
        self.decide(Denied("nobody is there to approve"))
        self._end()

    def _end(self) -> None:
        self._is_over.set()
        # It leads back to who asked: see `Host.host` on what waits for the garbage collector.
        self.take = _nothing

    async def wait(self) -> None:
        """Wait until it is decided, or will not be."""
        await self._is_over.wait()


def _nothing(decision: Decision) -> None:
    """Nobody takes decisions any more."""
