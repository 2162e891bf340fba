"""What the clients of one server share: its runs, and how they end when it stops."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import attrs
import trio

from flowtrio._core._events import StreamMode
from flowtrio._core._exceptions import LimitExceeded, LocalProtocolError, ReplayGap
from flowtrio._core._failures import describe
from flowtrio._core._limits import ServerLimits, is_wait, of_kind
from flowtrio._core._telling import tell
from flowtrio._core._values import told
from flowtrio._hosting._follower import Follower
from flowtrio._hosting._hosted import HostedRun
from flowtrio._hosting._service import Service
from flowtrio._run._controls import fail_run, run_of
from flowtrio.serving._access import Refused
from flowtrio.wire._frames import BadFrame, Control

from ._apply import apply, apply_anywhere
from ._showing import Showing
from ._throttle import Throttle, throttle_of

if TYPE_CHECKING:
    from flowtrio._core._parts import Part
    from flowtrio._hosting._cluster import Started
    from flowtrio._hosting._orchestrator import Orchestrator
    from flowtrio._run._stream import EventStream

Key: TypeAlias = tuple[str, str]
"""A run's key: tenant and run id."""


def _seconds(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not is_wait(value):
        raise ValueError(f"{attribute.name}={told(value)}: expected seconds, 0 or more")


class Refusal(NamedTuple):
    """Why a client does not get what it asks for."""

    code: str
    """For programs."""
    error: str
    """For people."""


class Dismissible(Protocol):
    """A session, as far as it is told goodbye."""

    async def dismiss(self) -> None:
        """Say so to its client, and end."""
        ...


class StoreFailed(Exception):
    """A store raised *error*."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


@contextmanager
def asking_the_store() -> Iterator[None]:
    """Tell what a store raises from what else goes wrong.

    Raises:
      StoreFailed: something was raised in the block.

    """
    try:
        yield
    except Exception as exc:
        raise StoreFailed(exc) from exc


@attrs.define(eq=False)
class Hosting:
    """What the sessions of one server share."""

    orchestrator: Orchestrator
    limits: ServerLimits = attrs.field(validator=of_kind(ServerLimits))
    debug: bool = False
    resume_window: float = attrs.field(default=60, validator=_seconds)
    """Seconds that a hosted run goes on without a reader; 0 for none."""
    is_draining: bool = False
    """Whether the server is stopping, and starts no more runs."""
    nursery: trio.Nursery | None = None
    """Where hosted runs live, so that they outlast a server's cancellation by its drain; None for
    the orchestrator's own."""
    service: Service = attrs.field(init=False)
    """What servers may do with the orchestrator."""
    connections: int = attrs.field(default=0, init=False)
    """Streaming connections of clients."""
    sessions: set[Dismissible] = attrs.field(factory=set, init=False)
    """The WebSockets that are open."""
    runs: dict[Key, EventStream] = attrs.field(factory=dict, init=False)
    """The runs that live with their connection, by tenant and run id."""
    _hosted: dict[Key, EventStream] = attrs.field(factory=dict, init=False)
    """The hosted runs that were started here and have not ended."""
    _readers: dict[Follower, bool] = attrs.field(factory=dict, init=False)
    _idle: trio.Event = attrs.field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self.service = Service(self.orchestrator)

    @property
    def serves_nobody(self) -> bool:
        """Whether this process only runs what others have started."""
        return self.orchestrator.role == "worker"

    def check_room(self) -> None:
        """Refuse a connection more where there are as many as there may be.

        Raises:
          Refused: there are.

        """
        if self.connections >= self.limits.connections:
            raise Refused(503, "no more connections at the moment")

    @contextmanager
    def connecting(self) -> Iterator[None]:
        """One of the connections that are limited; see `check_room`."""
        self.check_room()
        self.connections += 1
        try:
            yield
        finally:
            self.connections -= 1

    @property
    def throttle(self) -> Throttle:
        """How often was asked, and how much was spent."""
        return throttle_of(self.orchestrator)

    # Runs that live with their connection

    @contextmanager
    def holding(self, tenant_id: str, stream: EventStream) -> Iterator[None]:
        """A run that ends with its connection."""
        key = (tenant_id, stream.run_id)
        self.runs[key] = stream
        try:
            yield
        finally:
            del self.runs[key]
            self._idle.set()
            if self.limits.spend_per_day is not None:
                self.throttle.note(tenant_id, stream)

    # Hosted runs

    def starting(
        self,
        tenant_id: str,
        message: str | Sequence[Part],
        session_id: str | None,
        run_id: str | None,
        *,
        resume_window: float | None = None,
        **options: Any,
    ) -> AbstractAsyncContextManager[HostedRun | Started]:
        """Start a hosted run, unless there is one of this id.

        It does not count as left before the block ends.

        Args:
          tenant_id: Whose it is.
          message: What the user says.
          session_id: The conversation.
          run_id: Its id; None for a new one.
          resume_window: Seconds that it goes on without a reader; the server's by default.
          options: See `Service.starting`.

        Raises:
          LimitExceeded: the conversation or the tenant is busy.
          RunExists: the run of this id answers another message.
          StoreFailed: processes share the store, and it did not take the start.

        """
        window = self.resume_window if resume_window is None else resume_window
        given = (message, tenant_id, session_id, run_id, window)
        if self.service.cluster is not None:
            return self._starting_anywhere(*given, options)
        return self.service.starting(self.nursery, *given, begun=self._hold, **options)

    @asynccontextmanager
    async def _starting_anywhere(
        self,
        message: str | Sequence[Part],
        tenant_id: str,
        session_id: str | None,
        run_id: str | None,
        window: float,
        options: dict[str, Any],
    ) -> AsyncIterator[HostedRun | Started]:
        """Start a run that any process may run."""
        async with AsyncExitStack() as stack:
            try:
                starting = self.service.starting(
                    None, message, tenant_id, session_id, run_id, window, **options
                )
                started = await stack.enter_async_context(starting)
            except (LimitExceeded, LocalProtocolError, TypeError, ValueError):
                raise
            except Exception as exc:
                self.service.health.note(exc)
                raise StoreFailed(exc) from exc
            yield started

    @contextmanager
    def seated(self, tenant_id: str, run_id: str) -> Iterator[None]:
        """Have a run not count as left in a block, if it is one of those hosted here."""
        hosted = self.service.recorder.find(tenant_id, run_id)
        with nullcontext() if hosted is None else hosted.seated():
            yield

    def _hold(self, hosted: HostedRun) -> None:
        """A hosted run that ends at last when this server does."""
        self._hosted[hosted.key] = hosted.stream
        run_of(hosted.stream).when_done(lambda: self._forget(hosted.key))

    def _forget(self, key: Key) -> None:
        self._hosted.pop(key, None)
        self._idle.set()

    async def is_known(self, tenant_id: str, run_id: str) -> bool:
        """Whether there is a hosted run of this key, live or ended."""
        orchestrator = self.orchestrator
        if orchestrator.attach(run_id, tenant_id=tenant_id).is_live:
            return True
        return await orchestrator.store.header(tenant_id, run_id) is not None

    async def control(self, tenant_id: str, command: Control) -> None:
        """Do to a run what a client asks; whether it took effect is seen in the events.

        Raises:
          BadFrame: there is no such run under way, or what is given does not fit.
          StoreFailed: processes share a store, and that failed.

        """
        stream = self.find(tenant_id, command.run_id)
        if stream is not None:
            return apply(stream, command, self.limits)
        if self.service.cluster is None:
            raise BadFrame("unknown_run", "no run of this id is under way", command.ref)
        try:
            return await apply_anywhere(self.orchestrator, tenant_id, command, self.limits)
        except BadFrame:
            raise
        except Exception as exc:
            raise StoreFailed(exc) from exc

    def find(self, tenant_id: str, run_id: str) -> EventStream | Follower | None:
        """The controls of a run that goes on, whoever started it; None if there is none."""
        if stream := self.runs.get((tenant_id, run_id)):
            return stream
        follower = self.orchestrator.attach(run_id, tenant_id=tenant_id)
        return follower if follower.is_live else None

    def showing(
        self,
        mode: StreamMode | None,
        after: int,
        *,
        is_linked: bool,
        newest: int = -1,
        is_compacted: bool = False,
    ) -> Showing:
        """What a remote reader will be shown of a run.

        Args:
          mode: Which events; the orchestrator's own by default.
          after: The last sequence number that was seen; -1 for none.
          is_linked: Whether each event names the one before it.
          newest: The event up to which all is shown as one snapshot, by its number; -1 for none.
          is_compacted: Whether that snapshot is the compacted log, and not the state.

        """
        mode = self.orchestrator.mode if mode is None else mode
        return Showing(mode, after, is_linked, self.debug, newest, is_compacted)

    def follow(self, tenant_id: str, run_id: str, after: int, start: int) -> Follower:
        """Make a reader of a hosted run, which feeds what shows or tells it.

        It gives the whole log: states are folded from what remote readers may see.

        Args:
          tenant_id: Whose run it is.
          run_id: The run.
          after: The last event that was seen, by its number; -1 for none.
          start: The place behind which the log has to be fed.

        """
        recorder, patience = self.service.recorder, self.limits.send
        return Follower(recorder, tenant_id, run_id, after, StreamMode.EVENTS, patience, start)

    @contextmanager
    def reading(self, follower: Follower, *, is_only_here: bool = False) -> Iterator[None]:
        """Somebody reads a hosted run: a server that stops lets him read to the end."""
        self._readers[follower] = is_only_here
        try:
            yield
        finally:
            del self._readers[follower]
            self._idle.set()

    # What goes wrong

    def refusal_of(self, run_id: str, exc: Exception) -> Refusal:
        """Why a hosted run cannot be read (on), from what that raised.

        A store that fails is told to the operators; its text may name places and people of theirs.
        """
        match exc:
            case ReplayGap():
                return Refusal(code="replay_gap", error=str(exc))
            case LookupError():
                return Refusal(code="unknown_run", error="no run of this id is known")
            case _:
                tell(logging.ERROR, "run %s: the store failed a reader", run_id, exc=exc)
                return Refusal(code="store_failed", error=self.words_of(exc))

    def words_of(self, exc: Exception) -> str:
        """What a remote client is told of an exception of the store's."""
        return f"the store failed: {describe(exc) if self.debug else type(exc).__name__}"

    # The end

    async def drain(self, seconds: float) -> None:
        """Give the runs *seconds* to end, then end them with ERROR ``shutdown``."""
        self.is_draining = True
        cluster = self.service.cluster
        if cluster is not None:
            # Those that wait are for other processes, and so are those who read what runs there.
            cluster.stop_claiming()
            for hosted in self.service.recorder.runs.values():
                self._hold(hosted)
        with trio.move_on_after(self.orchestrator.limits.grace):
            await self._wait_for_starts()
        with trio.move_on_after(seconds):
            await self._wait_idle(is_patient=True)
        for stream in [*self.runs.values(), *self._hosted.values()]:
            fail_run(stream, "shutdown", "internal", "the server is shutting down")
        # Each has its grace to clean up, and its reader the time to take the end.
        with trio.move_on_after(self.orchestrator.limits.grace + self.limits.send):
            await self._wait_idle()

    async def dismiss(self) -> None:
        """Say goodbye to all sessions, and wait until they have ended, or for a while."""
        async with trio.open_nursery() as nursery:
            for session in self.sessions:
                nursery.start_soon(session.dismiss)

    async def _wait_for_starts(self) -> None:
        """Let what is being started begin, or fail to: it is held, and refused, like the others."""
        for hosted in list(self.service.recorder.runs.values()):
            if not hosted.has_begun.is_set():
                await hosted.has_begun.wait()
        # Who starts one is woken by the same, in this turn or the next, and may come behind us.
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()

    async def _wait_idle(self, is_patient: bool = False) -> None:
        while self.runs or self._hosted or _any_held(self._readers, is_patient):
            self._idle = trio.Event()
            await self._idle.wait()


def _any_held(readers: Mapping[Follower, bool], is_patient: bool) -> bool:
    """Whether a server that stops waits for one of its readers.

    Not for longer than its drain, while it is patient, if the run lives elsewhere; and not at all
    if he can read on elsewhere too.
    """
    return any(
        not reader.is_elsewhere or (is_patient and is_only_here)
        for reader, is_only_here in readers.items()
    )
