"""`Orchestrator`: conversations, tenants, and who answers which message."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import attrs
from trio.lowlevel import enable_ki_protection

from flowtrio._agents._client_tool import made_again
from flowtrio._agents._given import for_run
from flowtrio._agents._routing import Route, agents_by_name, find_agent, make_agent
from flowtrio._agents._toolsets import Given
from flowtrio._core._events import StreamMode
from flowtrio._core._history import going_on
from flowtrio._core._limits import Limits, of_kind
from flowtrio._core._prices import PriceTable, read_prices
from flowtrio._run._controls import run_of
from flowtrio._run._stream import EventStream
from flowtrio.abc import RunOptions

from ._admission import Admission
from ._cluster import Cluster, Role
from ._commands import message_of
from ._descriptions import Descriptions
from ._engine import StreamEngine
from ._health import Health
from ._hosted_runs import HostedRuns
from ._meter import Meter
from ._options import check_name, check_queue, check_sharing
from ._recorder import Recorder
from ._sessions import OnBusy, Sessions

if TYPE_CHECKING:
    from flowtrio._core._parts import Part
    from flowtrio.abc import (
        AgentLike,
        AroundModel,
        AroundTool,
        ConversationStore,
        EventStore,
        LLMClient,
        Message,
        Telemetry,
    )

    from ._claims import Claim


def _conversations(given: ConversationStore | None) -> ConversationStore:
    if given is not None:
        return given
    from flowtrio.stores.memory import MemoryConversations

    return MemoryConversations()


def _store(given: EventStore | None) -> EventStore:
    if given is not None:
        return given
    from flowtrio.stores.memory import MemoryStore

    return MemoryStore()


@attrs.define(eq=False, kw_only=True)
class Orchestrator(HostedRuns):
    """Answers messages of many users: keeps their conversations and chooses who answers.

    A conversation is a ``(tenant_id, session_id)``; it has one run at a time. Can be built outside
    Trio. Opened with ``async with``, it holds the runs that are read without a block of their own.
    """

    llm_client: LLMClient | None = None
    """The model: of the one agent where *agents* is None, else of the choice between agents."""
    agents: Sequence[AgentLike] | None = None
    """Who answers; by default one `Agent` with *llm_client* and *tools*."""
    tools: Sequence[Given] = ()
    """Tools of the default agent, and toolsets."""
    route: Route | None = None
    """Chooses between several agents; by default the model does."""
    limits: Limits = attrs.field(factory=Limits, validator=of_kind(Limits))
    """Limits of each run."""
    mode: StreamMode = attrs.field(default=StreamMode.EVENTS, converter=StreamMode)
    """Which events its streams give, unless a stream says otherwise."""
    store: EventStore = attrs.field(default=None, converter=_store)
    """Where the logs of hosted runs are kept; in memory by default."""
    conversations: ConversationStore = attrs.field(default=None, converter=_conversations)
    """Where conversations are kept; in memory by default."""
    runs_per_tenant: int | None = None
    """Runs of one tenant at once, those in line included; None for no limit."""
    prices: PriceTable | None = attrs.field(default=None, converter=read_prices)
    """Prices for ``usage.cost``; see `StreamEngine`."""
    around_tool: AroundTool | None = None
    """Stands around each tool call of its runs; see `flowtrio.abc.AroundTool`."""
    around_model: AroundModel | None = None
    """Stands around each model reply of its runs; see `flowtrio.abc.AroundModel`."""
    telemetry: Telemetry | None = None
    """Hears what its runs record; see `flowtrio.abc.Telemetry`."""
    on_busy: OnBusy = "queue"
    """What a message for a busy conversation does: ``queue``, ``reject``, ``cancel`` others, or
    ``post``: it is said to the run that goes on (see `EventStream.post`), and its own run is
    cancelled at once and says so; where no reply follows, or it brings tools, limits, settings or
    an ``app`` that this run has not, it waits in line."""
    app: Any = None
    """Anything; agents and tools find it as ``ctx.app``, unless a run brings its own. Servers start
    runs without one."""
    queue_length: int = 16
    """Messages that may wait in one conversation."""
    queue_wait: float = 60
    """Seconds that a message waits at most."""
    role: Role = "both"
    """What this process does where several share a store: a ``gateway`` starts and reads runs, a
    ``worker`` is there to run them."""
    lease: float = 10
    """Seconds without a sign of life after which others end the runs of this process."""
    capacity: float = 500
    """Runs that this process runs at once, of a store that several share."""
    _engine: StreamEngine = attrs.field(init=False)
    _sessions: Sessions = attrs.field(init=False)
    _agent: AgentLike = attrs.field(init=False)
    _agents: dict[str, AgentLike] = attrs.field(init=False)  # who can be asked for, by name
    _meter: Meter = attrs.field(init=False)
    _health: Health = attrs.field(init=False)
    _recorder: Recorder = attrs.field(init=False)
    _admissions: dict[bool, Admission] = attrs.field(init=False)
    """How its runs are let in, by whether their conversation is kept."""
    _cluster: Cluster | None = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        check_queue(self.on_busy, self.queue_wait, self.queue_length, self.runs_per_tenant)
        check_sharing(self.store, self.conversations, self.role, self.lease, self.capacity)
        shared = ("mode", "limits", "prices", "around_tool", "around_model", "telemetry")
        self._engine = StreamEngine(**{name: getattr(self, name) for name in shared})
        self._sessions = _sessions_of(self)
        self._agent = make_agent(self.agents, self.route, self.llm_client, self.tools)
        self._agents, self._meter = agents_by_name(self._agent), Meter()
        self._health = Health(self.store, self.conversations)
        hear = Descriptions(self.conversations).hear
        self._recorder = Recorder(self.store, self._meter, self._health.note, hear)
        self._admissions = _admissions_of(self)
        self._cluster = _cluster_of(self)

    def process_stream(
        self,
        message: str | Sequence[Part] | None,
        tenant_id: str = "default",
        session_id: str | None = None,
        mode: StreamMode | str | None = None,
        run_id: str | None = None,
        app: Any = None,
        *,
        limits: Limits | None = None,
        history: Sequence[Message] | None = None,
        tools: Sequence[Given] = (),
        model_settings: Mapping[str, Any] | None = None,
        agent: str | None = None,
    ) -> EventStream:
        """Make the stream of the run that answers *message*; see `StreamEngine.stream`.

        Never raises for a busy conversation or tenant: the run then fails at once, with an ERROR of
        source ``limit`` and code ``session_busy`` or ``tenant_busy``.

        Args:
          message: What the user says: a text, or a list of `Text`, `Image` and `File`. None goes on
            from *history*: it answers the user's message that this ends with, or has the model see
            the results of tools that it ends with.
          tenant_id: Whose it is; tenants never see each other.
          session_id: The conversation; None for a message that is answered and not remembered.
          mode: Which events to give; the orchestrator's by default.
          run_id: URL-safe text of up to 64 characters; one that nobody can guess by default.
          app: Anything; agents and tools find it as ``ctx.app``. The orchestrator's by default.
          limits: Limits of this run; the orchestrator's by default.
          history: What was said before; only where there is no conversation that has its own.
          tools: Further tools of the agent that answers, in this run.
          model_settings: Settings of its model in this run, beside its own.
          agent: The name of the one that answers; by default the route chooses.

        Raises:
          ValueError: there is both a *history* and a *session_id*, there is nothing to go on from,
            there is no such *agent*, or an argument cannot be one.

        """
        check_name("tenant_id", tenant_id)
        if session_id is not None:
            check_name("session_id", session_id)
            if history is not None:
                raise ValueError("history= and session_id=: a conversation has its own history")
        if message is None:
            message, history = going_on(() if history is None else history)
        return self._engine._stream(
            self._agent if agent is None else find_agent(self._agents, agent),
            message,
            mode=mode,
            limits=limits,
            run_id=run_id,
            history=() if history is None else history,
            given=for_run(tools, model_settings),
            app=self.app if app is None else app,
            tenant_id=tenant_id,
            session_id=secrets.token_urlsafe(16) if session_id is None else session_id,
            admission=self._admissions[session_id is not None],
        )

    async def process(
        self,
        message: str | Sequence[Part] | None,
        tenant_id: str = "default",
        session_id: str | None = None,
        app: Any = None,
        **options: Any,
    ) -> Any:
        """Answer *message* and give the result.

        There is nobody to ask: approvals are denied, and questions time out at once. *options* are
        `process_stream`'s: ``limits history tools model_settings agent``.

        Raises:
          RunFailed: the run failed, also because the conversation or the tenant is busy.
          RunCancelled: the run was cancelled.

        """
        stream = self.process_stream(message, tenant_id, session_id, app=app, **options)
        async with stream:
            return await stream.result()

    if not TYPE_CHECKING:

        def __enter__(self) -> None:
            raise TypeError("an orchestrator is opened with 'async with', not with 'with'")

        def __exit__(self, *_: object) -> None:
            raise AssertionError("never entered")

    @enable_ki_protection
    async def __aenter__(self) -> Self:
        """Open the orchestrator: its runs are held, and joined at the block's end."""
        if self._cluster is not None:
            self._cluster.open()
        await self._engine.__aenter__()
        self._health.begin()
        self._recorder.unsettled.is_open = True
        return self

    @enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Cancel the runs that are still open, and wait until all of them have ended."""
        cluster = self._cluster
        if cluster is not None:
            cluster.stop_claiming()
        self._recorder.cancel_all("the orchestrator was closed")
        try:
            await self._engine.__aexit__(exc_type, exc, traceback)
        finally:
            if cluster is not None:
                await cluster.close()


def _sessions_of(given: Orchestrator) -> Sessions:
    """Who waits for whom in its conversations."""
    return Sessions(
        on_busy=given.on_busy,
        queue_length=given.queue_length,
        queue_wait=given.queue_wait,
        runs_per_tenant=given.runs_per_tenant,
        limits=given.limits,
        app=given.app,
    )


def _admissions_of(given: Orchestrator) -> dict[bool, Admission]:
    """How runs are let in, by whether their conversation is kept."""
    return {
        is_remembered: Admission(
            sessions=given._sessions,
            meter=given._meter,
            health=given._health,
            conversations=given.conversations,
            grace=given.limits.grace,
            is_remembered=is_remembered,
        )
        for is_remembered in (False, True)
    }


def _cluster_of(given: Orchestrator) -> Cluster | None:
    """What it does as one of several processes; None where it shares its store with nobody."""
    if given._recorder.shared is None:
        return None
    return Cluster(
        store=given._recorder.shared,
        recorder=given._recorder,
        role=given.role,
        ttl=given.lease,
        capacity=given.capacity,
        on_busy=given.on_busy,
        queue_length=given.queue_length,
        queue_wait=given.queue_wait,
        runs_per_tenant=given.runs_per_tenant,
        make_stream=partial(_stream_of, given),
        find_nursery=lambda: given._engine._home.nursery,
    )


def _stream_of(given: Orchestrator, claim: Claim) -> EventStream:
    """Make the stream of a run that another process may have started."""
    header = claim.header
    asked = header.asked or RunOptions()
    stream = given._engine._stream(
        find_agent(given._agents, header.agent),
        message_of(header.message, header.parts),
        mode=StreamMode.EVENTS,
        limits=asked.limits,
        run_id=header.run_id,
        history=() if asked.history is None else asked.history,
        given=for_run(made_again(asked.client_tools), asked.model_settings),
        app=given.app if asked.app is None else asked.app,
        tenant_id=header.tenant_id,
        session_id=header.session_id,
        admission=attrs.evolve(given._admissions[header.is_remembered], claim=claim),
    )
    run_of(stream).has_people = asked.is_attended
    return stream
