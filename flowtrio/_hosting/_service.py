"""What servers may do with an orchestrator beyond its public methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    import trio

    from flowtrio._core._parts import Part

    from ._health import Health
    from ._hosted import HostedRun
    from ._meter import Meter
    from ._orchestrator import Orchestrator
    from ._recorder import Recorder


@attrs.frozen
class Service:
    """An orchestrator, as the servers of one process use it."""

    orchestrator: Orchestrator

    @property
    def meter(self) -> Meter:
        """What all runs together do."""
        return self.orchestrator._meter

    @property
    def health(self) -> Health:
        """Whether the stores take what runs have to keep."""
        return self.orchestrator._health

    @property
    def recorder(self) -> Recorder:
        """The hosted runs that go on."""
        return self.orchestrator._recorder

    def starting(
        self,
        nursery: trio.Nursery | None,
        message: str | Sequence[Part],
        tenant_id: str,
        session_id: str | None,
        run_id: str | None,
        resume_window: float,
    ) -> AbstractAsyncContextManager[HostedRun]:
        """Start a hosted run in *nursery*, by default the orchestrator's own.

        The starter has a seat to the end of the block. See `Orchestrator.start` for what is raised.
        """
        return self.orchestrator._starting(
            nursery, message, tenant_id, session_id, run_id, None, resume_window
        )

    async def forget(self, tenant_id: str, session_id: str) -> None:
        """Delete a conversation and its logs; what is under way in it is cancelled first."""
        await self.orchestrator._forget(tenant_id, session_id)
