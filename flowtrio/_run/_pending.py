"""What waits for a person: a call for its approval, a question for its answer.

A decision is a value of its own type, not whatever somebody passed: nothing but `Approved`
approves.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs
import trio


@attrs.frozen
class Approved:
    """The call may run."""


@attrs.frozen
class Denied:
    """The call may not run."""

    reason: str | None = None
    """Why, in words for the model."""


@attrs.frozen
class Answered:
    """The question has an answer."""

    text: str


Decision: TypeAlias = Approved | Denied | Answered


@attrs.define(eq=False)
class Pending:
    """Decided once; later decisions change nothing."""

    accepts: tuple[type[Decision], ...]
    """The decisions that can be taken of it."""
    decision: Decision | None = attrs.field(default=None, init=False)
    """What was decided; None where nobody did."""
    _is_over: trio.Event = attrs.field(factory=trio.Event, init=False)

    @classmethod
    def approval(cls) -> Pending:
        """A call that waits for its approval."""
        return cls((Approved, Denied))

    @classmethod
    def question(cls) -> Pending:
        """A question that waits for its answer."""
        return cls((Answered,))

    def decide(self, decision: Decision) -> bool:
        """Take a decision; False if there is one already, or if it is none of this."""
        if self._is_over.is_set() or not isinstance(decision, self.accepts):
            return False
        self.decision = decision
        self._is_over.set()
        return True

    def abandon(self) -> None:
        """Give up waiting: nobody will decide. An approval is denied, a question times out."""
        self.decide(Denied("nobody is there to approve"))
        self._is_over.set()

    async def wait(self) -> None:
        """Wait until it is decided, or will not be."""
        await self._is_over.wait()
