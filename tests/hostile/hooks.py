"""Hostile functions around tools and models: what they do each time that they are asked.

One is ``("hook", kind, acts)``. It goes on once, several times or not at all, and gives what came
of it last, or something else.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs
import trio

from flowtrio import Completion, ToolDenied

from . import odd

if TYPE_CHECKING:
    from .world import Env, World

_SWALLOWED = {"cancelled": trio.Cancelled, "base": BaseException}


def make_hooks(specs: Any, env: Callable[[], Env]) -> dict[str, Any]:
    """The hooks of an agent or engine as its options have them."""
    return {f"around_{spec[1]}": _make(spec, env) for spec in specs}


def _make(spec: Any, env_of: Callable[[], Env]) -> Any:
    _, kind, acts = spec
    made = _OfTool if kind == "tool" else _OfModel

    async def hook(ctx: Any, asked: Any, proceed: Any) -> Any:
        env = env_of()
        in_tool = ctx.call_id is not None
        reach = frozenset([("call", env.watch.name, ctx.call_id)] if kind == "tool" else [])
        here = env.inside(ctx=ctx, reach=reach, base=reach, in_tool=in_tool, writer=None)
        with env.world._living(env.watch, f"a hook around a {kind}"):
            return await made(here, asked, proceed).run(acts)

    return hook


class _Hook:
    """One visit."""

    verb = ""

    def __init__(self, env: Env, asked: Any, proceed: Any) -> None:
        self.env = env
        self.asked = asked
        self.proceed = proceed
        self.given: Any = None

    @property
    def world(self) -> World:
        return self.env.world

    async def run(self, acts: Any) -> Any:
        watch = self.env.watch
        try:
            for act in acts:
                await self.do(act)
        except BaseException as exc:
            self.note("denied" if is_denial(exc) else "raised")
            raise
        watch.hooks["gave"] += 1
        self.note("gave")
        return self.given

    async def do(self, act: Any) -> None:
        from .world import _wait, perform

        watch = self.env.watch
        watch.hooks[str(act[0])] += 1
        match act:
            case ("proceed",):
                self.given = await self.go_on()
            case ("swallow", what):
                try:
                    self.given = await self.go_on()
                except _SWALLOWED[what] as exc:
                    self.world.kept.append(exc)
                    watch.hooks["swallowed"] += 1
            case ("two at once",):
                await self.go_on_twice()
            case ("sleep", seconds):
                await _wait(self.env, seconds)
            case ("perform", statements):
                await perform(self.env, statements)
            case ("raise", number):
                raise self.world.plan(odd.FAILURES[number]())
            case ("deny", reason):
                raise self.world.plan(ToolDenied(reason))
            case ("give", what):
                self.given = self.other(what)
            case ("mutate",):
                self.mutate()
            case ("ask more",):
                self.ask_more()
            case _:
                raise AssertionError(act)

    async def go_on(self) -> Any:
        try:
            return await self.proceed(*self.arguments())
        except BaseException as exc:
            self.world.check_verb(self.verb, exc)
            raise

    async def go_on_twice(self) -> None:
        """Refused while the other one is under way; one after the other is none of it."""

        async def go() -> None:
            try:
                self.given = await self.go_on()
            except Exception as exc:
                failures.append(exc)

        failures: list[Exception] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(go)
            nursery.start_soon(go)
        if failures:
            raise failures[0]

    def arguments(self) -> tuple[Any, ...]:
        return ()

    def other(self, what: Any) -> Any:
        raise NotImplementedError

    def mutate(self) -> None:
        raise NotImplementedError

    def ask_more(self) -> None:
        """Ask for more than was asked."""

    def note(self, how: str) -> None:
        """Write down how it was left."""


class _OfTool(_Hook):
    verb = "call"

    def other(self, what: Any) -> Any:
        return odd.VALUES[what]() if isinstance(what, int) else what

    def mutate(self) -> None:
        from .world import _wreck

        # Its own copy: what is executed, and what was told, is not changed by that.
        _wreck(self.asked.arguments)

    def note(self, how: str) -> None:
        from .world import _copied

        watch = self.env.watch
        watch.hooks[how] += how != "gave"
        value = _copied(self.given) if how == "gave" else None
        watch.hooked[self.asked.id] = {"how": how, "value": value}


class _OfModel(_Hook):
    verb = "model"

    def arguments(self) -> tuple[Any, ...]:
        return (self.asked,)

    def other(self, what: Any) -> Any:
        prefix = "t!" if self.env.in_tool else ""
        last = self.given if isinstance(self.given, Completion) else None
        match what:
            case "nothing":
                return None
            case "same" if last is not None:
                return copy.deepcopy(last)
            case "calls" if last is not None:
                return attrs.evolve(last, tool_calls=[], content=f"{prefix}no calls")
            case _:
                return Completion(content=f"{prefix}hooked" if what else "")

    def mutate(self) -> None:
        from .world import _wreck

        self.env.watch.has_tampered = True
        _wreck(self.asked.messages)
        if isinstance(self.given, Completion):
            for call in self.given.tool_calls:
                _wreck(call.arguments)

    def ask_more(self) -> None:
        messages = [*self.asked.messages, {"role": "user", "content": "more"}]
        self.asked = self.asked.replace(messages=messages)


def leaves(exc: BaseException) -> list[BaseException]:
    """The exceptions of a group, or the one."""
    if isinstance(exc, BaseExceptionGroup):
        return [leaf for inner in exc.exceptions for leaf in leaves(inner)]
    return [exc]


def is_denial(exc: BaseException) -> bool:
    """Whether that is all which was raised; groups and cancellations around it say nothing more."""
    failures = [leaf for leaf in leaves(exc) if not isinstance(leaf, trio.Cancelled)]
    return len(failures) == 1 and isinstance(failures[0], ToolDenied)
