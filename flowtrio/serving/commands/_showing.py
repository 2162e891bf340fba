"""What a remote reader is shown of a run's log.

A mode that leaves events out leaves holes in ``seq``, so its reader cannot tell a hole from a frame
that was lost on the way. Who asks for ``linked`` frames can: each names the one before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from flowtrio._core._events import AgentEvent, StreamMode
from flowtrio._core._modes import View
from flowtrio.abc import Request
from flowtrio.wire._frames import LINKED, link

from ._conceal import conceal_all


def asks_for_links(request: Request) -> bool:
    """Whether the frames that answer *request* are to name the ones before them."""
    return request.query.get(LINKED) == "1"


@attrs.define(eq=False)
class Showing:
    """One reader's view of one log from a place on, fed batch by batch."""

    mode: StreamMode
    after: int
    """The last event that was seen, by its number; -1 for none."""
    is_linked: bool
    is_whole: bool
    """Whether the texts of the application's own exceptions are shown."""
    newest: int = -1
    """The event up to which all is shown as one snapshot, by its number; -1 for none."""
    is_compacted: bool = False
    """Whether that snapshot is the compacted log, and not the state."""
    _view: View = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._view = View(self.mode, self.newest, is_compacted=self.is_compacted)

    @property
    def start(self) -> int:
        """The place behind which the log has to be fed: a state is the fold of all before it."""
        return -1 if self.mode is StreamMode.VALUES or self.newest >= 0 else self.after

    def show(self, batch: Sequence[AgentEvent]) -> Sequence[AgentEvent]:
        """Take the log's next events; gives what the reader gets of them."""
        after = self.after
        shown = self._view.see_all(batch if self.is_whole else conceal_all(batch))
        if shown and shown[0].seq <= after:
            shown = [event for event in shown if event.seq > after]
        if not shown:
            return shown
        self.after = shown[-1].seq
        return link(shown, after) if self.is_linked else shown
