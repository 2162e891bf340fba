"""Around tools and models: the functions of the application's that stand there, one in another.

Each is given a `proceed` that leads inwards, to the next one and at last to the tool or the model.
It may go there several times, one after the other, or not at all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from flowtrio._core._chunks import Chunk, Completion, ToolCall
from flowtrio._core._exceptions import LocalProtocolError
from flowtrio._core._history import read_history
from flowtrio._core._requests import ModelRequest
from flowtrio._core._values import copy_json, type_name
from flowtrio._run._body import agent_name
from flowtrio._run._frame import Frame
from flowtrio._run._hooks import Hooks

from ._tools import as_tool

if TYPE_CHECKING:
    from flowtrio.abc import AroundModel, AroundTool

_R = TypeVar("_R")


class _OneByOne:
    """Lets one at a time go on to a tool or a model: both say what belongs to one call or reply."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._is_busy = False

    async def run(self, fn: Callable[[], Awaitable[_R]]) -> _R:
        await self._frame.check_open("proceed")
        if self._is_busy:
            raise LocalProtocolError(
                "can't proceed while another proceed of the same call is under way"
            )
        self._is_busy = True
        try:
            return await fn()
        finally:
            self._is_busy = False


async def around_tool(
    frame: Frame, arguments: dict[str, Any], attempt: Callable[[Frame], Awaitable[Any]]
) -> Any:
    """Run what a call is to do, inside what stands around it."""
    assert frame.call_id is not None
    assert frame.tool_name is not None
    call = ToolCall(frame.call_id, frame.tool_name, copy_json(arguments))
    hooks, gate = frame.hooks, _OneByOne(frame)
    proceed: Callable[[], Awaitable[Any]] = partial(gate.run, partial(attempt, frame))
    for place, hook in reversed([*enumerate(hooks.tool)]):
        proceed = partial(_visit_tool, hook, frame, hooks.outer(tools=place), call, proceed)
    return await proceed()


async def _visit_tool(
    hook: AroundTool,
    owner: Frame,
    hooks: Hooks,
    call: ToolCall,
    proceed: Callable[[], Awaitable[Any]],
) -> Any:
    with _frame_inside(owner, hooks) as frame:

        async def inwards() -> Any:
            try:
                return await proceed()
            finally:
                frame.attempt = owner.attempt

        return await hook(frame.make_context(frame), call, inwards)


@contextmanager
def _frame_inside(owner: Frame, hooks: Hooks) -> Iterator[Frame]:
    """What a function that stands around something of *owner*'s says and does."""
    frame = Frame(
        owner.run,
        owner,
        owner.agent,
        call_id=owner.call_id,
        tool_name=owner.tool_name,
        hooks=hooks,
    )
    frame.attempt = owner.attempt
    try:
        yield frame
    finally:
        frame.leave()


class ReplyTurn(Protocol):
    """One reply that a model is asked for, as a `Turn` tells it."""

    owner: Frame

    async def stream(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]],
        options: dict[str, Any],
    ) -> Chunk:
        """Ask the model and tell what it says, but for the end."""
        ...

    def fold(self, final: Chunk) -> Completion:
        """What was said, which ends with *final*."""
        ...

    async def begin_again(self, reason: str, said: Chunk | None) -> None:
        """Take back what was said, which ended with *said*, or with an exception."""
        ...

    async def replace(self, given: Completion, said: Chunk | None) -> Chunk:
        """Tell *given* instead of what was said."""
        ...


class Exchange:
    """One model reply and what stands around it: all that is asked for it, and what it comes to."""

    def __init__(self, turn: ReplyTurn, options: dict[str, Any]) -> None:
        self._turn = turn
        self._gate = _OneByOne(turn.owner)
        settings = dict(options)
        # The agent's own, and no setting of the model's: what it decodes has to be asked for.
        self._fixed = {key: settings.pop(key) for key in ("output_schema",) if key in settings}
        self._settings = settings
        self._has_asked = False
        self._final: Chunk | None = None
        """The end of what was streamed last; None where that failed."""
        self._streamed: Completion | None = None

    async def run(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> Chunk:
        """Ask the model through all of them; gives the final chunk of what the reply came to."""
        turn, owner = self._turn, self._turn.owner
        hooks, proceed = owner.hooks, self._proceed
        for place, hook in reversed([*enumerate(hooks.model)]):
            proceed = partial(_visit_model, hook, owner, hooks.outer(models=place), proceed)
        request = ModelRequest(
            messages=copy_json(list(messages)),
            tools=copy_json(list(tools)),
            model_settings=self._settings,
        )
        given = await proceed(request)
        if not isinstance(given, Completion) or not isinstance(given.content, str):
            raise TypeError(f"around_model gave {type_name(given)}: expected a Completion")
        if self._final is not None and given == self._streamed:
            return self._final
        return await turn.replace(given, self._final)

    async def _proceed(self, request: ModelRequest) -> Completion:
        if not isinstance(request, ModelRequest):
            raise TypeError(f"proceed: expected a ModelRequest, got {type_name(request)}")
        messages = read_history(request.messages, "messages")
        tools = [tool if isinstance(tool, dict) else as_tool(tool).spec() for tool in request.tools]
        options = {**request.model_settings, **self._fixed}
        return await self._gate.run(lambda: self._ask(messages, tools, options))

    async def _ask(
        self, messages: list[Any], tools: list[dict[str, Any]], options: dict[str, Any]
    ) -> Completion:
        turn = self._turn
        if self._has_asked:
            await turn.begin_again("again", self._final)
        self._has_asked = True
        self._final = self._streamed = None
        final = await turn.stream(messages, tools, options)
        self._streamed = turn.fold(final)
        self._final = final
        return turn.fold(final)


async def _visit_model(
    hook: AroundModel,
    owner: Frame,
    hooks: Hooks,
    proceed: Callable[[ModelRequest], Awaitable[Completion]],
    request: ModelRequest,
) -> Completion:
    with _frame_inside(owner, hooks) as frame:
        frame.aside = agent_name(hook)
        return await hook(frame.make_context(frame), request, proceed)
