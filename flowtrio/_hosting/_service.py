"""What servers may do with an orchestrator beyond its public methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from flowtrio._agents._routing import purpose_of

from ._descriptions import Descriptions

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    import trio

    from flowtrio._core._parts import Part

    from ._cluster import Cluster, Started
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

    @property
    def cluster(self) -> Cluster | None:
        """What this process does as one of several that share a store; None where it is alone."""
        return self.orchestrator._cluster

    def starting(
        self,
        nursery: trio.Nursery | None,
        message: str | Sequence[Part],
        tenant_id: str,
        session_id: str | None,
        run_id: str | None,
        resume_window: float,
        **options: Any,
    ) -> AbstractAsyncContextManager[HostedRun | Started]:
        """Start a hosted run in *nursery*, by default the orchestrator's own.

        The starter has a seat to the end of the block. *options* are those of `Orchestrator.start`
        (``agent app limits history tools model_settings``); ``attended``: False where there are
        no people to ask; and ``begun``, which is called with a run that is new, and runs here. See
        there for what is raised.
        """
        return self.orchestrator._starting(
            nursery, message, tenant_id, session_id, run_id, resume_window, **options
        )

    @property
    def descriptions(self) -> Descriptions:
        """What is told of conversations beside what was said in them."""
        return Descriptions(self.orchestrator.conversations)

    @property
    def agents(self) -> Mapping[str, str]:
        """The agents that can be asked for by name, each with what it is for."""
        agents = self.orchestrator._agents
        return {name: purpose_of(agent) for name, agent in agents.items()}

    async def forget(self, tenant_id: str, session_id: str) -> None:
        """Delete a conversation and its logs; what is under way in it is cancelled first."""
        await self.orchestrator._forget(tenant_id, session_id)

    async def forget_run(self, tenant_id: str, run_id: str) -> bool:
        """Delete a run's log; one that goes on is cancelled first. False if there is none."""
        if self.cluster is not None:
            await self.cluster.clear_run(tenant_id, run_id, "its log was deleted")
        await self.recorder.forget_run(tenant_id, run_id, "its log was deleted")
        return bool(await self.orchestrator.store.delete(tenant_id, run_id=run_id))
