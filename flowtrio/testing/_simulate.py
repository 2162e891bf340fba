"""`simulate`: one run of an agent, alone in a Trio loop of its own, on a schedule that was drawn.

Nothing in it depends on the machine: time is virtual and jumps to the next deadline as soon as
nobody can go on, ids and the clock are made up, tools that are plain functions run in the task of
their call, and whoever asks for a thread or a socket is refused. So a run is a function of what
`simulate` is given, and a run that was found once is found again.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import attrs
import trio

from flowtrio._agents._threads import call_plain
from flowtrio._core._events import AgentEvent
from flowtrio._core._exceptions import RunCancelled, RunFailed
from flowtrio._core._limits import Limits
from flowtrio._hosting._engine import StreamEngine
from flowtrio._run._controls import run_of
from flowtrio._run._simulation import Function
from flowtrio._run._stream import EventStream

from ._faults import Fault, Log, Places, Striker, ToolFaults
from ._models import SimulatedModel
from ._readers import Reader, ReaderLeft
from ._replay import Case, Played, keep
from ._schedule import Chooser, Schedule, check_scheduler, exploring, virtual_clock
from ._simulated import SimulatedRun, told_faults

if TYPE_CHECKING:
    from flowtrio._core._parts import Part
    from flowtrio.abc import AgentLike, LLMClient, Message, Telemetry

LONGEST = 30 * 24 * 3600.0
"""Seconds of virtual time after which a run counts as one that has no end."""
MOST_STEPS = 1_000_000
"""Steps of the scheduler after which it does."""


class RealWorld(RuntimeError):
    """A simulated run asked for a thread or a socket."""


def simulate(
    agent: AgentLike,
    message: str | Sequence[Part],
    *,
    model: LLMClient | None = None,
    reader: Reader | None = None,
    faults: Iterable[Fault] | None = None,
    schedule: Schedule | Iterable[int] | int | None = None,
    app: Any = None,
    limits: Limits | None = None,
    history: Sequence[Message] = (),
    telemetry: Telemetry | None = None,
) -> SimulatedRun:
    """Run an agent to its end, alone, under virtual time, on a given schedule.

    The same arguments give the same run. Runs that the agent starts itself are simulated too. Plain
    tools run in the task; `flowtrio`'s logger is silent meanwhile.

    Args:
      agent: An `Agent`, or any ``async def agent(ctx, message)``.
      message: What the user says: a text, or a list of `Text`, `Image` and `File`.
      model: Asked by every agent of the run instead of its own model; None leaves each its own.
      reader: Who reads and answers; at once, to the end, and saying yes by default.
      faults: What strikes the run, and when; nothing by default.
      schedule: Who goes next: a `Schedule`, its choices, or a seed to make one from; spawn order by
        default.
      app: The agent and its tools find it as ``ctx.app``.
      limits: Limits of the run.
      history: The conversation so far.
      telemetry: Hears what the run records; runs that the agent starts itself have their engine's.

    Raises:
      RuntimeError: called inside a Trio loop, or this release of Trio cannot be simulated.
      RealWorld: the run asked for a thread or a socket.
      AssertionError: the run has no end.

    """
    if trio.lowlevel.in_trio_run():
        raise RuntimeError("simulate runs a Trio loop of its own: call it from a plain def")
    check_scheduler()
    drawn = model if isinstance(model, SimulatedModel) else _model_of(agent)
    case = Case(
        reader=Reader() if reader is None else reader,
        faults=tuple(faults or ()),
        schedule=as_schedule(schedule),
        model=drawn,
    )
    world = _World(keep([], case), model, drawn)
    with exploring(world.case.schedule) as chooser, _silence(), _no_threads(world):
        world.chooser = chooser
        options = {"limits": limits, "history": history, "app": app}
        main = _Main(world, agent, message, options, telemetry)
        trio.run(main.run, clock=virtual_clock(), instruments=[world.striker])
    return main.give(chooser)


def as_schedule(given: Schedule | Iterable[int] | int | None) -> Schedule:
    """What is given for a schedule, as one."""
    if isinstance(given, int):
        return Schedule.from_seed(given)
    return given if isinstance(given, Schedule) else Schedule(given or ())


def _model_of(agent: object) -> SimulatedModel | None:
    client = getattr(agent, "llm_client", None)
    return client if isinstance(client, SimulatedModel) else None


class _World:
    """What the run meets in the place of the world; see `flowtrio._run._simulation`."""

    schedule_every = 1

    def __init__(
        self, played: Played, model: LLMClient | None, drawn: SimulatedModel | None
    ) -> None:
        self.played = played
        self.case = case = played.cases[-1]
        self.striker = Striker(MOST_STEPS)
        self.stream: EventStream | None = None
        self.chooser: Chooser | None = None
        self.most_undelivered = 0
        self.closed_at: float | None = None
        self.refused: list[str] = []
        """What of the real world was asked for."""
        self._model = model
        self._drawn = drawn
        """The model that the case has, too; when that is played again, in the case's form."""
        self.faults = Log()
        self.tool_faults = ToolFaults(case.faults, self.striker, self.faults)
        self.open_steps = 0
        """Steps of the scheduler before the run began to end."""
        self._numbers = itertools.count()

    def wall_clock(self) -> float:
        return trio.current_time()

    def make_run_id(self) -> str:
        return f"run{next(self._numbers)}"

    def client(self, client: LLMClient) -> LLMClient:
        client = client if self._model is None else self._model
        if client is self._drawn and self.case.model is not None:
            return self.case.model
        return client

    async def run_tool(self, call_id: str, tool: Function, arguments: dict[str, Any]) -> Any:
        async def function() -> Any:
            if tool.is_async:
                return await tool.fn(**arguments)
            await trio.lowlevel.checkpoint()
            return call_plain(tool, arguments)

        assert self.stream is not None
        stream = self.stream
        assert self.chooser is not None
        with self.chooser.calling(call_id):
            return await self.tool_faults.run(function, lambda: stream.cancel_tool(call_id))

    def watch(self) -> None:
        """Look at the run between two steps of the scheduler."""
        assert self.stream is not None
        log = run_of(self.stream).log
        self.most_undelivered = max(self.most_undelivered, log.channel.undelivered)
        if not log.is_closing:
            self.open_steps = self.striker.steps
        elif self.closed_at is None:
            self.closed_at = trio.current_time()

    def refuse(self, what: str) -> NoReturn:
        self.refused.append(what)
        raise RealWorld(_refusal(what))


def _refusal(what: str) -> str:
    return (
        f"a simulated run asked for {what}, whose time nobody can foresee. Give the simulation "
        "something else in its place: a model with model=, what the tools use with app="
    )


@attrs.define(eq=False)
class _Main:
    """The simulation's one loop."""

    world: _World
    agent: AgentLike
    message: str | Sequence[Part]
    options: dict[str, Any]
    telemetry: Telemetry | None
    stream: EventStream | None = None
    result: Any = None
    error: RunFailed | RunCancelled | None = None
    left_alive: list[str] = attrs.Factory(list)
    begun_at: int = 0
    """Steps of the scheduler before the run."""
    is_over: bool = False

    async def run(self) -> None:
        world = self.world
        trio.lowlevel.current_task().name = "the reader"
        trio.socket.set_custom_socket_factory(_NoSockets(world))
        trio.socket.set_custom_hostname_resolver(_NoNames(world))
        root = trio.lowlevel.current_root_task()
        assert root is not None
        before = set(_below(root))
        with world.striker.scope:
            with trio.move_on_after(LONGEST):
                await self._play()
                self.is_over = True
        self.left_alive = sorted(task.name for task in set(_below(root)) - before)

    async def _play(self) -> None:
        world = self.world
        events, reader = world.played.events, world.case.reader
        async with StreamEngine(simulation=world, telemetry=self.telemetry) as engine:
            self.stream = world.stream = stream = engine.stream(
                self.agent, self.message, **self.options
            )
            world.striker.watch = world.watch
            timeout = LONGEST if reader.times_out is None else reader.times_out
            # The run's first event is recorded before anything can strike: there is no checkpoint
            # between here and there.
            with trio.move_on_after(timeout) as scope:
                self._arm(stream, scope)
                with suppress(ReaderLeft):
                    await reader.read(stream, events)
            if not scope.cancelled_caught:
                # The reader left before it met the cancellation.
                struck = world.faults.struck
                struck[:] = [fault for fault in struck if fault.kind != "cut_off"]
            await stream.aclose()
            await _read_rest(stream, events)
        try:
            self.result = await stream.result()
        except (RunFailed, RunCancelled) as exc:
            self.error = exc

    def _arm(self, stream: EventStream, scope: trio.CancelScope) -> None:
        world = self.world
        self.begun_at = world.striker.steps

        def cut_off() -> bool:
            if scope.cancel_called or run_of(stream).is_closing:
                return False
            scope.cancel()
            return True

        actions: dict[str, Callable[[], bool]] = {
            "cancel": lambda: stream.cancel("a drawn fault"),
            "cut_off": cut_off,
        }

        def strike(fault: Fault) -> None:
            world.faults.came.append(fault)
            if actions[fault.kind]():
                world.faults.struck.append(fault)

        for fault in world.case.faults:
            if fault.kind in actions:
                world.striker.strike_at(self.begun_at + fault.at, partial(strike, fault))

    def give(self, chooser: Chooser) -> SimulatedRun:
        if self.world.refused:
            raise RealWorld(_refusal(self.world.refused[0]))
        if not self.is_over:
            raise AssertionError(
                f"the run has no end: {self.world.striker.steps} steps, "
                f"{len(self.world.played.events)} events read"
            )
        assert self.stream is not None
        run = SimulatedRun(
            events=self.world.played.events,
            result=self.result,
            error=self.error,
            messages=self.stream.messages,
            schedule=chooser.played,
            deviations=chooser.deviations,
            left_alive=self.left_alive,
            most_undelivered=self.world.most_undelivered,
            closing_seconds=self.world.played.events[-1].timestamp - (self.world.closed_at or 0.0),
            app=self.options["app"],
            struck=self.world.faults.struck,
            came=self.world.faults.came,
            places=Places(self.world.open_steps - self.begun_at, self.world.tool_faults.waits),
        )
        played = self.world.played
        played.notes += told_faults(run.struck)
        played.notes += [str(deviation) for deviation in chooser.deviations]
        # Shorter, and the same run: a test may simulate thousands.
        played.cases[-1] = attrs.evolve(self.world.case, schedule=run.schedule)
        return run


async def _read_rest(stream: EventStream, events: list[AgentEvent]) -> None:
    with suppress(trio.EndOfChannel):
        while True:
            events += await stream.receive_batch()


def _below(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    yield task
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _below(child)


# The real world is refused


class _NoSockets(trio.abc.SocketFactory):
    def __init__(self, world: _World) -> None:
        self._world = world

    def socket(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._world.refuse("a socket")


class _NoNames(trio.abc.HostnameResolver):
    def __init__(self, world: _World) -> None:
        self._world = world

    async def getaddrinfo(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._world.refuse("a host's address")

    async def getnameinfo(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._world.refuse("a host's name")


@contextmanager
def _no_threads(world: _World) -> Iterator[None]:
    """Refuse worker threads to this thread's Trio loops.

    Trio's functions for it are often imported by name; all of them take their threads from one
    place.
    """
    names = trio.to_thread.run_sync.__globals__
    usual = names["start_thread_soon"]

    ours = threading.get_ident()

    def refuse(*args: Any, **kwargs: Any) -> None:
        if threading.get_ident() == ours:
            world.refuse("a worker thread")
        usual(*args, **kwargs)

    names["start_thread_soon"] = refuse
    try:
        yield
    finally:
        names["start_thread_soon"] = usual


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the run's own log lines to itself: a thousand examples would bury what a test says."""
    logger = logging.getLogger("flowtrio")
    was, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = was
