"""What flowtrio asks of agents, of what brings them tools, and of what stands around both."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from flowtrio._core._chunks import Completion, ToolCall

if TYPE_CHECKING:
    from flowtrio._agents._context import RunContext
    from flowtrio._agents._tools import Tool
    from flowtrio._core._requests import ModelRequest

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    # Only type checkers know defaults before Python 3.13.
    _ResultT = TypeVar("_ResultT", covariant=True, default=Any)
else:
    from typing import TypeVar

    _ResultT = TypeVar("_ResultT", covariant=True)


class AgentLike(Protocol[_ResultT]):
    """Anything that can be run: `flowtrio.Agent`, or any ``async def agent(ctx, message)``."""

    def __call__(self, ctx: RunContext, message: str, /) -> Awaitable[_ResultT]:
        """Do the job; what it returns is the run's result."""
        ...


class Toolset(Protocol):
    """Tools that come and go; stands among an agent's tools, and is asked at each turn."""

    async def tools(self, ctx: RunContext) -> Sequence[Tool[..., Any] | Callable[..., Any]]:
        """Give the tools that there are for this turn, each under a name of its own.

        What it raises fails the agent's run. A model that calls a tool which has gone is told so.
        """
        ...


class AroundTool(Protocol):
    """Stands around a tool call: inside its START and END, within its timeout."""

    def __call__(
        self, ctx: RunContext, call: ToolCall, proceed: Callable[[], Awaitable[Any]], /
    ) -> Awaitable[Any]:
        """Give the call's result: ``return await proceed()``, or another one.

        What it raises is told as if the tool had raised it; `flowtrio.ToolDenied` ends the call
        ``denied``.

        Args:
          ctx: The call's context; ``ctx.attempt`` counts what was tried.
          call: What is called, with its id in events. Its arguments are a copy.
          proceed: Runs the tool, with all its tries; may be awaited again, one after the other.

        """
        ...


class AroundModel(Protocol):
    """Stands around each reply of a model, that of ``ctx.model`` too."""

    def __call__(
        self,
        ctx: RunContext,
        request: ModelRequest,
        proceed: Callable[[ModelRequest], Awaitable[Completion]],
        /,
    ) -> Awaitable[Completion]:
        """Give the reply: ``return await proceed(request)``, or another one.

        What is streamed by a further ``proceed`` begins with MESSAGE_RESET, all in one message. A
        completion other than the last one that was streamed replaces it: its text, its calls and
        its finish reason count. What this raises is told as if the model had failed.

        Args:
          ctx: A context of the agent. What it asks and calls has around it what stands
            outside this; what models say to it joins no conversation.
          request: What is asked; make another one with ``request.replace(messages=…)``.
          proceed: Asks the model; may be awaited again, one after the other.

        """
        ...


class AroundAgent(Protocol):
    """Stands around an agent's body: the run's own, or one that a context delegates to."""

    def __call__(self, ctx: RunContext, proceed: Callable[[], Awaitable[Any]], /) -> Awaitable[Any]:
        """Give what the agent returns: ``return await proceed()``."""
        ...
