"""What an agent may call: its tools, and those of its toolsets, which are asked at each turn."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import attrs
import trio

from flowtrio._core._failures import leaves
from flowtrio._core._fit import MAX_NAME, digest
from flowtrio._core._values import told, type_name
from flowtrio._run._ending import blaming

from ._tools import Tool, as_tool

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from flowtrio._run._frame import Frame
    from flowtrio.abc import Toolset

Given: TypeAlias = "Tool[..., Any] | Callable[..., Any] | Toolset"
"""What may stand in ``tools=[…]``."""


def tools_and_toolsets(given: Sequence[Given]) -> tuple[Tool[..., Any] | Toolset, ...]:
    """Make tools of the functions among what was given; toolsets stay as they are.

    Raises:
      TypeError: it is no list of tools, or something in it cannot be one.
      ValueError: two tools have the same name.

    """
    if isinstance(given, Tool) or callable(given) or is_toolset(given):
        raise TypeError("tools: expected a list of tools, got a tool alone")
    tools = iter(unique_tools([each for each in given if not is_toolset(each)]))
    return tuple(each if is_toolset(each) else next(tools) for each in given)


def unique_tools(given: Iterable[Any]) -> tuple[Tool[..., Any], ...]:
    """Make tools of what was given, each with a name of its own.

    Raises:
      TypeError: it is no list of tools, or something in it cannot be one.
      ValueError: two have the same name.

    """
    if isinstance(given, Tool) or callable(given):
        raise TypeError("tools: expected a list of tools, got a tool alone")
    tools = _kept_apart([as_tool(tool) for tool in given])
    names = [tool.name for tool in tools]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"tools of one agent need names of their own: {', '.join(sorted(twice))}")
    return tuple(tools)


def is_toolset(given: object) -> TypeIs[Toolset]:
    """Whether something that stands among tools is asked for its own."""
    if isinstance(given, Tool | type):
        return False
    tools = getattr(given, "tools", None)
    # What can be called itself is one by its async method alone: else it is a function.
    return callable(tools) and (not callable(given) or inspect.iscoroutinefunction(tools))


def _kept_apart(tools: list[Tool[..., Any]]) -> list[Tool[..., Any]]:
    """The same with other names for those that only share theirs since it was made fit."""
    names = [tool.name for tool in tools]
    if len(set(names)) == len(names):
        return tools
    return [
        attrs.evolve(tool, name=f"{tool.name[: MAX_NAME - 7]}_{digest(tool.given_name)[:6]}")
        if tool.given_name is not None and names.count(tool.name) > 1
        else tool
        for tool in tools
    ]


class Offer:
    """What an agent at work offers its model, turn by turn."""

    __slots__ = ("_frame", "_given", "by_name", "specs")

    specs: list[dict[str, Any]]
    """The tools as the model is told of them."""
    by_name: Mapping[str, Tool[..., Any]]
    """The same as they are called."""

    def __init__(self, given: Sequence[Tool[..., Any] | Toolset], frame: Frame) -> None:
        self._frame = frame
        self._given = given if any(map(is_toolset, given)) else None
        """None where they are the same in every turn."""
        self._take([] if self._given else cast("Sequence[Tool[..., Any]]", given))

    def _take(self, tools: Sequence[Tool[..., Any]]) -> None:
        self.specs = [tool.spec() for tool in tools]
        self.by_name = {tool.name: tool for tool in tools}

    async def ask(self) -> None:
        """Ask the toolsets what there is for this turn, all at once."""
        if self._given is None:
            return
        await self._frame.check_open("ask toolsets")
        asked = [_Asked(each) for each in self._given]
        with blaming(self._frame.run.info.run_id, "tool"):
            try:
                async with trio.open_nursery() as nursery:
                    for each in asked:
                        if is_toolset(each.given):
                            nursery.start_soon(each.ask, self._frame)
            except BaseExceptionGroup as group:
                # Cancelled, or Ctrl-C; callers want it bare.
                raise next(leaves(group)) from None
            self._take(unique_tools([tool for each in asked for tool in each.tools()]))


class _Asked:
    """A tool, or a toolset that was asked."""

    def __init__(self, given: Any) -> None:
        self.given = given
        self._found: object = [given]
        self._error: Exception | None = None

    async def ask(self, frame: Frame) -> None:
        try:
            self._found = await self.given.tools(frame.make_context(frame))
        except Exception as exc:
            # Kept out of the nursery, which would wrap it into a group.
            self._error = exc

    def tools(self) -> list[Any]:
        """What it gave."""
        if self._error is not None:
            raise self._error
        if not isinstance(self._found, list | tuple):
            raise TypeError(
                f"{type_name(self.given)}.tools(): expected a list of tools, got "
                f"{told(self._found)}"
            )
        return list(self._found)
