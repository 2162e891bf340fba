"""What a call is to do: a tool's function, its arguments, the places it needs, and its tries."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import trio
from trio.lowlevel import RunVar

from flowtrio._core._exceptions import ToolDenied
from flowtrio._core._failures import why_unfit
from flowtrio._core._telling import tell
from flowtrio._core._values import copy_json
from flowtrio._run._pending import Approved, Decision, Unfit
from flowtrio._run._places import Places, Ticket

from ._around import around_tool
from ._threads import call_in_thread

if TYPE_CHECKING:
    from flowtrio._run._frame import Frame

    from ._tools import Tool

_tool_places: RunVar[WeakKeyDictionary[Tool[..., Any], Places]] = RunVar("flowtrio_tool_places")


class Plan:
    """What a call is to do: a tool, its arguments, and the places that it needs for that."""

    __slots__ = ("_places", "arguments", "asks", "exc", "is_begun", "keywords", "ticket", "tool")

    def __init__(self, tool: Tool[..., Any], arguments: dict[str, Any], places: Places) -> None:
        self.tool = tool
        self.arguments = arguments
        self._places = (places, *_places_of(tool))
        self.ticket: Ticket | None = None
        self.is_begun = False
        """Whether its START was waited for already; see `ActiveCall.begin`."""
        self.keywords: dict[str, Any] = {}
        self.asks = False
        """Whether a person has to approve it."""
        self.exc: Exception | None = None
        """Why the arguments do not fit."""
        try:
            self.keywords = self.decode()
            asks = tool.needs_approval
            self.asks = bool(asks(copy_json(arguments)) if callable(asks) else asks)
        except Exception as exc:
            self.exc = exc

    def decode(self) -> dict[str, Any]:
        """The function's keyword arguments, which are its own to change."""
        return self.tool.decode(copy_json(self.arguments))

    def line_up(self) -> Ticket:
        """Stand in line for the places, or take them; see `Ticket`."""
        if self.ticket is None:
            self.ticket = Ticket(self._places)
        return self.ticket

    def give_back(self) -> None:
        """Make room for others."""
        if self.ticket is not None:
            self.ticket.give_back()

    # Functions that give what is to be awaited: each level of coroutines costs every call.

    def run(self, frame: Frame) -> Awaitable[Any]:
        """Do it in *frame*, inside what stands around it: to be awaited at once."""
        if frame.hooks.tool:
            return around_tool(frame, self.arguments, self.attempt)
        return self.attempt(frame)

    def attempt(self, frame: Frame) -> Awaitable[Any]:
        """Run the function in *frame*, as often as it may be tried: to be awaited at once."""
        return self._retry(frame) if self.tool.retries else self._invoke(frame)

    async def _retry(self, frame: Frame) -> Any:
        tool = self.tool
        for tries in range(tool.retries):
            try:
                return await self._invoke(frame)
            except ToolDenied:
                raise
            except tool.retry_on as exc:
                text = "tool %s failed and is tried again (%s)"
                tell(logging.WARNING, text, tool.name, error_id(frame), exc=exc)
                await trio.sleep(tool.backoff * 2**tries)
        return await self._invoke(frame)

    def _invoke(self, frame: Frame) -> Awaitable[Any]:
        frame.attempt += 1
        # The function may have changed those that it got.
        keywords = self.keywords if frame.attempt == 1 else self.decode()
        if self.tool.context_parameter is None:
            return self._call_function(frame, keywords)
        keywords = {**keywords, self.tool.context_parameter: frame.make_context(frame)}
        return frame.run_body(self._call_function, frame, keywords)

    def _call_function(self, frame: Frame, keywords: dict[str, Any]) -> Awaitable[Any]:
        tool, call_id = self.tool, frame.call_id
        assert call_id is not None
        simulation = frame.run.info.simulation
        if simulation is not None:
            return simulation.run_tool(call_id, tool, keywords)
        if tool.is_async:
            given: Awaitable[Any] = tool.fn(**keywords)
            return given
        name = f"tool {tool.name} ({call_id})"
        return call_in_thread(frame.run, tool, keywords, name)


def edit(plan: Plan | None, decision: Decision) -> None:
    """Let a person's decision bring other arguments to what was planned.

    Raises:
      Unfit: they do not fit, or there is no tool that takes any; nothing is changed.

    """
    if not isinstance(decision, Approved) or decision.arguments is None:
        return
    if plan is None:
        raise Unfit("arguments: what is asked about is no tool, and takes none")
    try:
        keywords = plan.tool.decode(copy_json(decision.arguments))
    except ValueError as exc:
        raise Unfit(why_unfit(exc)) from exc
    except Exception as exc:
        # A tool may check its arguments itself.
        raise Unfit(f"arguments of {plan.tool.name!r}: {why_unfit(exc)}") from exc
    plan.arguments, plan.keywords = decision.arguments, keywords


def error_id(frame: Frame) -> str:
    """What operators find a call by."""
    return f"{frame.run.info.run_id}:{frame.call_id}"


def _places_of(tool: Tool[..., Any]) -> tuple[Places, ...]:
    """Places for all calls of one tool in this Trio loop, where it says how many."""
    if tool.concurrency is None:
        return ()
    try:
        places = _tool_places.get()
    except LookupError:
        places = WeakKeyDictionary()
        _tool_places.set(places)
    if tool not in places:
        places[tool] = Places(tool.concurrency)
    return (places[tool],)
