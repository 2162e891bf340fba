"""Whether we are where a client can work."""

from __future__ import annotations

import trio


def check_trio() -> None:
    """Refuse to go on outside Trio, by a `RuntimeError`: asyncio's tasks are none of Trio's."""
    if not trio.lowlevel.in_trio_task():
        raise RuntimeError(
            "a flowtrio client runs under Trio: expected a call inside trio.run(main), or "
            "flowtrio.aio.Bridge.call under asyncio"
        )
