"""What an ERROR event says of an exception."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from ._exceptions import DeadlineExceeded, LimitExceeded, ProviderError, RemoteProtocolError
from ._values import clean_text

_MAX_CAUSES = 16


@attrs.frozen(kw_only=True)
class Failure:
    """Why a run failed: the data of its ERROR event, without the causes."""

    error: str
    """What happened; never empty."""
    code: str
    """A stable word for programs."""
    source: str
    """``model tool agent deadline limit store internal``."""
    retryable: bool = False
    """Whether the same run may succeed when it is tried again."""
    deadline: str | None = None
    """The deadline's name, where the source is ``deadline``."""
    limit: str | None = None
    """The limit's name, where the source is ``limit``."""
    detail: dict[str, Any] | None = None
    """Status, request id, the provider's words."""

    def to_data(self, causes: list[dict[str, str]]) -> dict[str, Any]:
        """The data of the ERROR event."""
        return {
            "error": self.error,
            "code": self.code,
            "source": self.source,
            "retryable": self.retryable,
            "deadline": self.deadline,
            "limit": self.limit,
            "detail": self.detail,
            "causes": causes,
        }


def describe(exc: BaseException) -> str:
    """``Type: text``, or the type alone where there is no text."""
    text = _text_of(exc)
    name = type(exc).__name__
    return f"{name}: {text}" if text else name


def words_of(exc: BaseException) -> str:
    """The text alone, or the type where there is none: for exceptions of our own."""
    return _text_of(exc) or type(exc).__name__


def _text_of(exc: BaseException) -> str:
    try:
        return clean_text(str(exc))
    except Exception:
        # An exception that cannot say what it is about is no reason to tell nothing of it.
        return ""


def leaves(exc: BaseException) -> Iterator[BaseException]:
    """The exceptions of a group, groups within it opened, in order; *exc* itself if it is none."""
    if isinstance(exc, BaseExceptionGroup):
        for inner in exc.exceptions:
            yield from leaves(inner)
    else:
        yield exc


def failure_of(exc: BaseException, source: str) -> Failure:
    """Describe the exception that ended a run.

    Args:
      exc: The exception; not a group.
      source: Who raised it, unless the exception itself says.

    """
    match exc:
        case DeadlineExceeded():
            return Failure(
                error=words_of(exc),
                code="deadline_exceeded",
                source=exc.source,
                retryable=exc.deadline in ("connect", "first_token", "gap"),
                deadline=exc.deadline,
            )
        case LimitExceeded():
            return Failure(error=words_of(exc), code=exc.code, source="limit", limit=exc.limit)
        case ProviderError() | RemoteProtocolError():
            return Failure(
                error=words_of(exc),
                code=exc.code,
                source="model",
                retryable=exc.retryable,
                detail=exc.detail,
            )
        case KeyboardInterrupt() | SystemExit():
            return Failure(error=describe(exc), code="interrupted", source="internal")
        case _:
            return Failure(error=describe(exc), code=f"{source}_failed", source=source)


def causes_of(
    exc: BaseException | None, also: list[tuple[BaseException, str]], source: str
) -> list[dict[str, str]]:
    """What stands behind a failure, as ERROR's ``causes``.

    First the chain of *exc* (``__cause__``, else ``__context__`` where it is not suppressed), then
    the other errors of the run with their own sources.
    """
    found: list[tuple[BaseException, str]] = []
    seen = {id(exc)}
    pending = [] if exc is None else [(cause, source) for cause in _behind(exc)]
    pending += also
    while pending and len(found) < _MAX_CAUSES:
        cause, cause_source = pending.pop(0)
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        found.append((cause, cause_source))
        pending[:0] = [(inner, cause_source) for inner in _behind(cause)]
    return [
        {"error": words_of(cause), "type": type(cause).__name__, "source": who}
        for cause, who in found
    ]


def _behind(exc: BaseException) -> list[BaseException]:
    if exc.__cause__ is not None:
        return list(leaves(exc.__cause__))
    if exc.__context__ is not None and not exc.__suppress_context__:
        return list(leaves(exc.__context__))
    return []
