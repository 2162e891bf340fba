"""The steps of an AI SDK message: where one begins, and what is in it.

Each message of a model opens a *step*: what a page takes back when the model begins anew, and
where it looks for calls that somebody has to decide on. A call within a call opens one too: a page
sends what was decided when all calls in the newest step are.
"""

from __future__ import annotations

from typing import Final

import attrs

from ._calls import Calls, UIChunk

_END: Final[UIChunk] = {"type": "finish-step"}
_BEGIN: Final[UIChunk] = {"type": "start-step"}


@attrs.define(eq=False)
class Steps:
    """The step that a message is in."""

    _calls: Calls
    _entered: set[str] = attrs.field(factory=set, init=False)
    """The model's messages that have opened one."""
    _owners: set[str | None] | None = attrs.field(default=None, init=False)
    """Whose the parts in it are: messages of the model's, None for others. None before the first.
    """
    _held: set[str] = attrs.field(factory=set, init=False)
    """The calls in it."""

    def knows(self, owner: str) -> bool:
        """Whether a message of the model's has parts."""
        return owner in self._entered

    def holds_only(self, owner: str) -> bool:
        """Whether all that is in the step is of one message of the model's."""
        return self._owners == {owner}

    def enter(self, owner: str | None, *, opens: bool = False) -> list[UIChunk]:
        """What stands before a part of a message of the model's, or of nobody's.

        It *opens* a step where it would be better in one of its own.
        """
        opens = opens or (owner is not None and owner not in self._entered)
        if owner is not None:
            self._entered.add(owner)
        told = []
        if self._owners is None or (opens and self._calls.are_settled):
            told = self._begin()
        assert self._owners is not None
        self._owners.add(owner)
        return told

    def enter_call(self, owner: str | None, call_id: str) -> list[UIChunk]:
        """The same before a call: one within a call would be better in a step of its own."""
        told = self.enter(owner, opens=any(map(self._calls.runs, self._held)))
        self._held.add(call_id)
        return told

    def begin_anew(self) -> list[UIChunk]:
        """Begin the first step of another message, which will have all open calls."""
        self._owners, self._held = {None}, set(self._calls.ids)
        return [_BEGIN]

    def end(self) -> list[UIChunk]:
        """End the step, if there is one."""
        return [] if self._owners is None else [_END]

    def leave(self) -> list[UIChunk]:
        """End with a step that has no calls: with some, pages would ask for more, for ever."""
        leaves = bool(self._held) and self._calls.are_settled
        return [*(self._begin() if leaves else []), *self.end()]

    def _begin(self) -> list[UIChunk]:
        ended = self.end()
        self._owners, self._held = set(), set()
        return [*ended, _BEGIN]
