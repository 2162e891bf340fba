"""What waits for a person: a call for its approval, a question for its answer."""

from __future__ import annotations

from typing import Any

import attrs
import trio


@attrs.define(eq=False)
class Pending:
    """Decided once; later decisions change nothing."""

    kind: str
    """``approval`` or ``input``."""
    _decided: trio.Event = attrs.field(factory=trio.Event, init=False)
    value: Any = attrs.field(default=None, init=False)
    """For an approval True, or the words of a refusal; for a question the text."""

    is_abandoned: bool = attrs.field(default=False, init=False)
    """Whether nobody will ever decide."""

    @property
    def is_decided(self) -> bool:
        """Whether a decision was taken."""
        return self._decided.is_set() and not self.is_abandoned

    def decide(self, value: Any) -> bool:
        """Take a decision; False if there is one already."""
        if self._decided.is_set():
            return False
        self.value = value
        self._decided.set()
        return True

    def abandon(self) -> None:
        """Give up waiting: nobody will decide. An approval is denied, a question times out."""
        if self.kind == "approval":
            self.decide("nobody is there to approve")
        else:
            self.is_abandoned = True
            self._decided.set()

    async def wait(self) -> None:
        """Wait until it is decided."""
        await self._decided.wait()
