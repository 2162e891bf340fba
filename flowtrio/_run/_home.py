"""Where runs are held: the bare ones in its nursery, all of them until they are joined."""

from __future__ import annotations

from typing import Any

import attrs
import trio

from flowtrio._core._failures import leaves

from ._frame import is_cancelled
from ._loops import is_here
from ._run import Run


@attrs.define(eq=False)
class Home:
    """The runs of one engine."""

    nursery: trio.Nursery | None = attrs.field(default=None, init=False)
    """For the runs that are read without a block of their own, while it is open."""
    runs: dict[Run, None] = attrs.field(factory=dict, init=False)
    """Those that have begun and not yet been joined, in whichever Trio loop."""
    _token: trio.lowlevel.TrioToken | None = attrs.field(default=None, init=False)
    """The loop in which it is open."""
    _manager: Any = attrs.field(default=None, init=False)

    @property
    def nursery_here(self) -> trio.Nursery | None:
        """The nursery, where it is open in the current Trio loop: tasks live in one loop."""
        return self.nursery if self.nursery is not None and is_here(self._token) else None

    async def open(self) -> None:
        """Take runs in; to be called with Ctrl-C held off.

        Raises:
          RuntimeError: it is open.

        """
        if self._manager is not None:
            raise RuntimeError("can't open an engine twice at once")
        self._manager = trio.open_nursery()
        self._token = trio.lowlevel.current_trio_token()
        self.nursery = await self._manager.__aenter__()

    async def close(self, exc: BaseException | None) -> None:
        """Cancel the runs that are still open, and wait until all of them have ended.

        Args:
          exc: What the block raised that the runs were held for.

        """
        manager, self._manager, self.nursery = self._manager, None, None
        # Those of other loops have places of their own there, and nothing here may touch them.
        runs = [run for run in list(self.runs) if run.token is self._token]
        # Each by itself: the nursery has others too, such as those who have runs to store.
        for run in runs:
            run.cancel("the engine was closed")
        error: BaseException | None = None
        try:
            await manager.__aexit__(None, None, None)
            for run in runs:
                await run.wait_joined()
        except BaseException as raised:
            told = list(leaves(raised))
            error = next((e for e in told if not isinstance(e, trio.Cancelled)), told[0])
        if error is not None and (exc is None or is_cancelled(exc) or _is_interrupt(error)):
            # The body's own exception leaves as it came; one that our nursery cancelled has none.
            raise error


def _is_interrupt(exc: BaseException) -> bool:
    return isinstance(exc, KeyboardInterrupt | SystemExit)
