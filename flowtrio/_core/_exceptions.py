"""The error tree, all of it.

::

    FlowtrioError              the root: ``except FlowtrioError`` catches what is ours
      ProtocolError            abstract
        LocalProtocolError     our side tried something illegal
          RunExists            another message was to be started under a run's id
          Fenced               somebody else runs this run now, or has ended it
        RemoteProtocolError    the other side sent something illegal
      ProviderError            the model's host refused, and said why
      RunFailed                a run ended in failure; ``__cause__`` is the reason
      RunCancelled             a run was cancelled on purpose
      ToolFailed               a tool called with ``ctx.call`` did not end ok
      InputDeclined            a question was dismissed
      ToolDenied               raise it around a tool to have its call end denied
      DeadlineExceeded         a named deadline passed (also a ``TimeoutError``)
      LimitExceeded            a named limit was reached
      ReplayGap                the store cannot continue from the asked place

For closed, broken, busy and ended channels Trio's own classes are used.
A message says what was asked, in what situation and what was expected; it
never holds a secret or a model's text.
"""

from __future__ import annotations

from typing import Any


class FlowtrioError(Exception):
    """Base class of every error that flowtrio defines."""


class ProtocolError(FlowtrioError):
    """Abstract base: somebody broke the rules of a protocol.

    Raised only as `LocalProtocolError` or `RemoteProtocolError`, which say whose doing it was.
    """


class LocalProtocolError(ProtocolError):
    """Our own side tried something illegal; nothing was changed by the attempt."""

    def __init__(self, message: str, *, law: str | None = None) -> None:
        super().__init__(message)
        self.law = law
        """The law that would have been broken, ``"L1"`` to ``"L11"``, or None."""


class RunExists(LocalProtocolError):
    """Another message was to be started under the id of a run that exists; nothing was started.

    Starting the *same* message again is no error: it attaches, and runs nothing twice.
    """

    def __init__(
        self, message: str, *, run_id: str, code: str = "run_exists", law: str | None = None
    ) -> None:
        super().__init__(message, law=law)
        self.run_id = run_id
        """The run that exists."""
        self.code = code
        """A stable word for programs, as in a server's reply."""


class Fenced(LocalProtocolError):
    """A run is not ours any more: another process runs it, or has ended it; nothing was changed.

    A store raises it to who was taken for dead, and comes back. What it would still have to say of
    that run is nobody's business: its log, and its conversation, have gone on without it.
    """


class RemoteProtocolError(ProtocolError):
    """The other side sent something illegal: a model's stream, or a client's frame."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "bad_stream",
        retryable: bool = False,
        detail: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        """A stable word for programs: ``bad_stream``, ``stream_cut``, ``bad_content_type``, …"""
        self.retryable = retryable
        """Whether the same request may succeed when it is sent again."""
        self.detail = detail
        """What is known besides: status, request id; JSON, or None."""


def withheld_reply(finish_reason: str | None = None) -> RemoteProtocolError:
    """The error of a reply that its provider withheld; *finish_reason* in the provider's word."""
    return RemoteProtocolError(
        "the model's host withheld its reply",
        code="withheld",
        detail=None if finish_reason is None else {"finish_reason": finish_reason},
    )


class ProviderError(FlowtrioError):
    """The model's host refused or failed a request, and said why."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str = "provider_error",
        retry_after: float | None = None,
        retryable: bool = False,
        detail: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status, or None when the error came inside a stream or no answer came."""
        self.code = code
        """A stable word for programs: ``rate_limited``, ``unauthorized``, ``bad_request``, …"""
        self.retry_after = retry_after
        """Seconds the provider asked us to wait, or None."""
        self.retryable = retryable
        """Whether the same request may succeed when it is sent again."""
        self.detail = detail
        """Status, request id and the provider's own words; JSON, or None."""


class _RunEnded(FlowtrioError):
    """What `RunFailed` and `RunCancelled` share."""

    def __init__(
        self,
        message: str,
        *,
        run_id: str,
        messages: list[dict[str, Any]],
        usage: dict[str, Any],
    ) -> None:
        super().__init__(message)
        self.run_id = run_id
        """The run that ended."""
        self.messages = messages
        """The conversation as far as it went: valid as ``history=`` of the next run."""
        self.usage = usage
        """The run's usage, as in DONE."""


class RunFailed(_RunEnded):
    """A run ended in failure; ``__cause__`` is the exception that ended it, where there is one."""

    def __init__(
        self,
        message: str,
        *,
        run_id: str,
        messages: list[dict[str, Any]],
        usage: dict[str, Any],
        error: dict[str, Any],
    ) -> None:
        super().__init__(message, run_id=run_id, messages=messages, usage=usage)
        self.error = error
        """The data of the run's ERROR event."""


class RunCancelled(_RunEnded):
    """A run was cancelled on purpose, or its reader left."""


class ToolFailed(FlowtrioError):
    """A tool called with ``ctx.call`` did not end with outcome ``ok``."""

    def __init__(self, message: str, *, tool_name: str, call_id: str, outcome: str) -> None:
        super().__init__(message)
        self.tool_name = tool_name
        """The tool's name."""
        self.call_id = call_id
        """The call, as in its TOOL_CALL_END."""
        self.outcome = outcome
        """``error``, ``timeout``, ``cancelled`` or ``denied``."""


class InputDeclined(FlowtrioError):
    """A person declined to answer what ``ctx.ask`` asked."""

    def __init__(self, message: str, *, request_id: str, reason: str | None) -> None:
        super().__init__(message)
        self.request_id = request_id
        """The question, as in its INPUT_REQUIRED."""
        self.reason = reason
        """Why, in that person's words; None where none were said."""


class ToolDenied(FlowtrioError):
    """Raised by the application around a tool, or by ``needs_approval``: the call ends ``denied``.

    The reason is told in the call's TOOL_CALL_END, and to the model.
    """

    @property
    def reason(self) -> str:
        """Why."""
        return str(self)


class DeadlineExceeded(FlowtrioError, TimeoutError):
    """A named deadline passed.

    A `TimeoutError` too, so that ``except TimeoutError`` around ``ctx.ask`` reads as usual.
    """

    def __init__(self, message: str, *, deadline: str, source: str = "deadline") -> None:
        super().__init__(message)
        self.deadline = deadline
        """Which: ``run tool connect first_token gap content approval input``."""
        self.source = source
        """The ``source`` of the ERROR that this makes when it ends a run."""


class LimitExceeded(FlowtrioError):
    """A named limit of a run, a session or a tenant was reached."""

    def __init__(
        self,
        message: str,
        *,
        limit: str,
        code: str = "limit_exceeded",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.limit = limit
        """Which: a field of `Limits`, or ``runs_per_tenant``, ``queue``."""
        self.code = code
        """``limit_exceeded``, ``session_busy`` or ``tenant_busy``; of a server, ``rate_limited`` or
        ``spend_limited`` too."""
        self.retry_after = retry_after
        """Seconds after which it is worth a try; None where nobody knows."""


class ReplayGap(FlowtrioError):
    """The store cannot continue a log from the asked place: those events are gone."""

    def __init__(self, message: str, *, run_id: str, after: int, oldest: int | None) -> None:
        super().__init__(message)
        self.run_id = run_id
        """The run whose log was asked for."""
        self.after = after
        """The last sequence number the reader had seen."""
        self.oldest = oldest
        """The oldest sequence number still kept; None when nothing is."""
