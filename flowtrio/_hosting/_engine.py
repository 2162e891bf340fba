"""`StreamEngine`: makes streams, and holds the runs of those that are read without a block."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import attrs
import trio
from trio.lowlevel import enable_ki_protection

from flowtrio._agents._context import context_of
from flowtrio._agents._given import ForRun
from flowtrio._core._events import RUN_ID, StreamMode
from flowtrio._core._history import read_history
from flowtrio._core._limits import Limits, check_kind, of_kind
from flowtrio._core._parts import read_message
from flowtrio._core._prices import PriceTable, read_prices
from flowtrio._run._body import agent_name, check_agent
from flowtrio._run._home import Home
from flowtrio._run._hooks import NO_HOOKS, check_hook
from flowtrio._run._host import Host
from flowtrio._run._info import RunInfo
from flowtrio._run._log import SCHEDULE_EVERY
from flowtrio._run._run import Run, current_run
from flowtrio._run._stream import EventStream
from flowtrio._run._telemetry import Observer, check_telemetry

if TYPE_CHECKING:
    from flowtrio._core._parts import Part
    from flowtrio._run._host import Admission
    from flowtrio._run._simulation import Simulation
    from flowtrio.abc import AgentLike, AroundModel, AroundTool, Message, Telemetry


R = TypeVar("R")


def make_run_id() -> str:
    """A new run id that nobody can guess."""
    return os.urandom(16).hex()


@attrs.define(eq=False, kw_only=True)
class StreamEngine:
    """Runs agents and streams their events.

    Can be built outside Trio and used for any number of runs at once. Opened with ``async with``,
    it holds the runs that are read without a block of their own, and joins them when it is left.
    """

    mode: StreamMode = attrs.field(default=StreamMode.EVENTS, converter=StreamMode)
    """Which events its streams give, unless a stream says otherwise."""
    limits: Limits = attrs.field(factory=Limits, validator=of_kind(Limits))
    """Limits of its runs, unless a stream says otherwise."""
    prices: PriceTable | None = attrs.field(default=None, converter=read_prices)
    """Prices for ``usage.cost``, by model: a mapping such as
    ``{"model": {"prompt": "0.15", "completion": "0.60", "cached": "0.075"}}``, each for a million
    tokens (``cached`` may be left out). None for no costs."""
    around_tool: AroundTool | None = attrs.field(default=None, validator=check_hook)
    """Stands around each tool call of its runs; see `flowtrio.abc.AroundTool`."""
    around_model: AroundModel | None = attrs.field(default=None, validator=check_hook)
    """Stands around each model reply of its runs; see `flowtrio.abc.AroundModel`."""
    telemetry: Telemetry | None = attrs.field(default=None, validator=check_telemetry)
    """Hears what its runs record; see `flowtrio.abc.Telemetry`, and `flowtrio.otel`."""
    wall_clock: Callable[[], float] = time.time
    """UTC in seconds; read once per run."""
    make_run_id: Callable[[], str] = make_run_id
    """Gives the id of a run that was not given one."""
    schedule_every: int = SCHEDULE_EVERY
    """Events of a run between two schedule points; 1 where schedules are explored."""
    simulation: Simulation | None = None
    """What its runs meet in the place of the world; see `flowtrio.testing.simulate`."""
    _home: Home = attrs.field(factory=Home, init=False)

    def stream(
        self,
        agent: AgentLike[R],
        message: str | Sequence[Part],
        *,
        mode: StreamMode | str | None = None,
        limits: Limits | None = None,
        run_id: str | None = None,
        history: Sequence[Message] = (),
        app: Any = None,
    ) -> EventStream[R]:
        """Make the stream of one run; nothing happens until it is entered or iterated.

        Args:
          agent: An `Agent`, or any ``async def agent(ctx, message)``.
          message: What the user says: a text, or a list of `Text`, `Image` and `File`. The agent's
            function is given its text, and finds the rest as ``ctx.parts``.
          mode: Which events to give; the engine's by default.
          limits: Limits of this run; the engine's by default.
          run_id: URL-safe text of up to 64 characters; one that nobody can guess by default.
          history: The conversation so far, in OpenAI's shape. It is copied and made fit for every
            provider.
          app: Anything; the agent and its tools find it as ``ctx.app``.

        Raises:
          TypeError: *agent* cannot be run, *message* is neither a text nor a list of parts, or
            *history* no list of messages.
          ValueError: *mode* or *run_id* is not valid, a message of *history* none that a model
            takes, or *message* has too much in it.

        """
        return self._stream(
            agent, message, mode=mode, limits=limits, run_id=run_id, history=history, app=app
        )

    def _stream(
        self,
        agent: AgentLike[R],
        message: str | Sequence[Part],
        *,
        mode: StreamMode | str | None = None,
        limits: Limits | None = None,
        run_id: str | None = None,
        history: Sequence[Message] = (),
        app: Any = None,
        tenant_id: str = "default",
        session_id: str | None = None,
        admission: Admission | None = None,
        given: ForRun | None = None,
    ) -> EventStream[R]:
        check_agent(agent)
        said = read_message(message)
        if run_id is not None and not re.fullmatch(RUN_ID, run_id):
            raise ValueError(f"run_id {run_id!r}: expected 1 to 64 of A-Z a-z 0-9 _ . ~ -")
        if limits is not None:
            check_kind(limits, Limits)
        outer = current_run.get()
        simulation = self.simulation
        if simulation is None and outer is not None:
            # What a simulated run starts is simulated too, whatever engine it takes for that.
            simulation = outer.info.simulation
        world = self if simulation is None else simulation
        run_id = world.make_run_id() if run_id is None else run_id
        observer, hooks = None, NO_HOOKS
        if self.telemetry is not None:
            observer = Observer(self.telemetry, run_id, tenant_id)
            hooks = observer.hooks
        info = RunInfo(
            run_id=run_id,
            said=said,
            agent_name=agent_name(agent),
            limits=self.limits if limits is None else limits,
            history=read_history(history) or (),
            app=app,
            tenant_id=tenant_id,
            session_id=session_id,
            parent_run_id=None if outer is None else outer.info.run_id,
            wall_clock=world.wall_clock,
            schedule_every=world.schedule_every,
            simulation=simulation,
            prices=self.prices,
            hooks=hooks.joined_by(self.around_tool, self.around_model),
            observer=observer,
            given=given,
        )
        host = Host(Run(info), agent, context_of, admission)
        return EventStream(host, self.mode if mode is None else StreamMode(mode), self._home)

    @property
    def is_open(self) -> bool:
        """Whether it is inside its ``async with`` block."""
        return self._home.nursery is not None

    if not TYPE_CHECKING:

        def __enter__(self) -> None:
            raise TypeError("an engine is opened with 'async with', not with 'with'")

        def __exit__(self, *_: object) -> None:
            raise AssertionError("never entered")

    @enable_ki_protection
    async def __aenter__(self) -> Self:
        """Open the engine: runs of bare streams are held, and joined at the block's end."""
        if not trio.lowlevel.in_trio_task():
            raise RuntimeError(
                "a flowtrio engine opens under Trio: expected a call inside trio.run(main), or "
                "flowtrio.aio.Bridge.enter under asyncio"
            )
        await self._home.open()
        return self

    @enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Cancel the runs that are still open, and wait until all of them have ended."""
        await self._home.close(exc)
