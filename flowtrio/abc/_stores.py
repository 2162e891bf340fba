"""What flowtrio asks of the stores of one process: of conversations, and of runs' logs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import attrs

from flowtrio._core._events import ROOT, SCHEMA, AgentEvent, AgentStatus, EventType
from flowtrio._core._limits import Limits
from flowtrio._core._media import told_of

from ._models import Message, ToolSpec


class ConversationStore(Protocol):
    """Keeps what was said in conversations, each a ``(tenant_id, session_id)``.

    Where `load` or `save` never waits, there may be the same as a plain function too,
    ``load_nowait`` or ``save_nowait``: then runs call that, which needs neither a deadline nor a
    shield.
    """

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
        self,
        tenant_id: str,
        session_id: str,
        run_id: str,
        messages: Sequence[Message],
        owner: str | None = None,
    ) -> None:
        """Do what ``save`` does, and note in the same step that this run's part is among them.

        Raises:
          Fenced: *owner* is given, and is not who runs that run (any more), or it has ended.
            Nothing was changed.

        """
        ...


@runtime_checkable
class DescribedConversations(ConversationStore, Protocol):
    """A `ConversationStore` that also keeps what is told of conversations beside what was said.

    That is JSON by name: a ``title`` that a person gave, an ``agent_title``, and of a branch
    ``branched_from``, ``{"session_id": ..., "turn": ...}``. `delete` forgets it too.
    """

    async def describe(
        self, tenant_id: str, session_id: str, told: Mapping[str, Any | None]
    ) -> None:
        """Keep what is *told* of a conversation, whether it was saved yet or not.

        What has another name stays, and what is None is forgotten.
        """
        ...

    async def descriptions(self, tenant_id: str) -> Mapping[str, Mapping[str, Any]]:
        """Give what is told of a tenant's conversations, by their session ids."""
        ...


@attrs.frozen(kw_only=True)
class RunOptions:
    """What is asked for in one run beside its message; all that another process needs to run it."""

    history: Sequence[Message] | None = None
    """What was said before, where there is no conversation that has its own."""
    model_settings: Mapping[str, Any] = attrs.field(factory=dict)
    """Settings of the model, as JSON."""
    limits: Limits | None = None
    """Limits of the run; None for those of whoever runs it."""
    client_tools: Sequence[ToolSpec] = ()
    """Further tools, which whoever reads the run runs; see `flowtrio.ClientTool`."""
    app: Any = None
    """What agents and tools find as ``ctx.app``, as JSON, such as the state of an AG-UI client;
    None for what whoever runs it has."""
    resume_window: float = math.inf
    """Seconds that it goes on without a follower; ``math.inf`` for as long as it takes."""
    waits_for_reader: bool = False
    """Whether that counts only when there was one: who starts it does not follow it himself."""
    is_attended: bool = True
    """Whether there are people to ask, and not only programs that run tools."""


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
    cut runs said to their conversations, or hands runs to others: until the run has ended, and
    given back only to who runs or closes it."""
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
    asked: RunOptions | None = attrs.field(default=None, repr=False)
    """What its starter asked for beside the message. For a store that hands runs to others: as with
    ``parts``."""


@attrs.frozen
class ListedRun:
    """A run among others, the newest of which come first."""

    header: RunHeader
    """What is known of it."""
    place: str
    """What ``newest`` takes as *before*, to go on behind it; only its store can read it."""


def opening_of(header: RunHeader) -> AgentEvent:
    """The RUN_START of a run that was cut off before it was stored."""
    data: dict[str, Any] = {
        "message": header.message,
        "parts": told_of(list(header.parts)),
        "session_id": header.session_id,
        "agent": header.agent,
        "parent_run_id": None,
        "schema": SCHEMA,
    }
    return AgentEvent(EventType.RUN_START, data, 0, header.run_id, ROOT, header.created_at)


class EventStore(Protocol):
    """Keeps the logs of hosted runs, each a ``(tenant_id, run_id)``.

    A log is what one recorder appends and any number of followers read. What was read once may be
    forgotten, from the front of a log and never from its middle; it then reads as `ReplayGap`.
    `flowtrio.testing.check_event_store` holds a store to all that is said here.

    Every method may be called by many tasks at once, and a call that is cancelled has happened or
    has not. Those that are given a run raise `LookupError` where there is none of that key.

    All answer as soon as they can, and whoever asks gives them a deadline; but for `wait_past`,
    which waits for what a run says next, and ends by itself only with the run's log.

    A store that loses the newest entries of a log refuses the next append, as that is not behind
    the last event any more. The recorder then reads where the log ends and appends again what is
    missing. So it does where a call failed or took too long, until the log has its end.

    A store whose `create` or `append` never waits may have the same as a plain function too,
    ``create_nowait`` or ``append_nowait``: then recorders call that, which needs neither a deadline
    nor a shield.
    """

    async def create(self, header: RunHeader) -> bool:
        """Begin an empty log.

        Returns:
          False, and nothing is changed, if there is a run of this key already. Of several who
          create one run at the same time, one gets True.

        """
        ...

    async def append(
        self,
        tenant_id: str,
        run_id: str,
        after: int,
        events: Sequence[AgentEvent],
        owner: str | None = None,
    ) -> None:
        """Append *events* behind the event *after*, all of them or none.

        When it returns they can be read, and outlast what the store says it outlasts.

        Args:
          tenant_id: Whose run it is.
          run_id: The run.
          after: Sequence number of the log's last event; -1 where it is empty.
          events: One or more, numbered on from *after*. DONE ends the log, and its header tells.
          owner: Who appends; None for one who is not to be asked.

        Raises:
          Fenced: *owner* is not who runs it by its header; that is asked before anything else.
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

    async def newest(
        self, tenant_id: str | None, *, before: str | None = None, limit: int
    ) -> Sequence[ListedRun]:
        """Give runs in the order in which they were created, the newest first.

        Args:
          tenant_id: Whose; None for the runs of all tenants.
          before: The place of a run, which may be gone: only those that were created before it.
          limit: How many at most. Fewer come only where there are no others.

        Raises:
          ValueError: *before* is no place.

        """
        ...

    async def live(self) -> Sequence[RunHeader]:
        """Give the runs of all tenants that have not ended."""
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
