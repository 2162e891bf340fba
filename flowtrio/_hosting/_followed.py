"""The controls of a run that somebody follows, which may live here or in another process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flowtrio._core._events import AgentStatus, StreamMode
from flowtrio._core._exceptions import LocalProtocolError

if TYPE_CHECKING:
    from flowtrio._core._parts import Part
    from flowtrio._run._stream import EventStream

    from ._cursor import Cursor
    from ._hosted import HostedRun, Key
    from ._recorder import Recorder


class FollowedControls:
    """The controls of a run that somebody follows: its stream's, while that is here."""

    __slots__ = ("_hosted", "_key", "_mode", "_recorder")

    _recorder: Recorder
    _key: Key
    _hosted: HostedRun | None
    _mode: StreamMode
    _cursor: Cursor
    _is_over: bool
    seq: int

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._key[1]

    @property
    def mode(self) -> StreamMode:
        """Which view of the log this follower gives."""
        return self._mode

    @property
    def is_live(self) -> bool:
        """Whether the run goes on in this process, so that the controls can take effect."""
        return self._key in self._recorder.runs

    def _stream(self) -> EventStream | None:
        hosted = self._hosted or self._recorder.runs.get(self._key)
        return None if hosted is None else hosted.stream

    @property
    def status(self) -> AgentStatus:
        """What the run is doing, as far as it is known here; ``initializing`` before attaching."""
        stream = self._stream()
        if stream is not None:
            return stream.status
        header = self._cursor.header
        ended = header.status if header is not None else None
        return AgentStatus.INITIALIZING if ended is None else ended

    def __repr__(self) -> str:
        return f"<Follower run={self.run_id!r} seq={self.seq}>"

    @property
    def is_over(self) -> bool:
        """Whether DONE was given, or was seen before reading began; known once it is attached."""
        return self._is_over

    @property
    def is_elsewhere(self) -> bool:
        """Whether the run may go on in another process, as far as it is known here."""
        return self._cursor.is_following

    def _controlled(self) -> EventStream | None:
        """The stream of a run here; None where nothing can take effect any more.

        Raises:
          LocalProtocolError: the run lives elsewhere.

        """
        stream = self._stream()
        if stream is None and self.is_elsewhere:
            raise LocalProtocolError(
                f"can't control run {self.run_id!r} here: it may live in another process; expected "
                "await orchestrator.command(run_id, name, ...)"
            )
        return stream

    def cancel(self, reason: str | None = None) -> bool:
        """See `EventStream.cancel`."""
        stream = self._controlled()
        return stream is not None and stream.cancel(reason)

    def cancel_tool(self, call_id: str) -> bool:
        """See `EventStream.cancel_tool`."""
        stream = self._controlled()
        return stream is not None and stream.cancel_tool(call_id)

    def approve(self, call_id: str, arguments: Mapping[str, Any] | None = None) -> bool:
        """See `EventStream.approve`."""
        stream = self._controlled()
        return stream is not None and stream.approve(call_id, arguments)

    def deny(self, call_id: str, reason: str | None = None) -> bool:
        """See `EventStream.deny`."""
        stream = self._controlled()
        return stream is not None and stream.deny(call_id, reason)

    def answer(self, request_id: str, value: Any) -> bool:
        """See `EventStream.answer`."""
        stream = self._controlled()
        return stream is not None and stream.answer(request_id, value)

    def dismiss(self, request_id: str, reason: str | None = None) -> bool:
        """See `EventStream.dismiss`."""
        stream = self._controlled()
        return stream is not None and stream.dismiss(request_id, reason)

    def post(
        self,
        message: str | Sequence[Part],
        interrupt: bool = False,
        *,
        post_id: str | None = None,
    ) -> bool:
        """See `EventStream.post`."""
        stream = self._controlled()
        return stream is not None and stream.post(message, interrupt, post_id=post_id)
