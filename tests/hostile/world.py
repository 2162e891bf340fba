"""Does what a hostile program says, and writes down what could be seen of it.

Nothing here judges by the runtime's own rules: events are copied as they are delivered, and beside
them stands what the program's own code saw: when it waited and was let go, what was executed with
which arguments, what a verb or control answered.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import inspect
import json
import logging
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from random import Random
from typing import Any

import attrs
import trio
import trio.testing

import flowtrio
from flowtrio import (
    Agent,
    Chunk,
    FlowtrioError,
    InputDeclined,
    Limits,
    LocalProtocolError,
    MemoryConversations,
    MemoryStore,
    ModelLimits,
    Orchestrator,
    RunCancelled,
    RunContext,
    RunFailed,
    StreamEngine,
    ToolArgs,
    ToolCall,
    ToolFailed,
    Usage,
    project,
    tool,
)

from . import odd, people
from .hooks import is_denial, leaves, make_hooks
from .programs import Program, Statement, Statements
from .telemetry import HostileTelemetry

FAR = 10_000.0
"""Seconds of virtual time after which what still waits is said to wait for ever."""
TICKS = 100_000
"""Steps of the scheduler after which a program is said to turn in circles."""

HISTORY = (
    {"role": "user", "content": "before"},
    {"role": "assistant", "content": "yes"},
)


class Stuck(BaseException):
    """The program did not end."""


class Lost(Exception):
    """What the world itself raises to leave."""


@attrs.define(eq=False)
class Watch:
    """One run, and all that was seen of it."""

    world: World
    name: str
    limits: dict[str, Any]
    mode: str = "events"
    message: Any = "go"
    stream: Any = None
    run_id: str = ""
    log: list[dict[str, Any]] = attrs.Factory(list)
    """Copies of the events, made as they were delivered."""
    is_whole: bool = True
    """Whether *log* is all that was recorded: nobody else read any of it."""
    peak: int = 0
    """Undelivered events at most, whenever somebody looked."""
    silent: int = 0
    silent_peak: int = 0
    """Messages and model turns that were open at once, at most."""
    controls: list[dict[str, Any]] = attrs.Factory(list)
    read: Counter[str] = attrs.Factory(Counter)
    """Events that its reader has read, by type."""
    posts: list[dict[str, Any]] = attrs.Factory(list)
    """What was said while it went on."""
    edits: dict[str, Any] = attrs.Factory(dict)
    """Arguments that a person gave calls instead of their own."""
    hooks: Counter[str] = attrs.Factory(Counter)
    """What was done around tools and models."""
    hooked: dict[str, dict[str, Any]] = attrs.Factory(dict)
    """How the outermost hook around each call was left, and what it gave."""
    has_tampered: bool = False
    """Whether a hook changed what a model was asked."""
    has_model_hooks: bool = False
    left: dict[str, Any] | None = None
    """When its reader left, and how many events there were."""
    alive: Counter[str] = attrs.Factory(Counter)
    """Bodies of agents, tools and clients that run now."""
    effects: list[dict[str, Any]] = attrs.Factory(list)
    failed: list[dict[str, Any]] = attrs.Factory(list)
    """What `ToolFailed` said of calls."""
    handed: dict[int, Any] = attrs.Factory(dict)
    """Values of CUSTOM and PROGRESS as they were handed in, by number."""
    given: dict[int, Any] = attrs.Factory(dict)
    """Arguments as a model or body gave them, by number."""
    messages: list[dict[str, Any]] | None = None
    history: list[dict[str, Any]] = attrs.Factory(list)
    outcome: str | None = None
    """What `result` raised, or ``completed``."""
    recorded: int = -1
    """Events in the end, by the statistics; -1 if nobody could look."""
    views: dict[str, list[dict[str, Any]]] = attrs.Factory(dict)
    cuts: int = 0
    """Replies whose client came to its end without a final chunk."""
    agents: int = 0
    is_hosted: bool = False
    """Whether a follower reads it out of a store."""
    is_kept: bool = False
    """Whether it belongs to a conversation of an orchestrator."""
    began: bool = False

    open: dict[str, None] = attrs.Factory(dict)
    """Calls and questions that were told, or ran, and whose end was not told yet."""

    def sample(self) -> None:
        if self.stream is not None and not self.is_hosted:
            self.peak = max(self.peak, self.stream.statistics().undelivered)

    def events(self) -> int:
        """How many there are by now; -1 if nobody can look."""
        if self.stream is None or self.is_hosted:
            return -1
        return int(self.stream.statistics().events)

    def take(self, event: Any) -> None:
        self.sample()
        key = event.data.get("call_id") or event.data.get("request_id")
        if event.type in ("tool_call_end", "input_resolved"):
            self.open.pop(key, None)
        elif event.type in ("approval_required", "tool_call_start", "input_required"):
            self.open[key] = None
        self.log.append(_copy_of(event))


def _copy_of(event: Any) -> dict[str, Any]:
    return {
        "type": str(event.type),
        "data": copy.deepcopy(event.data),
        "seq": event.seq,
        "run_id": event.run_id,
        "agent": event.agent,
        "timestamp": event.timestamp,
    }


@attrs.frozen(eq=False)
class Env:
    """Where a statement stands."""

    world: World
    watch: Watch
    ctx: Any
    reach: frozenset[Any] = frozenset()
    """Whose cancellation gets here: runs and calls without a shield between them and this."""
    base: frozenset[Any] = frozenset()
    """The same where the body around this begins."""
    in_tool: bool = False
    writer: Any = None
    arguments: Any = None

    def inside(self, **changes: Any) -> Env:
        return attrs.evolve(self, **changes)


class World:
    """Plays one program."""

    def __init__(self, program: Program, *, threads: bool = False, telemetry: Any = None) -> None:
        self.program = program
        self.threads = threads
        self.listener = telemetry
        """Hears of the first run in the place of the program's own."""
        self.problems: list[str] = []
        self.watches: list[Watch] = []
        self.waits: list[tuple[frozenset[Any], float, float]] = []
        self.planned: list[BaseException] = []
        """What the program raised, or a verb did before: it may come out anywhere."""
        self.kept: list[BaseException] = []
        self.writers: list[Any] = []
        self.streams: list[Any] = []
        self.late: list[tuple[Env, Statements]] = []
        self.systems = 0
        self.threads_left: list[threading.Thread] = []
        self.is_stuck = False
        self.ticks = 0
        self.made = 0
        self.counted = 0
        """Numbers of what people say, which nothing else has."""
        self.told: list[dict[str, Any] | None] = []
        """What the telemetry of the first run was told; None where it raised."""
        self.telemetry: Counter[str] = Counter()
        """What it did."""
        self.innocent: list[dict[str, Any]] | None = None
        self.is_over = False
        self.has_struck = False
        """Whether a store raised, or took its time."""
        self.is_late = False
        """Whether its nursery has closed."""
        self.has_lied = False
        """Whether a model gave what is no chunk."""
        self.nursery: Any = None
        self.orchestrator: Any = None
        self.is_broken = False
        """Whether there is nothing left to be judged: the loop broke, hung or was interrupted."""

    def records(self) -> list[dict[str, Any]]:
        """What was seen, as plain data for the judge."""
        return [
            {
                "name": watch.name,
                "log": watch.log,
                "whole": watch.is_whole and watch.began and watch.stream is not None,
                "mode": watch.mode,
                "limits": watch.limits,
                "peak": watch.peak,
                "silent": watch.silent_peak + watch.agents,
                "controls": watch.controls,
                "posts": watch.posts,
                "edits": watch.edits,
                "hooked": watch.hooked,
                "has model hooks": watch.has_model_hooks,
                "strict": self._is_strict(watch),
                "threads": self.threads,
                "left": watch.left,
                "effects": watch.effects,
                "failed": watch.failed,
                "handed": watch.handed,
                "given": watch.given,
                "cuts": watch.cuts,
                "struck": self.has_struck,
                "messages": watch.messages,
                "history": watch.history,
                "outcome": watch.outcome,
                "recorded": watch.recorded,
                "views": watch.views,
                "waits": self.waits,
                "told": self.told if self._is_heard(watch) else None,
                "times agree": not (self.threads or watch.is_hosted or watch.is_kept)
                and "wall_clock" not in self.program.engine,
            }
            for watch in self.watches
        ]

    def _is_heard(self, watch: Watch) -> bool:
        is_its_own = "telemetry" in self.program.engine and self.listener is None
        has_heard = is_its_own and not self.telemetry["refused"]
        return watch.name == "main" and has_heard

    def _is_strict(self, watch: Watch) -> bool:
        """Whether each request of its root has to have all that the user said until then."""
        is_agent = self.program.agent[0] == "agent"
        return watch.name == "main" and is_agent and not watch.has_tampered

    # Findings

    def problem(self, law: str, text: str) -> None:
        if not (self.is_over or self.is_stuck):
            # What is torn down after that says nothing more.
            self.problems.append(f"{law} {text}")

    def plan(self, exc: BaseException) -> BaseException:
        self.planned += [exc, *leaves(exc)]
        return exc

    def is_planned(self, exc: BaseException) -> bool:
        if isinstance(exc, RuntimeError) and isinstance(exc.__cause__, StopAsyncIteration):
            # What Python makes of it where a generator raises it, before anybody can see it.
            exc = exc.__cause__
        return any(known is exc for known in self.planned)

    def check_verb(self, verb: str, exc: BaseException) -> None:
        """A verb raised: is it anything that a caller may expect?"""
        for leaf in leaves(exc):
            if self.is_planned(leaf):
                continue
            # A message may be used by hand after its end; the rest is the runtime's to get right,
            # but where it says what a caller did wrong.
            is_refused = isinstance(leaf, LocalProtocolError) and "can't emit" in str(leaf)
            if is_refused and verb not in ("write", "message"):
                self.problem("L12", f"{verb} raised {_told(leaf)}")
            if isinstance(leaf, _EXPECTED):
                continue
            if isinstance(leaf, trio.Cancelled):
                continue
            if verb == "model" and isinstance(leaf, Exception):
                continue
            if verb == "delegate" and self.has_lied and isinstance(leaf, Exception):
                continue
            self.problem("L12", f"{verb} raised {_told(leaf)}")
        self.plan(exc)

    def check_escape(self, where: str, exc: BaseException) -> None:
        """Something came out where only what the program raised may."""
        for leaf in leaves(exc):
            if isinstance(leaf, trio.Cancelled):
                self.problem("L12", f"a bare Cancelled came out of {where}")
            elif not self.is_planned(leaf) and not isinstance(leaf, Lost):
                self.problem("L12", f"{where} raised {_told(leaf)}")

    async def contain(self, where: str, fn: Callable[..., Awaitable[Any]], *args: Any) -> None:
        try:
            await fn(*args)
        except BaseException as exc:
            # Statements may raise again what they kept: then it is theirs, a Cancelled too.
            if fn is not perform or not any(known is exc for known in self.kept):
                self.check_escape(where, exc)

    def forget(self) -> None:
        """Let go of what the loop left behind when it broke."""
        self.nursery = self.orchestrator = None
        for held in (self.planned, self.kept, self.writers, self.streams, self.late):
            held.clear()  # type: ignore[attr-defined]
        for watch in self.watches:
            watch.stream = None

    # The whole

    async def main(self) -> None:
        async with trio.open_nursery() as outer:
            outer.start_soon(self._watch_time)
            async with trio.open_nursery() as self.nursery:
                self.nursery.start_soon(self.contain, "an innocent run", self._innocent)
                self.nursery.start_soon(self.contain, "a click", self._clicks)
                self.nursery.start_soon(self.contain, "the reader", self._hostile)
            self.is_late = True
            for env, statements in self.late:
                await self.contain("a late verb", perform, env, statements)
            while self.systems or any(watch.alive.total() for watch in self.watches):
                await trio.sleep(0.01 if self.threads else 0.5)
            self.streams.clear()
            for watch in self.watches:
                await self.contain("the end", self._finish, watch)
            outer.cancel_scope.cancel()

    async def _watch_time(self) -> None:
        await trio.sleep(5.0 if self.threads else FAR)
        self.problem("L12", f"waits for ever: {'; '.join(_waiting_tasks())}")
        self.is_stuck = True
        await trio.sleep(1)

    def tick(self) -> None:
        """Called in each step of the scheduler."""
        self.ticks += 1
        if self.ticks > TICKS and not self.threads and not self.is_stuck:
            self.problem("L12", f"turns in circles: {'; '.join(_waiting_tasks())}")
            self.is_stuck = True
        if self.is_stuck:
            raise Stuck

    async def _finish(self, watch: Watch) -> None:
        """Look at a run once more when all is over."""
        stream = watch.stream
        if stream is None or not watch.began or watch.is_hosted:
            return
        watch.recorded = watch.events()
        if watch.is_whole and watch.mode == "events":
            with suppress(trio.EndOfChannel):
                while True:
                    for event in await stream.receive_batch():
                        watch.take(event)
            watch.recorded = watch.events()
        watch.messages = copy.deepcopy(stream.messages)
        for message in stream.messages:
            _wreck(message)
        if json.dumps(stream.messages, default=str) != json.dumps(watch.messages, default=str):
            self.problem("L11", "what a caller changes in stream.messages changes the conversation")
        watch.outcome = await self._outcome(stream)
        if watch.is_whole and watch.mode == "events":
            watch.views = self._views(watch)

    async def _outcome(self, stream: Any) -> str:
        try:
            await stream.result()
        except RunFailed:
            return "error"
        except RunCancelled:
            return "cancelled"
        except (KeyboardInterrupt, SystemExit) as exc:
            self.check_escape("result", exc)
            return await self._outcome(stream)
        return "completed"

    def _views(self, watch: Watch) -> dict[str, list[dict[str, Any]]]:
        events = [
            flowtrio.AgentEvent(**{**event, "type": flowtrio.EventType(event["type"])})
            for event in watch.log
        ]
        return {
            mode: [
                {"seq": e.seq, "type": str(e.type), "data": e.data} for e in project(mode, events)
            ]
            for mode in ("updates", "messages", "values")
        }

    # Others

    async def _innocent(self) -> None:
        engine = StreamEngine(make_run_id=lambda: "innocent", wall_clock=lambda: 0.0)
        log = []
        pace = 0.01 if self.threads else 1.0
        async with engine.stream(_innocent(pace), "hello", app=pace) as stream:
            async for event in stream:
                log.append({"type": str(event.type), "data": event.data, "seq": event.seq})
        self.innocent = log

    async def _clicks(self) -> None:
        for when, statement in self.program.clicks:
            await trio.sleep(when)
            if self.watches:
                self._anywhere(partial(self.click, self.watches[0], statement))

    def click(self, watch: Watch, statement: Statement) -> None:
        if statement[0] == "post":
            people.post(self, watch, statement)
        else:
            self.control(watch, *statement[1:])

    def _anywhere(self, fn: Callable[[], None]) -> None:
        if not self.threads:
            return fn()
        thread = threading.Thread(target=fn, daemon=True)
        self.threads_left.append(thread)
        thread.start()
        return None

    # The hostile run

    def _hooks(self) -> dict[str, Any]:
        """Those around all that the hostile run does, and who hears of it."""
        what = self.program.engine
        hooks = make_hooks(what.get("hooks", ()), lambda: self._root(self.watches[0], None, False))
        if self.listener is not None:
            hooks["telemetry"] = self.listener
        elif "telemetry" in what:
            hooks["telemetry"] = HostileTelemetry(self, what["telemetry"])
        return hooks

    def hear(self, event: Any) -> None:
        """The telemetry of the first run is told of an event."""
        self.told.append(_copy_of(event))

    def engine(self, **hooks: Any) -> StreamEngine:
        options: dict[str, Any] = {
            "make_run_id": self._make_run_id,
            "wall_clock": trio.current_time,
            **hooks,
        }
        what = self.program.engine
        if "wall_clock" in what:
            options["wall_clock"] = _CLOCKS[what["wall_clock"]]
        if "prices" in what:
            options["prices"] = {"m": {"prompt": what["prices"], "completion": what["prices"]}}
        return StreamEngine(**options)

    def _make_run_id(self) -> str:
        self.made += 1
        return f"r{self.made}"

    def watch(self, name: str, agent: Any, env: Env | None, **options: Any) -> Watch:
        """Make a stream and what watches it."""
        program = self.program
        watch = Watch(self, name, program.limits)
        self.watches.append(watch)
        if env is None:
            watch.has_model_hooks = any(h[1] == "model" for h in program.engine.get("hooks", ()))
        watch.mode = options.get("mode") or "events"
        message = options.pop("message", "go")
        watch.message = odd.parts() if message == "parts" else message
        history = [dict(message) for message in HISTORY] if "history" in program.engine else []
        watch.history = copy.deepcopy(history)
        engine = options.pop("engine", None) or self.engine()
        fn = self.agent(agent, self._root(watch, env, options.pop("is_inside", False)), watch)
        if env is None and program.policy.get("form") in ("orchestrator", "hosted"):
            return self._keep(watch, fn)
        watch.stream = engine.stream(
            fn, watch.message, limits=Limits(**program.limits), history=history, app=self, **options
        )
        watch.run_id = watch.stream.run_id
        return watch

    def _keep(self, watch: Watch, fn: Any) -> Watch:
        """Let an orchestrator run it, whose stores may raise."""
        faults = self.program.engine.get("store", ())
        watch.run_id = self._make_run_id()
        watch.history = []
        self.orchestrator = Orchestrator(
            agents=[fn],
            limits=Limits(**self.program.limits),
            store=HostileStore(self, faults),
            conversations=HostileConversations(self, faults),
            app=self,
            **self._hooks(),
        )
        if self.program.policy["form"] == "hosted":
            watch.is_hosted = True
        else:
            watch.is_kept = True
            watch.stream = self.orchestrator.process_stream(
                watch.message, session_id="s", run_id=watch.run_id, mode=watch.mode
            )
        return watch

    def _root(self, watch: Watch, env: Env | None, is_inside: bool) -> Env:
        reach = frozenset() if env is None or not is_inside else env.reach
        reach |= {("run", watch.name)}
        return Env(self, watch, None, reach, reach)

    async def _hostile(self) -> None:
        program, policy = self.program, self.program.policy
        engine = self.engine(**self._hooks())
        options = {"engine": engine, "message": program.message, "mode": policy.get("mode")}
        try:
            watch = self.watch("main", program.agent, None, **options)
        except (TypeError, ValueError):
            # What cannot be made fit may be refused.
            self.watches.clear()
            return
        steps: dict[int, list[Statement]] = {}
        for number, step in program.reader:
            steps.setdefault(number, []).append(step)
        form = policy.get("form", "block")
        if form == "hosted":
            return await Hosting(self).read(watch, steps, policy)
        with ExitStack() as stack:
            if "patience" in policy:
                stack.enter_context(trio.move_on_after(policy["patience"]))
            if form == "engine":
                try:
                    async with engine:
                        await self.read_bare(watch, steps, policy)
                finally:
                    self.check_left(watch)
            elif form == "bare":
                await self.read_bare(watch, steps, policy)
            else:
                await self.read_block(watch, steps, policy)

    async def read_block(self, watch: Watch, steps: Any, policy: Any) -> None:
        raised: BaseException | None = None
        watch.began = True
        try:
            async with watch.stream as stream:
                try:
                    await self._read(watch, stream, steps, policy)
                except BaseException as exc:
                    raised = exc
                    raise
                finally:
                    self._leaves(watch)
        except BaseException as exc:
            # The body's own exceptions leave bare.
            if isinstance(exc, BaseExceptionGroup) and exc is not raised:
                self.problem("L2", f"a group came out of the block: {_told(exc)}")
            raise
        finally:
            self.check_left(watch)

    async def read_bare(self, watch: Watch, steps: Any, policy: Any) -> None:
        watch.began = True
        stream = watch.stream
        try:
            is_dropped = await self._read(watch, stream, steps, policy)
        except BaseException:
            self._leaves(watch)
            with trio.CancelScope(shield=True):
                await stream.aclose()
            self.check_left(watch)
            raise
        self._leaves(watch)
        if is_dropped:
            watch.stream = None
            watch.is_whole = False
        else:
            await stream.aclose()
            self.check_left(watch)

    def _leaves(self, watch: Watch) -> None:
        watch.left = {"time": trio.current_time(), "events": watch.events()}

    def check_left(self, watch: Watch) -> None:
        alive = sorted(name for name, count in watch.alive.items() if count)
        if alive:
            self.problem("L5", f"alive when run {watch.name} had been left: {', '.join(alive)}")
        is_ours = watch.is_whole and watch.events() > 0
        if is_ours and str(watch.stream.status) not in _TERMINAL:
            self.problem("L5", f"run {watch.name} is {watch.stream.status} when it had been left")

    async def _read(self, watch: Watch, stream: Any, steps: Any, policy: Any) -> bool:
        """Read to the end, or until a step leaves; True if the stream is to be dropped."""
        number = 0
        while True:
            for step in steps.get(number, ()):
                match step[0]:
                    case "break":
                        return False
                    case "drop":
                        return True
                    case _:
                        await self._step(watch, stream, step)
            if policy.get("pause"):
                await trio.sleep(policy["pause"])
            try:
                events = await self._next(watch, stream, policy)
            except (StopAsyncIteration, trio.EndOfChannel):
                return False
            for event in events:
                watch.take(event)
                number += 1
                people.react(self, watch, event, policy)
                if policy.get("mutates") and watch.mode == "events" and not watch.is_hosted:
                    # Snapshots share structure, and followers events: both say so.
                    _wreck(event.data)

    async def _next(self, watch: Watch, stream: Any, policy: Any) -> list[Any]:
        while True:
            with trio.move_on_after(policy.get("poll") or float("inf")):
                try:
                    if policy.get("batch"):
                        return list(await stream.receive_batch())
                    return [await stream.__anext__()]
                except trio.BusyResourceError:
                    if watch.is_whole:
                        raise
                    # The program lets somebody else read too.
                    raise StopAsyncIteration from None

    async def _step(self, watch: Watch, stream: Any, step: Statement) -> None:
        if watch.is_hosted and step[0] in ("aclose", "result", "result_beside", "again"):
            return
        if self.is_late and step[0] in ("result_beside", "second_reader"):
            return
        match step:
            case ("raise", number):
                raise self.plan(odd.FAILURES[number]())
            case ("pause", seconds):
                await trio.sleep(seconds)
            case ("second_reader",):
                watch.is_whole = False
                self.nursery.start_soon(self.contain, "a second reader", self._read_too, watch)
            case ("aclose",):
                await stream.aclose()
            case ("result",):
                await self._read_away(watch, stream)
            case ("result_beside",):
                watch.is_whole = False
                self.nursery.start_soon(self.contain, "result", self._read_away, watch, stream)
            case ("again",) if watch.events() > 0:
                try:
                    async with stream:
                        self.problem("L12", "a stream was entered that had been started")
                except RuntimeError:
                    pass
            case ("control" | "post", *_):
                self._anywhere(partial(self.click, watch, step))
            case ("again",):
                pass
            case _:
                raise AssertionError(step)

    async def _read_too(self, watch: Watch) -> None:
        watch.is_whole = False
        try:
            if watch.stream is not None:
                await watch.stream.__anext__()
        except (trio.BusyResourceError, StopAsyncIteration):
            pass

    async def _read_away(self, watch: Watch, stream: Any) -> None:
        watch.is_whole = False
        try:
            await stream.result()
        except (RunFailed, RunCancelled):
            pass
        except RuntimeError as exc:
            # From inside its own run it may be refused.
            self.plan(exc)
            raise

    # Controls

    def control(self, watch: Watch, name: str, key: Any = None, *extra: Any) -> bool:
        """Call one; gives whether it took effect."""
        if watch.stream is None:
            return False
        if isinstance(key, tuple) and key[0] == "open":
            known = list(watch.open) or ["nothing"]
            key = known[key[1] % len(known)]
        key, extra = _odd(key, odd.IDS), tuple(_odd(value, odd.IDS) for value in extra)
        # From another thread nobody can say how many there are when it takes effect.
        before = -1 if self.threads else watch.events()
        try:
            took = getattr(watch.stream, name)(key, *extra)
        except (TypeError, ValueError):
            return False
        except BaseException as exc:
            self.problem("L12", f"control {name} raised {_told(exc)}")
            return False
        if type(took) is not bool:
            self.problem("L12", f"control {name} gave {took!r}")
        watch.controls.append(
            {
                "time": None if self.threads else trio.current_time(),
                "name": name,
                "key": str.__str__(key) if isinstance(key, str) else None,
                "extra": extra[0] if extra and isinstance(extra[0], str) else None,
                "took": took,
                "events": before,
            }
        )
        return bool(took)

    # Agents, clients, tools

    def agent(self, spec: tuple[Any, ...], env: Env, watch: Watch) -> Any:
        """Make an agent that does what *spec* says."""
        kind, *rest = spec
        if kind == "body":

            async def body(ctx: RunContext, message: str) -> Any:
                self._effect(watch, "agent", agent=ctx.agent)
                with self._living(watch, f"agent {ctx.agent}"):
                    return await perform(env.inside(ctx=ctx), rest[0])

            return body
        client, tools, *hooks = rest
        watch.agents += 1
        made = [self.make_tool(env, tool) for tool in tools]
        around = make_hooks(hooks[0] if hooks else (), lambda: env)
        watch.has_model_hooks = watch.has_model_hooks or "around_model" in around
        return Agent(llm_client=HostileClient(env, client), tools=made, name="assistant", **around)

    @contextmanager
    def _living(self, watch: Watch, name: str) -> Iterator[None]:
        watch.alive[name] += 1
        try:
            yield
        finally:
            watch.alive[name] -= 1

    def _effect(self, watch: Watch, kind: str, **what: Any) -> None:
        now = trio.current_time()
        watch.effects.append({"kind": kind, "time": now, "events": watch.events(), **what})

    def make_tool(self, env: Env, spec: tuple[Any, ...]) -> Any:
        if spec[0] == "toolset":
            return HostileToolset(env, spec)
        _, name, options, statements = spec
        # One statement may be under way more than once, in several runs and calls: so who calls
        # leaves word in the context, which the task that runs the tool inherits.
        _tools_here.set({**_tools_here.get(), name: (env, statements)})
        return _tool(name, tuple(sorted(options.items())))

    async def run_tool(self, name: str, ctx: Any, n: int, data: Any) -> Any:
        if name not in _tools_here.get():
            self.problem("world", f"nobody left word of tool {name}")
        env, statements = _tools_here.get()[name]
        if env.watch.run_id != ctx.run_id:
            self.problem("world", f"tool {name} of {env.watch.run_id} runs in {ctx.run_id}")
        watch, call_id = env.watch, _call_id(ctx)
        given = {"n": n} if data is None else {"n": n, "data": copy.deepcopy(data)}
        watch.open[call_id] = None
        self._effect(watch, "tool", call_id=call_id, name=name, arguments=given)
        key = ("call", watch.name, call_id)
        reach = env.reach | {key}
        inner = env.inside(ctx=ctx, reach=reach, base=reach, in_tool=True, arguments=data)
        with self._living(watch, f"tool {name}"):
            try:
                value = await perform(inner, statements)
            except BaseException as exc:
                _note_denial(watch, call_id, exc)
                raise
            _wreck(data)
            return value

    def run_plain(self, name: str, n: int, is_abandoned: bool) -> Any:
        """What a plain tool does, in a worker thread."""
        env, _ = _tools_here.get()[name]
        watch = env.watch
        with contextlib.nullcontext() if is_abandoned else self._living(watch, f"tool {name}"):
            for click in self.program.clicks[:2]:
                self.click(watch, click[1])
                time.sleep(0.002)
        return n

    def join_threads(self) -> None:
        """Nobody waits for ever: a control called in a thread neither."""
        for thread in self.threads_left:
            thread.join(2.0)
            if thread.is_alive():
                self.problem("L12", "a control that was called in a thread waits for ever")


_tools_here: ContextVar[dict[str, tuple[Env, Statements]]] = ContextVar("tools", default={})  # noqa: B039


def _note_denial(watch: Watch, call_id: str, exc: BaseException) -> None:
    """A tool lets out what was raised around a model inside of it: its call is denied by itself."""
    if is_denial(exc):
        watch.hooked[call_id] = {"how": "denied", "value": None}


def _call_id(ctx: Any) -> str:
    found = getattr(ctx, "call_id", None) or ctx._frame.call_id
    return str(found)


_TERMINAL = ("completed", "error", "cancelled")
_EXPECTED = (FlowtrioError, trio.ClosedResourceError, TypeError, ValueError, TimeoutError)


def _never(*_: Any) -> float:
    raise ZeroDivisionError("the wall clock")


_CLOCKS: dict[str, Any] = {"raises": _never, "nan": lambda: float("nan"), "text": lambda: "noon"}


def _told(exc: BaseException) -> str:
    try:
        text = f"{type(exc).__name__}: {exc}"
    except Exception:
        text = type(exc).__name__
    frames = []
    traceback = exc.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        frames.append(f"{code.co_filename.rpartition('/')[2]}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return f"{text[:200]} ({' < '.join(reversed(frames[-4:]))})"


def _odd(value: Any, table: tuple[Callable[[], Any], ...]) -> Any:
    if isinstance(value, tuple) and len(value) == 2 and value[0] == "odd":
        return table[value[1]]()
    return value


def _wreck(value: Any, depth: int = 0) -> None:
    """Change in place whatever can be changed."""
    if depth > 8:
        return
    if isinstance(value, dict):
        for inner in value.values():
            _wreck(inner, depth + 1)
        value["wrecked"] = True
        if type(value.get("n")) is int:
            value["n"] = 666
        if "content" in value:
            value["content"] = "wrecked"
    elif isinstance(value, list):
        for inner in value:
            if inner is not value:
                _wreck(inner, depth + 1)
        value.append("wrecked")


def _waiting_tasks() -> list[str]:
    """Names of the tasks that are not ours, with where they stand."""
    root = trio.lowlevel.current_root_task()
    found: list[str] = []

    def walk(task: Any) -> None:
        for nursery in task.child_nurseries:
            for child in nursery.child_tasks:
                where = _where(child.coro)
                if not (child.name.startswith("trio.") or "_nested_child_finished" in where):
                    found.append(f"{child.name.rpartition('.')[2]} in {where}")
                walk(child)

    if root is not None:
        walk(root)
    return [line for line in found if not any(name in line for name in _OURS)][:6]


_OURS = ("_watch_time", "run_sync_soon task", "async_gen")


def _where(coro: Any) -> str:
    frames = []
    while coro is not None:
        frame = getattr(coro, "cr_frame", None) or getattr(coro, "ag_frame", None)
        if frame is not None:
            name = frame.f_code.co_filename.rpartition("/")[2]
            frames.append(f"{name}:{frame.f_lineno} {frame.f_code.co_name}")
        coro = getattr(coro, "cr_await", None) or getattr(coro, "ag_await", None)
    return " < ".join(reversed(frames[-4:]))


_made: dict[Any, Any] = {}


def _tool(name: str, options: tuple[tuple[str, Any], ...]) -> Any:
    """Making a tool is dear, and so those of a name and options are made once."""
    found = _made.get((name, options))
    if found is None:
        found = _made[name, options] = _make_tool(name, dict(options))
    return found


def _make_tool(name: str, options: dict[str, Any]) -> Any:
    asks = options.pop("needs_approval", False)
    is_plain = options.pop("plain", False)
    if isinstance(asks, str):
        asks = _ASKS[asks]
    is_abandoned = options.get("abandon", False)

    async def act(ctx: RunContext, n: int, data: Any = None) -> Any:
        return await ctx.app.run_tool(name, ctx, n, data)

    def act_plain(ctx: RunContext, n: int) -> Any:
        return ctx.app.run_plain(name, n, is_abandoned)

    return tool(name=name, needs_approval=asks, **options)(act_plain if is_plain else act)


def _asks_and_raises(_: Any) -> bool:
    raise ZeroDivisionError("asked")


def _asks_and_wrecks(arguments: Any) -> bool:
    _wreck(arguments)
    return True


_ASKS = {"asks": bool, "raises": _asks_and_raises, "mutates": _asks_and_wrecks}


class HostileToolset:
    """Has its tools in some turns, takes its time, and fails."""

    def __init__(self, env: Env, spec: tuple[Any, ...]) -> None:
        _, self.options, tools = spec
        self.env = env
        self.made = [env.world.make_tool(env, tool) for tool in tools]
        self.asked = 0

    async def tools(self, ctx: Any) -> Any:
        turns = self.options.get("turns") or ("gives",)
        how = turns[self.asked % len(turns)]
        self.asked += 1
        watch = self.env.watch
        watch.hooks[f"toolset {how}"] += 1
        with self.env.world._living(watch, "a toolset"):
            await trio.sleep(self.options.get("seconds", 0.0))
            if how == "raises":
                raise self.env.world.plan(ValueError("no tools"))
            return [] if how == "nothing" else list(self.made)


# Clients


class HostileClient:
    """A model that lies."""

    def __init__(self, env: Env, spec: tuple[Any, ...]) -> None:
        _, self.options, self.turns = spec
        self.env = env
        self.asked = 0
        self.model = "m"
        if "gap" in self.options:
            self.limits = ModelLimits(gap=self.options["gap"], first_token=self.options["gap"])

    def stream_completion(self, messages: Any, tools: Any = None, **options: Any) -> Any:
        env = self.env
        heard = people.tokens_in(messages)
        env.world._effect(env.watch, "request", heard=heard, is_root=env.ctx is None)
        _wreck(messages)
        turn = self.turns[min(self.asked, len(self.turns) - 1)]
        if self.asked >= len(self.turns) and any(piece[0] == "final" for piece in turn):
            turn = (("text", "done"), ("final", (), "stop"))
        self.asked += 1
        match self.options.get("shape"):
            case "raises":
                raise env.world.plan(odd.FAILURES[self.options["failure"]]())
            case "nothing":
                return None
            case "coroutine":
                return self._later(turn)
            case "object":
                return _Reply(self, turn)
            case _:
                return self._say(turn)

    async def _later(self, turn: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return _Reply(self, turn)

    async def _say(self, turn: Any) -> Any:
        is_final = False
        with self.env.world._living(self.env.watch, "a client"):
            for piece in turn:
                chunk = await self.piece(piece)
                if chunk is not None:
                    is_final = is_final or getattr(chunk[0], "is_final", True)
                    yield chunk[0]
                    self.env.watch.sample()
        self.env.watch.cuts += not is_final

    async def piece(self, piece: Any) -> tuple[Any] | None:
        """Do what a piece of a turn says; gives its chunk, if it is one."""
        env = self.env
        match piece:
            case ("sleep", seconds):
                await _wait(env, seconds)
                return None
            case ("raise", number):
                raise env.world.plan(odd.FAILURES[number]())
            case ("odd", number):
                env.world.has_lied = True
                return (odd.CHUNKS[number](),)
            case ("text", text):
                return (Chunk(content=f"t!{text}" if env.in_tool else text),)
            case ("reasoning", text):
                return (Chunk(reasoning=text),)
            case ("reset", reason):
                return (Chunk(reset=reason),)
            case ("part", kind):
                return (Chunk(parts=[copy.deepcopy(_PARTS[kind])]),)
            case ("args", index, provider_id, name, text):
                text = text if isinstance(text, str) else json.dumps(text)
                return (Chunk(tool_args=[ToolArgs(index, provider_id, name, text)]),)
            case ("final", calls, finish):
                made = []
                for provider_id, name, arguments in calls:
                    if arguments is not None and isinstance(arguments.get("n"), int):
                        env.watch.given[arguments["n"]] = copy.deepcopy(arguments)
                    made.append(ToolCall(provider_id, name, copy.deepcopy(arguments)))
                usage = Usage(completion_tokens=1000) if env.world.program.engine else None
                chunk = Chunk(
                    is_final=True, tool_calls=made, finish_reason=finish, usage=usage, model="m"
                )
                return (chunk,)
        raise AssertionError(piece)


_PARTS: dict[str, dict[str, Any]] = {
    "citation": {"type": "citation", "url": ["http://x"]},
    "call": {"type": "server_tool_call", "id": "s1", "name": "web", "arguments": {"q": [1]}},
    "result": {"type": "server_tool_result", "id": "s1", "result": ["found"]},
    "refusal": {"type": "refusal", "text": "no"},
}


class _Reply:
    """An iterator of a client's own."""

    def __init__(self, client: HostileClient, turn: Any) -> None:
        self.client = client
        self.pieces = list(turn)
        match client.options.get("aclose"):
            case "absent":
                pass
            case "sync":
                self.aclose = lambda: None
            case how:
                self.aclose = partial(self._aclose, how)

    def __aiter__(self) -> _Reply:
        return self

    async def __anext__(self) -> Any:
        client = self.client
        with client.env.world._living(client.env.watch, "a client"):
            while self.pieces:
                chunk = await client.piece(self.pieces.pop(0))
                if chunk is not None:
                    return chunk[0]
            raise StopAsyncIteration

    async def _aclose(self, how: str | None) -> None:
        world = self.client.env.world
        with world._living(self.client.env.watch, "a client's aclose"):
            match how:
                case "raises":
                    raise world.plan(ValueError("aclose"))
                case "hangs":
                    await trio.sleep_forever()
                case "swallows":
                    with contextlib.suppress(trio.Cancelled):
                        await trio.sleep_forever()
                case "shield":
                    with trio.CancelScope(shield=True):
                        await trio.sleep(0.3)


# Statements


async def _wait(env: Env, seconds: float) -> None:
    begun = trio.current_time()
    try:
        await trio.sleep(seconds)
    finally:
        ended = trio.current_time()
        if ended > begun:
            env.world.waits.append((env.reach, begun, ended))


async def perform(env: Env, statements: Statements) -> Any:
    """Do what the statements say; gives what a ``return`` among them does."""
    for statement in statements:
        if statement[0] == "return":
            return _odd(statement[1], odd.VALUES)
        before = _tools_here.set(_tools_here.get())
        try:
            await _DO[statement[0]](env, *statement[1:])
        finally:
            _tools_here.reset(before)
        env.watch.sample()
    return None


async def _verb(env: Env, name: str, fn: Callable[[], Any]) -> Any:
    try:
        value = fn()
        return await value if inspect.isawaitable(value) else value
    except BaseException as exc:
        if isinstance(exc, ToolFailed):
            failed = {"call_id": exc.call_id, "outcome": exc.outcome, "agent": env.ctx.run_id}
            env.watch.failed.append(failed)
        env.world.check_verb(name, exc)
        raise


async def _checkpoint(env: Env) -> None:
    await trio.lowlevel.checkpoint()


async def _status(env: Env, text: Any) -> None:
    await _verb(env, "status", lambda: env.ctx.status(text))


async def _progress(env: Env, number: int, value: int | None) -> None:
    handed = {"number": number, "value": None if value is None else odd.VALUES[value]()}
    before = _copied(handed)
    await _verb(env, "progress", lambda: env.ctx.progress(handed))
    env.watch.handed[number] = before
    _wreck(handed)


async def _custom(env: Env, number: int, value: int | None) -> None:
    handed = {"number": number, "value": None if value is None else odd.VALUES[value]()}
    before = _copied(handed)
    env.watch.handed[number] = before
    await _verb(env, "custom", lambda: env.ctx.custom("n", handed))
    _wreck(handed)


def _copied(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except RecursionError:
        return None


async def _message(env: Env, statements: Statements) -> None:
    manager = env.ctx.message()
    with _silent(env):
        writer = await _verb(env, "message", manager.__aenter__)
        try:
            await perform(env.inside(writer=writer), statements)
        except BaseException as exc:
            if not await _verb(
                env, "message", partial(manager.__aexit__, type(exc), exc, exc.__traceback__)
            ):
                raise
        else:
            await _verb(env, "message", partial(manager.__aexit__, None, None, None))


async def _messages(env: Env, times: int) -> None:
    for _ in range(times):
        try:
            # Nothing is said, so nothing but its opening can wait for the reader.
            await _message(env, (("raise", "failure", 0),))
        except ValueError:
            env.watch.sample()


@contextmanager
def _silent(env: Env) -> Iterator[None]:
    watch = env.watch
    watch.silent += 1
    watch.silent_peak = max(watch.silent_peak, watch.silent)
    try:
        yield
    finally:
        watch.silent -= 1


async def _write(env: Env, text: str) -> None:
    if env.writer is not None:
        text = f"t!{text}" if env.in_tool else text
        await _verb(env, "write", lambda: env.writer.write(text))


async def _open_message(env: Env) -> None:
    manager = env.ctx.message()
    env.watch.silent += 1
    env.watch.silent_peak = max(env.watch.silent_peak, env.watch.silent)
    writer = await _verb(env, "message", manager.__aenter__)
    env.world.writers.append((env, manager, writer))


async def _write_kept(env: Env, text: str) -> None:
    for owner, _, writer in env.world.writers[-1:]:
        text = f"t!{text}" if owner.in_tool else text
        await _verb(env, "write", partial(writer.write, text))


async def _close_kept(env: Env) -> None:
    if env.world.writers:
        _, manager, _ = env.world.writers.pop()
        await _verb(env, "message", partial(manager.__aexit__, None, None, None))


async def _model(env: Env, client: Any, retries: int) -> None:
    made = HostileClient(env, client)
    for left in range(retries, -1, -1):
        try:
            with _silent(env):
                await _ask(env, made, ())
            return
        except Exception:
            env.watch.sample()
            if not left:
                raise


async def _ask(env: Env, client: Any, tools: Any) -> Any:
    messages = [{"role": "user", "content": "a question"}]
    return await _verb(
        env, "model", lambda: env.ctx.model(messages, client=client, tools=list(tools))
    )


async def _model_and_calls(env: Env, client: Any, tools: Any) -> None:
    made = {tool[1]: env.world.make_tool(env, tool) for tool in tools}
    with _silent(env):
        completion = await _ask(env, HostileClient(env, client), made.values())
    for call in completion.tool_calls:
        if call.name in made and isinstance(call.arguments, dict):
            await _verb(env, "call", partial(_call_with, env, made[call.name], call.arguments))


def _call_with(env: Env, tool: Any, arguments: dict[str, Any]) -> Any:
    return env.ctx.call(tool, **{str(key): value for key, value in arguments.items()})


async def _call(env: Env, tool: Any, arguments: Any) -> None:
    made = env.world.make_tool(env, tool)
    arguments = {key: _odd(value, odd.VALUES) for key, value in arguments.items()}
    if isinstance(arguments.get("n"), int):
        env.watch.given[arguments["n"]] = _copied(arguments)
    await _verb(env, "call", partial(_call_with, env, made, arguments))


async def _approve(env: Env, name: Any) -> None:
    arguments = {"price": [5]}
    approved = await _verb(env, "approve", lambda: env.ctx.approve(name, arguments))
    if type(approved) is not bool:
        env.world.problem("L10", f"approve gave {approved!r}")
    if approved:
        env.watch.effects.append({"kind": "approved", "name": name, "events": env.watch.events()})


async def _ask_user(env: Env, prompt: Any, schema: str | None = None) -> None:
    form = people.FORMS[schema]
    try:
        answer = await _verb(env, "ask", lambda: env.ctx.ask(prompt, form))
    except InputDeclined as exc:
        known = env.watch.events()
        env.watch.effects.append({"kind": "declined", "key": exc.request_id, "events": known})
        raise
    text = people.as_told(answer, schema)
    env.watch.effects.append({"kind": "answered", "text": text, "events": env.watch.events()})


async def _post(env: Env, *rest: Any) -> None:
    people.post(env.world, env.watch, ("post", *rest))


async def _delegate(env: Env, agent: Any) -> None:
    made = env.world.agent(agent, env.inside(base=env.reach, writer=None), env.watch)
    await _verb(env, "delegate", lambda: env.ctx.delegate(made, "sub"))


async def _await_agent(env: Env, agent: Any) -> None:
    if agent[0] == "body":
        # Nothing but a function of the program's own.
        await perform(env, agent[1])
        return
    made = env.world.agent(agent, env, env.watch)
    await _verb(env, "model", lambda: made(env.ctx, "sub"))


async def _start_soon(env: Env, statements: Statements) -> None:
    inner = env.inside(reach=env.base, writer=None)
    await _verb(env, "start_soon", lambda: env.ctx.start_soon(_background, inner, statements))


async def _background(env: Env, statements: Statements) -> None:
    try:
        await perform(env, statements)
    except BaseException as exc:
        if getattr(env.ctx, "call_id", None) is not None:
            _note_denial(env.watch, env.ctx.call_id, exc)
        raise


async def _nursery(env: Env, children: Any) -> None:
    async with trio.open_nursery() as nursery:
        for child in children:
            nursery.start_soon(_child, env, child)


async def _child(env: Env, statements: Statements) -> None:
    try:
        await perform(env, statements)
    except BaseException as exc:
        if any(isinstance(leaf, odd.Unprintable) for leaf in leaves(exc)):
            # Trio itself breaks where a nursery's child raises what has no repr.
            raise env.world.plan(ValueError("unprintable")) from None
        raise


async def _shield(env: Env, statements: Statements) -> None:
    with trio.CancelScope(shield=True):
        await perform(env.inside(reach=frozenset()), statements)


async def _timeout(env: Env, seconds: float, statements: Statements) -> None:
    with trio.move_on_after(seconds):
        await perform(env, statements)


_SWALLOWED = {"cancelled": trio.Cancelled, "base": BaseException, "exception": Exception}


async def _swallow(env: Env, what: str, statements: Statements, then: Statements) -> None:
    try:
        await perform(env, statements)
    except _SWALLOWED[what] as exc:
        env.world.kept.append(exc)
        await perform(env, then)


async def _finally(env: Env, statements: Statements, then: Statements) -> None:
    try:
        await perform(env, statements)
    finally:
        await perform(env, then)


async def _raise(env: Env, kind: str, number: int) -> None:
    table = odd.FAILURES if kind == "failure" else odd.INTERRUPTS
    raise env.world.plan(table[number]())


async def _raise_kept(env: Env) -> None:
    if env.world.kept:
        raise env.world.plan(env.world.kept[-1])


async def _control(env: Env, *rest: Any) -> None:
    env.world.control(env.watch, *rest)


async def _foreign(env: Env, where: str, statements: Statements) -> None:
    world = env.world
    env = env.inside(reach=frozenset(), base=frozenset(), writer=None)
    match where:
        case "late":
            world.late.append((env, statements))
        case "reader" if world.is_late:
            await world.contain("a task of the reader", perform, env, statements)
        case "reader":
            world.nursery.start_soon(
                world.contain, "a task of the reader", perform, env, statements
            )
        case "system":
            world.systems += 1
            trio.lowlevel.spawn_system_task(_in_system, env, statements)
        case "run":
            world.systems += 1
            trio.lowlevel.spawn_system_task(_in_other_run, env, statements)


async def _in_system(env: Env, statements: Statements) -> None:
    try:
        await env.world.contain("a system task", perform, env, statements)
    finally:
        env.world.systems -= 1


async def _in_other_run(env: Env, statements: Statements) -> None:
    async def body(ctx: RunContext, message: str) -> None:
        await env.world.contain("another run", perform, env, statements)

    try:
        async with StreamEngine().stream(body, "other") as stream:
            with trio.move_on_after(50):
                async for _ in stream:
                    pass
    except BaseException as exc:
        env.world.check_escape("the stream of another run", exc)
    finally:
        env.world.systems -= 1


async def _stream(env: Env, form: str, agent: Any, steps: Any) -> None:
    world = env.world
    watch = world.watch(f"nested{len(world.watches)}", agent, env, is_inside=form == "block")
    by_number: dict[int, list[Statement]] = {}
    for number, step in steps:
        by_number.setdefault(number, []).append(step)
    policy = {"approve": True, "answer": "yes"}
    if form == "block":
        await world.read_block(watch, by_number, policy)
    elif form == "bare":
        await world.read_bare(watch, by_number, policy)
    else:
        watch.began = True
        watch.take(await watch.stream.__anext__())
        world.streams.append(watch.stream)


async def _aclose_main(env: Env) -> None:
    await _of_main(env, lambda stream: stream.aclose())


async def _read_main(env: Env) -> None:
    env.world.watches[0].is_whole = False
    await _of_main(env, lambda stream: stream.__anext__())


async def _result_main(env: Env) -> None:
    env.world.watches[0].is_whole = False
    await _of_main(env, lambda stream: stream.result())


async def _of_main(env: Env, fn: Callable[[Any], Any]) -> None:
    watch = env.world.watches[0]
    stream = watch.stream
    if stream is None or watch.is_hosted:
        return
    try:
        await fn(stream)
    except StopAsyncIteration:
        pass
    except (RuntimeError, trio.BusyResourceError, FlowtrioError) as exc:
        env.world.plan(exc)
        raise


async def _mutate(env: Env) -> None:
    _wreck(env.arguments)


_DO: dict[str, Callable[..., Awaitable[Any]]] = {
    "sleep": _wait,
    "checkpoint": _checkpoint,
    "status": _status,
    "progress": _progress,
    "custom": _custom,
    "message": _message,
    "messages": _messages,
    "write": _write,
    "open_message": _open_message,
    "write_kept": _write_kept,
    "close_kept": _close_kept,
    "model": _model,
    "model_and_calls": _model_and_calls,
    "call": _call,
    "approve": _approve,
    "ask": _ask_user,
    "delegate": _delegate,
    "await_agent": _await_agent,
    "start_soon": _start_soon,
    "nursery": _nursery,
    "shield": _shield,
    "timeout": _timeout,
    "swallow": _swallow,
    "finally": _finally,
    "raise": _raise,
    "raise_kept": _raise_kept,
    "control": _control,
    "post": _post,
    "foreign": _foreign,
    "stream": _stream,
    "aclose_main": _aclose_main,
    "read_main": _read_main,
    "result_main": _result_main,
    "mutate": _mutate,
}


# Orchestrators and their stores


class _Faults:
    """Raises or is slow at operations of drawn numbers."""

    def __init__(self, world: World, faults: Any) -> None:
        self._world, self._faults, self._count = world, dict(faults), 0
        self.has_failed = False
        """Whether the last operation did."""

    async def strike(self) -> None:
        self._count += 1
        fault = self._faults.get(self._count)
        self.has_failed = fault in ("raises", "group")
        match fault:
            case "raises":
                self._world.has_struck = True
                raise self._world.plan(OSError("the store"))
            case "group":
                self._world.has_struck = True
                raise self._world.plan(ExceptionGroup("the store", [OSError("disk")]))
            case "slow":
                self._world.has_struck = True
                await trio.sleep(0.02 if self._world.threads else 2)
            case _:
                pass


class HostileStore:
    """An event store that fails now and then.

    It has a store and is none, so that nothing of the inner one finds its way around the faults.
    """

    def __init__(self, world: World, faults: Any) -> None:
        self._inner, self._faults = MemoryStore(), _Faults(world, faults)

    async def create(self, header: Any) -> Any:
        await self._faults.strike()
        return await self._inner.create(header)

    async def append(self, *args: Any) -> None:
        await self._faults.strike()
        await self._inner.append(*args)

    async def read(self, *args: Any) -> Any:
        await self._faults.strike()
        return await self._inner.read(*args)

    async def wait_past(self, *args: Any) -> Any:
        await self._faults.strike()
        return await self._inner.wait_past(*args)

    async def header(self, *args: Any) -> Any:
        return await self._inner.header(*args)

    async def list(self, *args: Any, **keys: Any) -> Any:
        return await self._inner.list(*args, **keys)

    async def newest(self, *args: Any, **keys: Any) -> Any:
        return await self._inner.newest(*args, **keys)

    async def live(self) -> Any:
        return await self._inner.live()

    async def delete(self, *args: Any, **keys: Any) -> Any:
        return await self._inner.delete(*args, **keys)

    async def expire(self, *args: Any) -> Any:
        return await self._inner.expire(*args)


class HostileConversations:
    """The same of conversations."""

    def __init__(self, world: World, faults: Any) -> None:
        self._inner, self._faults = MemoryConversations(), _Faults(world, faults)

    async def load(self, *args: Any) -> Any:
        await self._faults.strike()
        return await self._inner.load(*args)

    async def save(self, *args: Any) -> None:
        await self._faults.strike()
        await self._inner.save(*args)

    async def delete(self, *args: Any) -> None:
        await self._inner.delete(*args)


class Hosting:
    """A run whose log goes into a store, and its followers."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def read(self, watch: Watch, steps: Any, policy: Any) -> None:
        try:
            await self._read(watch, steps, policy)
        except BaseException:
            # An interrupt ends the orchestrator, and takes its followers along. The log is whole,
            # unless the store did not take its end, though it was asked once more.
            hostile = self.world.orchestrator.store
            store = hostile._inner
            watch.is_whole = watch.is_whole and not hostile._faults.has_failed
            with trio.CancelScope(shield=True):
                if await store.header("default", watch.run_id) is not None:
                    watch.log.clear()
                    watch.mode = "events"
                    for event in await store.read("default", watch.run_id, -1, 100_000):
                        watch.take(event)
            raise

    async def _read(self, watch: Watch, steps: Any, policy: Any) -> None:
        world, orchestrator = self.world, self.world.orchestrator
        async with orchestrator:
            try:
                run_id = await orchestrator.start(
                    watch.message, session_id="s", run_id=watch.run_id
                )
            except (OSError, ExceptionGroup) as exc:
                return world.check_escape("start", exc)
            watch.began = True
            watch.stream = orchestrator.attach(run_id)
            try:
                await world._read(watch, watch.stream, steps, policy)
            except trio.Cancelled:
                if not any(isinstance(exc, _INTERRUPTS) for exc in world.planned):
                    # Else the orchestrator's block ends by one, and takes its followers along.
                    world.problem("L12", "a bare Cancelled came out of the follower")
                raise
            except BaseException as exc:
                world.check_escape("the follower", exc)
            followed, watch.log = watch.log, []
            mode, watch.mode = watch.mode, "events"
            await self._read_whole(watch, run_id)
            await self._replay(watch, run_id, followed if mode == "events" else [])

    async def _read_whole(self, watch: Watch, run_id: str) -> None:
        """Read it again from its first event, once its store is well."""
        for _ in range(20):
            watch.log.clear()
            with trio.move_on_after(100):
                try:
                    async with self.world.orchestrator.attach(run_id) as follower:
                        async for event in follower:
                            watch.take(event)
                    return
                except BaseException as exc:
                    if isinstance(exc, trio.Cancelled):
                        raise
                    self.world.check_escape("a follower", exc)
            await trio.sleep(1)
        self.world.problem("L12", "the end of a hosted run is never stored")

    async def _replay(self, watch: Watch, run_id: str, followed: list[Any]) -> None:
        """L9: what was followed live, and what is replayed from any place, is the log."""
        world = self.world
        if watch.is_whole and followed != watch.log[: len(followed)]:
            world.problem("L9", "what was followed live is not what is stored")
        for after in {0, len(watch.log) // 2, len(watch.log) - 1}:
            found = []
            async with world.orchestrator.attach(run_id, after=after) as follower:
                async for event in follower:
                    found.append(event.seq)
            if found != [event["seq"] for event in watch.log[after + 1 :]]:
                world.problem("L9", f"replayed after {after}: {found}")


# Somebody who has nothing to do with it


@attrs.frozen
class _KindModel:
    pace: float

    async def stream_completion(self, messages: Any, tools: Any = None, **options: Any) -> Any:
        if not any(message["role"] == "tool" for message in messages):
            yield Chunk(content="one ")
            await trio.sleep(self.pace)
            yield Chunk(is_final=True, tool_calls=[ToolCall("i1", "add", {"a": 1, "b": 2})])
        else:
            yield Chunk(content="three")
            await trio.sleep(4 * self.pace)
            yield Chunk(is_final=True, finish_reason="stop")


@tool
async def add(ctx: RunContext, a: int, b: int) -> int:
    """Add."""
    await trio.sleep(ctx.app)
    return a + b


def _innocent(pace: float) -> Agent:
    return Agent(llm_client=_KindModel(pace), tools=[add], name="innocent")


# Playing


class _Raises(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise ZeroDivisionError("the log handler")


class _Refuses(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        raise ZeroDivisionError("the log filter")


@contextmanager
def _logging(how: str | None) -> Iterator[None]:
    logger = logging.getLogger("flowtrio")
    before = logger.level, logger.propagate, logger.handlers[:], logger.filters[:]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers = [_Raises()] if how == "handler" else [logging.NullHandler()]
    logger.filters = [_Refuses()] if how == "filter" else []
    try:
        yield
    finally:
        logger.level, logger.propagate, logger.handlers, logger.filters = before
        logger.manager._clear_cache()  # type: ignore[attr-defined]


@contextmanager
def _hushed() -> Iterator[None]:
    """What is left lying about, on purpose or by a run that broke, says nothing when it goes."""
    before = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.unraisablehook = before


@contextmanager
def _scheduling(seed: int) -> Iterator[None]:
    from trio._core import _run

    before = _run._r, _run._ALLOW_DETERMINISTIC_SCHEDULING
    _run._r, _run._ALLOW_DETERMINISTIC_SCHEDULING = Random(seed), True
    try:
        yield
    finally:
        _run._r, _run._ALLOW_DETERMINISTIC_SCHEDULING = before


class _RealClock(trio.abc.Clock):
    def __init__(self) -> None:
        self.current_time = time.perf_counter  # type: ignore[method-assign]

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        raise AssertionError("replaced")

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return deadline - self.current_time()


def play(program: Program, *, threads: bool = False, telemetry: Any = None) -> World:
    """Do what *program* says."""
    world = World(program, threads=threads, telemetry=telemetry)
    clock: Any = _RealClock() if threads else trio.testing.MockClock(autojump_threshold=0)
    slept = clock.deadline_to_sleep_time

    def watched(deadline: float) -> Any:
        world.tick()
        return slept(deadline)

    clock.deadline_to_sleep_time = watched
    with (
        _hushed(),
        _logging(program.engine.get("log")),
        _scheduling(program.schedule),
    ):
        try:
            trio.run(world.main, clock=clock)
            world.join_threads()
        except trio.TrioInternalError as exc:
            world.is_broken = True
            world.problem("L12", f"TrioInternalError: {_cause(exc)}")
        except BaseException as exc:
            world.is_broken = True
            interrupts = [e for e in world.planned if isinstance(e, _INTERRUPTS)]
            if interrupts and all(isinstance(leaf, KeyboardInterrupt) for leaf in leaves(exc)):
                # Struck again, since nobody was there any more to be told of it.
                world.problems.clear()
                return world
            world.problem("L12", f"trio.run raised {' | '.join(map(_told, leaves(exc)))}")
        finally:
            world.is_over = True
            if world.is_broken:
                world.forget()
                gc.collect()
    return world


_INTERRUPTS = (KeyboardInterrupt, SystemExit)


def _cause(exc: BaseException) -> str:
    cause = exc.__cause__ or exc
    return " | ".join(_told(leaf) for leaf in leaves(cause))
