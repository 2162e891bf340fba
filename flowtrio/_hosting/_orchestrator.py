"""`Orchestrator`: conversations, tenants, and who answers which message."""

from __future__ import annotations

import math
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import attrs
import trio
from trio.lowlevel import enable_ki_protection

from flowtrio._agents._given import for_run
from flowtrio._agents._routing import Route, make_agent
from flowtrio._agents._toolsets import Given
from flowtrio._core._events import StreamMode
from flowtrio._core._limits import Limits, is_wait, is_whole
from flowtrio._core._prices import PriceTable, read_prices
from flowtrio._core._values import clean_text, told
from flowtrio._run._stream import EventStream

from ._admission import Admission
from ._engine import StreamEngine
from ._follower import Follower
from ._health import Health
from ._hosted import HostedRun
from ._meter import Meter
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
    )


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
class Orchestrator:
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
    limits: Limits = attrs.Factory(Limits)
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
    on_busy: OnBusy = "queue"
    """What a message for a busy conversation does: ``queue``, ``reject``, ``cancel`` others, or
    ``post``: it is said to the run that goes on (see `EventStream.post`), and its own run is
    cancelled at once and says so; where no reply follows, it waits in line."""
    app: Any = None
    """Anything; agents and tools find it as ``ctx.app``, unless a run brings its own. Servers start
    runs without one."""
    queue_length: int = 16
    """Messages that may wait in one conversation."""
    queue_wait: float = 60
    """Seconds that a message waits at most."""
    _engine: StreamEngine = attrs.field(init=False)
    _sessions: Sessions = attrs.field(init=False)
    _agent: AgentLike = attrs.field(init=False)
    _meter: Meter = attrs.field(init=False)
    _health: Health = attrs.field(init=False)
    _recorder: Recorder = attrs.field(init=False)
    _admissions: dict[bool, Admission] = attrs.field(init=False)
    """How its runs are let in, by whether their conversation is kept."""

    def __attrs_post_init__(self) -> None:
        _check_queue(self)
        shared = ("mode", "limits", "prices", "around_tool", "around_model")
        self._engine = StreamEngine(**{name: getattr(self, name) for name in shared})
        self._sessions = Sessions(
            on_busy=self.on_busy,
            queue_length=self.queue_length,
            queue_wait=self.queue_wait,
            runs_per_tenant=self.runs_per_tenant,
        )
        self._agent = make_agent(self.agents, self.route, self.llm_client, self.tools)
        self._meter = Meter()
        self._health = Health(self.store, self.conversations)
        self._recorder = Recorder(self.store, self._meter, self._health.note)
        self._admissions = _admissions_of(self)

    def process_stream(
        self,
        message: str | Sequence[Part],
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
    ) -> EventStream:
        """Make the stream of the run that answers *message*; see `StreamEngine.stream`.

        Never raises for a busy conversation or tenant: the run then fails at once, with an ERROR of
        source ``limit`` and code ``session_busy`` or ``tenant_busy``.

        Args:
          message: What the user says: a text, or a list of `Text`, `Image` and `File`.
          tenant_id: Whose it is; tenants never see each other.
          session_id: The conversation; None for a message that is answered and not remembered.
          mode: Which events to give; the orchestrator's by default.
          run_id: URL-safe text of up to 64 characters; one that nobody can guess by default.
          app: Anything; agents and tools find it as ``ctx.app``. The orchestrator's by default.
          limits: Limits of this run; the orchestrator's by default.
          history: What was said before; only where there is no conversation that has its own.
          tools: Further tools of the agent that answers, in this run.
          model_settings: Settings of its model in this run, beside its own.

        Raises:
          ValueError: there is both a *history* and a *session_id*, or an argument cannot be one.

        """
        _check_name("tenant_id", tenant_id)
        if session_id is not None:
            _check_name("session_id", session_id)
            if history is not None:
                raise ValueError("history= and session_id=: a conversation has its own history")
        return self._engine._stream(
            self._agent,
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
        message: str | Sequence[Part],
        tenant_id: str = "default",
        session_id: str | None = None,
        app: Any = None,
        **options: Any,
    ) -> Any:
        """Answer *message* and give the result.

        There is nobody to ask: approvals are denied, and questions time out at once. *options* are
        `process_stream`'s: ``limits history tools model_settings``.

        Raises:
          RunFailed: the run failed, also because the conversation or the tenant is busy.
          RunCancelled: the run was cancelled.

        """
        stream = self.process_stream(message, tenant_id, session_id, app=app, **options)
        async with stream:
            return await stream.result()

    # Hosted runs

    async def start(
        self,
        message: str | Sequence[Part],
        tenant_id: str = "default",
        session_id: str | None = None,
        run_id: str | None = None,
        app: Any = None,
        *,
        resume_window: float = math.inf,
        **options: Any,
    ) -> str:
        """Start a run that needs no reader: its log goes into the store, where many may follow it.

        Starting the same message under an id that exists, of the same tenant, starts nothing:
        whoever lost the answer may start again, and the agent and its tools run once. Being
        cancelled while this waits does not take the start back. The run ends with this
        orchestrator's block at the latest.

        Args:
          message: What the user says; all up to *app* is as in `process_stream`.
          tenant_id: Whose it is.
          session_id: The conversation.
          run_id: Its id.
          app: Found as ``ctx.app``.
          resume_window: Seconds after which the run is cancelled when no follower is attached, and
            none was since the start; a run that waits for a person is not. 0 cancels it as soon as
            its last follower has left, and leaves it alone until the first one comes. By default
            none.
          options: As `process_stream` takes them: ``limits history tools model_settings``.

        Returns:
          The run's id, for `attach`. A store that fails is an ERROR there, not an exception here.

        Raises:
          LimitExceeded: the conversation or the tenant is busy (``code`` says which); nothing was
            started, and no log is left.
          RunExists: there is a run of this id, and it answers another message.
          RuntimeError: the orchestrator is not open.
          ValueError: *resume_window* is below 0, or another argument cannot be one.

        """
        if not is_wait(resume_window):
            raise ValueError(f"resume_window={told(resume_window)}: expected seconds, 0 or more")
        async with self._starting(
            None, message, tenant_id, session_id, run_id, app, resume_window, **options
        ) as hosted:
            if not resume_window:
                hosted.keep()
            return hosted.run_id

    @asynccontextmanager
    async def _starting(
        self,
        nursery: trio.Nursery | None,
        message: str | Sequence[Part],
        tenant_id: str,
        session_id: str | None,
        run_id: str | None,
        app: Any,
        resume_window: float,
        **options: Any,
    ) -> AsyncIterator[HostedRun]:
        nursery = nursery or self._engine._home.nursery
        if nursery is None or not self.is_open:
            raise RuntimeError(
                "can't start a hosted run: expected an open orchestrator (async with orchestrator)"
            )
        stream = self.process_stream(
            message, tenant_id, session_id, "events", run_id, app, **options
        )
        is_remembered = session_id is not None
        async with self._recorder.starting(
            nursery, stream, resume_window, is_remembered=is_remembered
        ) as hosted:
            yield hosted

    def attach(
        self,
        run_id: str,
        after: int = -1,
        tenant_id: str = "default",
        mode: StreamMode | str | None = None,
        *,
        patience: float = 10,
    ) -> Follower:
        """Make a reader of a hosted run, live or ended, from any place in its log.

        Nothing happens until it is entered or read; then `LookupError` says that there is no such
        run, also where it is another tenant's, and `ReplayGap` that the place is gone.

        Args:
          run_id: The run.
          after: The last sequence number that was seen; -1 for none.
          tenant_id: Whose it is.
          mode: Which events to give; the orchestrator's by default. Where the beginning of a log
            is gone, its ``values`` are a `ReplayGap` too.
          patience: Seconds that the run waits for this reader at most, when it reads too slowly.

        Raises:
          ValueError: *after* is no sequence number, or *mode* is not one of the modes.

        """
        if isinstance(after, bool) or not isinstance(after, int) or after < -1:
            raise ValueError(f"after={after!r}: expected the last seq that was seen, or -1")
        return Follower(
            self._recorder,
            tenant_id,
            run_id,
            after,
            self.mode if mode is None else StreamMode(mode),
            patience,
        )

    async def _forget(self, tenant_id: str, session_id: str) -> None:
        """Delete a conversation and its logs; what is under way in it would bring it back."""
        await self._sessions.clear(tenant_id, session_id, "its conversation was deleted")
        await self._recorder.forget_session(tenant_id, session_id)
        await self.conversations.delete(tenant_id, session_id)
        await self.store.delete(tenant_id, session_id=session_id)

    if not TYPE_CHECKING:

        def __enter__(self) -> None:
            raise TypeError("an orchestrator is opened with 'async with', not with 'with'")

        def __exit__(self, *_: object) -> None:
            raise AssertionError("never entered")

    @enable_ki_protection
    async def __aenter__(self) -> Self:
        """Open the orchestrator: its runs are held, and joined at the block's end."""
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
        self._recorder.cancel_all("the orchestrator was closed")
        await self._engine.__aexit__(exc_type, exc, traceback)

    @property
    def is_open(self) -> bool:
        """Whether it is inside its ``async with`` block."""
        return self._engine.is_open


def _check_queue(given: Orchestrator) -> None:
    """Refuse what cannot be waited by."""
    if given.on_busy not in ("queue", "reject", "cancel", "post"):
        raise ValueError(
            f"on_busy={given.on_busy!r}: expected 'queue', 'reject', 'cancel' or 'post'"
        )
    if not is_wait(given.queue_wait):
        raise ValueError(f"queue_wait={told(given.queue_wait)}: expected seconds, 0 or more")
    if not (given.queue_length == math.inf or is_whole(given.queue_length, 0)):
        raise ValueError(
            f"queue_length={told(given.queue_length)}: expected a whole number, at least 0"
        )
    if not (given.runs_per_tenant is None or is_whole(given.runs_per_tenant, 1)):
        raise ValueError(
            f"runs_per_tenant={told(given.runs_per_tenant)}: expected a whole number, at least 1"
            ", or None"
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


def _check_name(what: str, name: object) -> None:
    # Half a character is none that an event, or a store, could carry.
    if not isinstance(name, str) or not name or clean_text(name) != name:
        raise ValueError(f"{what} {told(name)}: expected a text that is not empty")
