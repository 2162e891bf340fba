"""What an orchestrator does with runs that need no reader: their verbs, apart from its options."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import TYPE_CHECKING, Any

import attrs
import trio

from flowtrio._agents._client_tool import client_tools_of
from flowtrio._agents._given import ForRun
from flowtrio._core._events import StreamMode
from flowtrio._core._exceptions import LocalProtocolError
from flowtrio._core._limits import is_wait
from flowtrio._core._values import check_json, told
from flowtrio._run._controls import run_of
from flowtrio.abc import RunOptions

from ._cluster import Cluster, Started
from ._commands import apply_command, check_command
from ._follower import Follower
from ._hosted import HostedRun
from ._recorder import Recorder, header_of

if TYPE_CHECKING:
    from flowtrio._core._parts import Part
    from flowtrio._run._stream import EventStream
    from flowtrio.abc import ConversationStore, EventStore

    from ._engine import StreamEngine
    from ._sessions import Sessions


class HostedRuns:
    """The hosted runs of an orchestrator."""

    __slots__ = ()

    mode: StreamMode
    store: EventStore
    conversations: ConversationStore
    process_stream: Callable[..., EventStream]
    _engine: StreamEngine
    _sessions: Sessions
    _recorder: Recorder
    _cluster: Cluster | None

    @property
    def is_open(self) -> bool:
        """Whether it is inside its ``async with`` block."""
        return self._engine.is_open

    async def start(
        self,
        message: str | Sequence[Part] | None,
        tenant_id: str = "default",
        session_id: str | None = None,
        run_id: str | None = None,
        app: Any = None,
        *,
        resume_window: float = math.inf,
        **options: Any,
    ) -> str:
        """Start a run that needs no reader: its log goes into the store, where many may follow it.

        Starting the same message under an id that exists, of the same tenant, starts nothing:
        whoever lost the answer may start again, and the agent and its tools run once. Being
        cancelled while this waits does not take the start back. The run ends with this
        orchestrator's block at the latest.

        Args:
          message: What the user says; all up to *app* is as in `process_stream`.
          tenant_id: Whose it is.
          session_id: The conversation.
          run_id: Its id.
          app: Found as ``ctx.app``.
          resume_window: Seconds after which the run is cancelled when no follower is attached, and
            none was since the start; a run that waits for a person is not. 0 cancels it as soon as
            its last follower has left, and leaves it alone until the first one comes. By default
            none.
          options: As `process_stream` takes them: ``limits history tools model_settings agent``.

        Returns:
          The run's id, for `attach`. A store that fails is an ERROR there, not an exception here.

        Raises:
          LimitExceeded: the conversation or the tenant is busy (``code`` says which); nothing was
            started, and no log is left.
          RunExists: there is a run of this id, and it answers another message.
          RuntimeError: the orchestrator is not open.
          ValueError: *resume_window* is below 0, or another argument cannot be one.

        """
        if not is_wait(resume_window):
            raise ValueError(f"resume_window={told(resume_window)}: expected seconds, 0 or more")
        waits = not resume_window
        given = (None, message, tenant_id, session_id, run_id, resume_window)
        async with self._starting(*given, waits=waits, app=app, **options) as hosted:
            if waits and isinstance(hosted, HostedRun):
                hosted.keep()
            return hosted.run_id

    def _starting(
        self,
        nursery: trio.Nursery | None,
        message: str | Sequence[Part] | None,
        tenant_id: str,
        session_id: str | None,
        run_id: str | None,
        resume_window: float,
        *,
        attended: bool = True,
        waits: bool = False,
        begun: Callable[[HostedRun], None] | None = None,
        **options: Any,
    ) -> AbstractAsyncContextManager[HostedRun | Started]:
        nursery = nursery or self._engine._home.nursery_here
        if nursery is None or not self.is_open:
            raise RuntimeError(
                "can't start a hosted run: expected an open orchestrator (async with orchestrator)"
            )
        stream = self.process_stream(message, tenant_id, session_id, "events", run_id, **options)
        run_of(stream).has_people = attended
        is_remembered = session_id is not None
        if self._cluster is not None:
            asked = attrs.evolve(
                asked_of(stream, options),
                resume_window=resume_window,
                waits_for_reader=waits,
                is_attended=attended,
            )
            header = attrs.evolve(header_of(stream, None, is_remembered=is_remembered), asked=asked)
            return self._cluster.starting(header)
        return self._recorder.starting(
            nursery, stream, resume_window, is_remembered=is_remembered, begun=begun
        )

    def attach(
        self,
        run_id: str,
        after: int = -1,
        tenant_id: str = "default",
        mode: StreamMode | str | None = None,
        *,
        patience: float = 10,
        snapshot: bool = False,
    ) -> Follower:
        """Make a reader of a hosted run, live or ended, from any place in its log.

        Nothing happens until it is entered or read; then `LookupError` says that there is no such
        run, also where it is another tenant's, and `ReplayGap` that the place is gone.

        Args:
          run_id: The run.
          after: The last sequence number that was seen; -1 for none.
          tenant_id: Whose it is.
          mode: Which events to give; the orchestrator's by default. Where the beginning of a log
            is gone, its ``values`` are a `ReplayGap` too.
          patience: Seconds that the run waits for this reader at most, when it reads too slowly.
          snapshot: Whether all that was said by now is one event: the newest, of whatever type,
            whose data has the ``state`` up to and including it, as in ``values``. What follows is
            given as the mode has it. `ReplayGap` where the beginning of the log is gone.

        Raises:
          ValueError: *after* is no sequence number, or *mode* is not one of the modes; or a
            *snapshot* is asked for behind a place.

        """
        if isinstance(after, bool) or not isinstance(after, int) or after < -1:
            raise ValueError(f"after={after!r}: expected the last seq that was seen, or -1")
        if snapshot and after >= 0:
            raise ValueError(f"after={after}, snapshot=True: a snapshot is of all that was said")
        return Follower(
            self._recorder,
            tenant_id,
            run_id,
            after,
            self.mode if mode is None else StreamMode(mode),
            patience,
            snapshot=snapshot,
        )

    async def command(
        self, run_id: str, name: str, *, tenant_id: str = "default", **arguments: Any
    ) -> bool | None:
        """Do something to a hosted run, wherever it lives.

        Where processes share a store, that may be in another one, which is asked and replies. A run
        that still waits to be run can be cancelled.

        Args:
          run_id: The run.
          name: One of the controls of a stream: ``cancel``, ``cancel_tool``, ``approve``, ``deny``,
            ``answer``, ``dismiss`` or ``post``.
          tenant_id: Whose it is.
          arguments: The control's; see `EventStream`.

        Returns:
          Whether it took effect; None where there is no such run, also where it is another
          tenant's.

        Raises:
          TypeError: the control takes other arguments, or they are no JSON.
          ValueError: there is no such control, or what is given does not fit what the run asked.
          trio.TooSlowError: who runs it has not replied within 5 s; what the store raises is raised
            too.

        """
        given = check_command(name, arguments)
        if self._cluster is not None:
            return await self._cluster.commands.command(tenant_id, run_id, name, given)
        hosted = self._recorder.runs.get((tenant_id, run_id))
        if hosted is not None:
            await trio.lowlevel.checkpoint()
            return apply_command(hosted.stream, name, given)
        return None if await self.store.header(tenant_id, run_id) is None else False

    async def _forget(self, tenant_id: str, session_id: str) -> None:
        """Delete a conversation and its logs; what is under way in it would bring it back."""
        why = "its conversation was deleted"
        if self._cluster is not None:
            await self._cluster.clear(tenant_id, session_id, why)
        await self._sessions.clear(tenant_id, session_id, why)
        await self._recorder.forget_session(tenant_id, session_id, why)
        await self.conversations.delete(tenant_id, session_id)
        await self.store.delete(tenant_id, session_id=session_id)


def asked_of(stream: EventStream, options: Mapping[str, Any]) -> RunOptions:
    """What a start asks for, as any process can run it.

    Raises:
      LocalProtocolError: there is something among it that is in this process alone.

    """
    tools = client_tools_of(options.get("tools") or ())
    if tools is None:
        raise LocalProtocolError(
            "tools=: another process may run this: expected none but ClientTool here, and others "
            "in the agents of all processes"
        )
    info = run_of(stream).info
    given = info.given if isinstance(info.given, ForRun) else ForRun()
    return RunOptions(
        history=list(info.history),
        model_settings=given.model_settings,
        app=_as_json(options.get("app")),
        limits=options.get("limits"),
        client_tools=tools,
    )


def _as_json(app: Any) -> Any:
    """What a run's agents find as ``ctx.app``, in whichever process."""
    with suppress(TypeError, ValueError):
        # Not what only has a form in JSON: there it would be something else than here.
        if (plain := check_json(app, "app")) == app:
            return plain
    raise LocalProtocolError(
        "app=: another process may run this: expected JSON here, or app= of the orchestrators of "
        "all processes"
    )
