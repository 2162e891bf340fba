"""The interfaces: what flowtrio asks of the parts that others may bring."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import attrs

from flowtrio._core._chunks import Chunk, Completion, ToolCall
from flowtrio._core._events import AgentEvent, AgentStatus
from flowtrio._core._parts import Part as Part

if TYPE_CHECKING:
    from flowtrio._agents._context import RunContext
    from flowtrio._agents._tools import Tool
    from flowtrio._core._requests import ModelRequest

Message: TypeAlias = dict[str, Any]
"""One message of a conversation, in the shape of OpenAI's chat completions.

``content`` is text or a list of parts. The one private key ``flowtrio`` may stand beside the
standard ones: ``{"partial": True}`` marks text that ended early, ``carry`` is what a provider wants
back. Codecs strip it.
"""

ToolSpec: TypeAlias = dict[str, Any]
"""A tool as clients are told of it, in the shape of OpenAI's chat completions:
``{"type": "function", "function": {"name", "description", "parameters"}}``, where the parameters
are a JSON Schema of type object."""


@runtime_checkable
class LLMClient(Protocol):
    """A model that streams."""

    def stream_completion(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] | None = None, **options: Any
    ) -> AsyncIterator[Chunk]:
        """Ask for one reply.

        Gives chunks, the last one with ``is_final``. May be a plain async generator. Whoever asked
        closes the iterator (``aclose``) on every path where it has one.
        """
        ...


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
          ctx: A context of the agent. A model that is asked by it has nothing around it.
          request: What is asked; make another one with ``request.replace(messages=…)``.
          proceed: Asks the model; may be awaited again, one after the other.

        """
        ...


class ConversationStore(Protocol):
    """Keeps what was said in conversations, each a ``(tenant_id, session_id)``."""

    async def load(self, tenant_id: str, session_id: str) -> list[Message]:
        """Give the conversation so far, oldest first; empty if there is none."""
        ...

    async def save(self, tenant_id: str, session_id: str, messages: Sequence[Message]) -> None:
        """Replace the conversation by *messages*."""
        ...

    async def delete(self, tenant_id: str, session_id: str) -> None:
        """Forget the conversation; nothing happens if there is none."""
        ...


@runtime_checkable
class RecoverableConversations(ConversationStore, Protocol):
    """A `ConversationStore` that also gets what runs said that were cut off with their process.

    For stores of conversations that share their place with the `EventStore`: there the logs of
    such runs are found, and what they said can be added once.
    """

    async def save_after(
        self, tenant_id: str, session_id: str, run_id: str, messages: Sequence[Message]
    ) -> None:
        """Do what ``save`` does, and note in the same step that this run's part is among them."""
        ...


@attrs.frozen(kw_only=True)
class RunHeader:
    """What is known of a hosted run without its events."""

    tenant_id: str
    """Whose run it is."""
    run_id: str
    """The run; together with the tenant its key in every store."""
    session_id: str | None
    """The conversation it belongs to."""
    agent: str
    """Name of the agent that answers."""
    message: str = attrs.field(repr=False)
    """What the user said, without its images and files."""
    parts: Sequence[dict[str, Any]] = attrs.field(default=(), repr=False)
    """All of it, in OpenAI's shape, where there is more than the text. For a store that adds what
    cut runs said to their conversations: until the run has ended, and given back by none."""
    digest: str | None = None
    """Of all of it, where there is more than the text: that tells another message from the same."""
    created_at: float
    """When it was started; UTC, seconds."""
    ended_at: float | None = None
    """When its DONE was stored, by that event's own time; None before."""
    status: AgentStatus | None = None
    """How it ended; None before."""
    owner: str | None = None
    """Who runs it: the one recorder that may append to its log."""
    is_remembered: bool = False
    """Whether its conversation is kept: not that of a message without a session."""


class EventStore(Protocol):
    """Keeps the logs of hosted runs, each a ``(tenant_id, run_id)``.

    A log is what one recorder appends and any number of followers read. What was read once may be
    forgotten, from the front of a log and never from its middle; it then reads as `ReplayGap`.
    `flowtrio.testing.check_event_store` holds a store to all that is said here.

    Every method may be called by many tasks at once, and a call that is cancelled has happened or
    has not. Those that are given a run raise `LookupError` where there is none of that key.

    A store that loses the newest entries of a log refuses the next append, as that is not behind
    the last event any more. The recorder then reads where the log ends and appends again what is
    missing. So it does where a call failed or took too long, until the log has its end.

    A store whose `append` never waits may have the same as a plain function ``append_nowait`` too:
    then recorders call that, which needs neither a deadline nor a shield.
    """

    async def create(self, header: RunHeader) -> bool:
        """Begin an empty log.

        Returns:
          False, and nothing is changed, if there is a run of this key already. Of several who
          create one run at the same time, one gets True.

        """
        ...

    async def append(
        self, tenant_id: str, run_id: str, after: int, events: Sequence[AgentEvent]
    ) -> None:
        """Append *events* behind the event *after*, all of them or none.

        When it returns they can be read, and outlast what the store says it outlasts.

        Args:
          tenant_id: Whose run it is.
          run_id: The run.
          after: Sequence number of the log's last event; -1 where it is empty.
          events: One or more, numbered on from *after*. DONE ends the log, and its header tells.

        Raises:
          LocalProtocolError: *after* is not the last event, the numbers do not go on from it, or
            the log has ended. Nothing was changed.

        """
        ...

    async def read(
        self, tenant_id: str, run_id: str, after: int, limit: int
    ) -> Sequence[AgentEvent]:
        """Give the events behind *after*, at most *limit* of them; empty if there are none yet.

        Raises:
          ReplayGap: the next event is not kept any more, or *after* is later than the last.

        """
        ...

    async def wait_past(self, tenant_id: str, run_id: str, seq: int) -> int:
        """Wait until the log holds an event later than *seq*, or has ended.

        Returns at once (after a checkpoint) if one is already there.

        Returns:
          The log's newest sequence number; -1 where it is empty.

        Raises:
          LookupError: there is no such run, or it was deleted meanwhile.

        """
        ...

    async def header(self, tenant_id: str, run_id: str) -> RunHeader | None:
        """Give what is known of a run; None if there is none."""
        ...

    async def list(self, tenant_id: str, session_id: str | None = None) -> Sequence[RunHeader]:
        """Give the runs of a tenant, or of one of its conversations, oldest first."""
        ...

    async def delete(
        self, tenant_id: str, *, run_id: str | None = None, session_id: str | None = None
    ) -> int:
        """Forget a run, the runs of a conversation or, given neither, all of a tenant's.

        Returns:
          How many runs were forgotten.

        """
        ...

    async def expire(self, before: float) -> int:
        """Forget the runs that ended before a time; those that go on stay.

        Args:
          before: UTC, seconds.

        Returns:
          How many runs were forgotten.

        """
        ...


@attrs.frozen(kw_only=True)
class Request:
    """A client's request as ``authenticate`` sees it, the same on all transports."""

    path: str
    """Path of the address, without the query."""
    headers: Mapping[str, str] = attrs.field(repr=False)
    """By lower-case name; several of one name are joined by ``", "``."""
    cookies: Mapping[str, str] = attrs.field(repr=False)
    """By name."""
    query: Mapping[str, str] = attrs.field(repr=False)
    """By name; the last one where a name stands twice."""
    client: str | None
    """Address of the other side, without the port; None where there is none."""


class Authenticate(Protocol):
    """Says whose a request is."""

    def __call__(self, request: Request, /) -> str | Awaitable[str | None] | None:
        """Give the tenant, or None to refuse. May be async; has the handshake's time."""
        ...
