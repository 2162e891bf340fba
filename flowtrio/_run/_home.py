"""Where runs are held: the bare ones in its nursery, all of them until they are joined."""

from __future__ import annotations

from typing import Any

import attrs
import trio

from flowtrio._core._failures import leaves

from ._frame import is_cancelled
from ._run import Run


@attrs.define(eq=False)
class Home:
    """The runs of one engine."""

    nursery: trio.Nursery | None = attrs.field(default=None, init=False)
    """For the runs that are read without a block of their own, while it is open."""
    runs: dict[Run, None] = attrs.field(factory=dict, init=False)
    """Those that have begun and not yet been joined."""
    _manager: Any = attrs.field(default=None, init=False)

    async def open(self) -> None:
        """Take runs in; to be called with Ctrl-C held off.

        Raises:
          RuntimeError: it is open.

        """
        if self._manager is not None:
            raise RuntimeError("can't open an engine twice at once")
        self._manager = trio.open_nursery()
        self.nursery = await self._manager.__aenter__()

    async def close(self, exc: BaseException | None) -> None:
        """Cancel the runs that are still open, and wait until all of them have ended.

        Args:
          exc: What the block raised that the runs were held for.

        """
        manager, self._manager, self.nursery = self._manager, None, None
        runs = list(self.runs)
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
